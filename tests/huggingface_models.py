"""Small models and tokenizers of transformers with random weights, written to a folder and read from it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SENTENCES = [
    "The film is wonderful and the actors are great.",
    "I did not like the unwatchable plot of this film.",
    "Paris is the capital of France.",
    "London is the capital of England.",
    "What is the capital of France?",
] * 4
PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
LABELS = {0: "NEGATIVE", 1: "POSITIVE", 2: "MIXED"}
ENTITIES = {0: "O", 1: "LOC", 2: "PER"}
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "initializer_range": 0.5,
}


def reloaded(made: Any, folder: Path) -> Any:
    """A model or tokenizer as save_pretrained wrote it, read without a network; a model in double precision."""
    made.save_pretrained(folder)
    again = type(made).from_pretrained(folder, local_files_only=True)
    return again.double().eval() if isinstance(again, torch.nn.Module) else again


@cache
def wordpiece() -> Any:
    """As BERT's: lower case, "##" within words, [CLS] and [SEP] around texts."""
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=UNKNOWN))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    special = [PAD, UNKNOWN, CLS, SEP, MASK]
    made.train_from_iterator(SENTENCES, tokenizers.trainers.WordPieceTrainer(vocab_size=80, special_tokens=special))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, special.index(CLS)), (SEP, special.index(SEP))],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token=UNKNOWN,
        pad_token=PAD,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        model_input_names=names,
    )


@cache
def bpe() -> Any:
    """As GPT-2's: bytes, and spaces as part of the word they precede."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES,
        tokenizers.trainers.BpeTrainer(vocab_size=360, special_tokens=["<|end|>"], initial_alphabet=alphabet),
    )
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    names = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", bos_token="<|end|>", model_input_names=names
    )


@cache
def unigram() -> Any:
    """As T5's: words start with a lower one eighth block, texts end with </s>."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    made.train_from_iterator(
        SENTENCES, tokenizers.trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
    )
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    names = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_input_names=names
    )


def bert(head: str, **options: Any) -> Any:
    """transformers' BertFor..., in double precision and evaluation mode."""
    torch.manual_seed(0)
    given = {"vocab_size": len(wordpiece()), "max_position_embeddings": 40, **SIZE, **options}
    return getattr(transformers, head)(transformers.BertConfig(**given)).double().eval()


def gpt2(**options: Any) -> Any:
    """A causal language model."""
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "initializer_range": 0.5}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=len(bpe()), **{**size, **ends, **options})
    return transformers.GPT2LMHeadModel(config).double().eval()


def t5() -> Any:
    """An encoder and a decoder."""
    torch.manual_seed(0)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(vocab_size=len(unigram()), decoder_start_token_id=0, **size)
    return transformers.T5ForConditionalGeneration(config).double().eval()


def vit() -> Any:
    """An image classifier."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SIZE, image_size=16, patch_size=8, id2label={0: "cat", 1: "dog", 2: "bird"})
    return transformers.ViTForImageClassification(config).double().eval()


def clip() -> Any:
    """Pictures and texts."""
    torch.manual_seed(0)
    one = {**SIZE, "num_hidden_layers": 1}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": len(wordpiece()), "max_position_embeddings": 40, **one, **ends},
        vision_config={"image_size": 16, "patch_size": 8, **one},
        projection_dim=8,
    )
    return transformers.CLIPModel(config).double().eval()
