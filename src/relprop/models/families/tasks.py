"""Tasks: what small networks are asked, and what they read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.models.families.family import Inputs, Task

BATCH, TOKENS, SIDE = 2, 7, 32
# Every network's vocabulary and the tokens that are drawn from it; the smaller ids have meanings of their own.
VOCABULARY, FIRST_WORD = 60, 10


def ids(tokens: int = TOKENS) -> Tensor:
    return torch.randint(FIRST_WORD, VOCABULARY - 5, (BATCH, tokens))


def padded(config: Any) -> Inputs:
    """Two sentences, the second one shorter by two tokens."""
    found, mask = ids(), torch.ones(BATCH, TOKENS, dtype=torch.int64)
    found[1, -2:] = config.pad_token_id
    mask[1, -2:] = 0
    return {"input_ids": found, "attention_mask": mask}


def unpadded(config: Any) -> Inputs:
    return {"input_ids": ids()}


def prefix(config: Any) -> Inputs:
    """Two beginnings of a text, the second one filled up on the left."""
    found, mask = ids(), torch.ones(BATCH, TOKENS, dtype=torch.int64)
    found[1, :2] = config.pad_token_id or 0
    mask[1, :2] = 0
    return {"input_ids": found, "attention_mask": mask}


def translation(config: Any) -> Inputs:
    return {**padded(config), "decoder_input_ids": ids(4)}


def pixels(config: Any) -> Inputs:
    return {"pixel_values": torch.randn(BATCH, 3, SIDE, SIDE)}


def video(config: Any) -> Inputs:
    return {"pixel_values": torch.randn(BATCH, 4, 3, SIDE, SIDE)}


def sound(config: Any) -> Inputs:
    return {"input_values": torch.randn(BATCH, 400)}


def spectrogram(config: Any) -> Inputs:
    return {"input_values": torch.randn(BATCH, config.max_length, config.num_mel_bins)}


def dictation(config: Any) -> Inputs:
    return {
        "input_features": torch.randn(BATCH, config.num_mel_bins, 2 * config.max_source_positions),
        "decoder_input_ids": ids(4),
    }


def caption(config: Any) -> Inputs:
    found = padded(config.text_config)
    found["input_ids"][:, 4] = VOCABULARY - 1  # the end of the text, from where CLIP reads its meaning
    return {**found, **pixels(config)}


def best_token(output: Any) -> Tensor:
    """The highest score at the last position."""
    last: Tensor = output.logits[:, -1]
    return last.gather(1, last.argmax(1, keepdim=True))[:, 0]


def own_caption(output: Any) -> Tensor:
    """How well each picture fits its own text."""
    fit: Tensor = output.logits_per_image.diagonal()
    return fit


def first_box_class(output: Any) -> Tensor:
    scores: Tensor = output.logits[:, 0, 0]
    return scores


def middle_pixel(output: Any) -> Tensor:
    scores: Tensor = output.logits[:, 1].mean((1, 2))
    return scores


def pooled(output: Any) -> Tensor:
    """One feature, where there is no head."""
    features: Tensor = output.pooler_output[:, 0]
    return features


SEQUENCE = Task("SequenceClassification", padded)
SEQUENCE_UNPADDED = Task("SequenceClassification", unpadded)
NEXT = Task("CausalLM", prefix, best_token)
NEXT_UNPADDED = Task("CausalLM", unpadded, best_token)
TRANSLATE = Task("Seq2SeqLM", translation, best_token)
IMAGE = Task("ImageClassification", pixels)
DEIT = Task("DeiTForImageClassification", pixels)
LEVIT = Task("LevitForImageClassification", pixels)
POOLED = Task("", pixels, pooled)
SEGMENT = Task("SemanticSegmentation", pixels, middle_pixel)
DETECT = Task("ObjectDetection", pixels, first_box_class)
VIDEO = Task("VideoClassification", video)
SOUND = Task("AudioClassification", sound)
SPECTROGRAM = Task("AudioClassification", spectrogram)
DICTATION = Task("SpeechSeq2Seq", dictation, best_token)
