"""Families that read text: encoders that classify, decoders that go on, encoder-decoders that translate."""

from __future__ import annotations

from typing import Any

from relprop.models.families.family import Family
from relprop.models.families.tasks import (
    NEXT,
    NEXT_UNPADDED,
    SEQUENCE,
    SEQUENCE_UNPADDED,
    TRANSLATE,
    VOCABULARY,
)

_IDS = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
_ENCODER = {
    **_IDS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "num_labels": 3,
}
_DECODER = {**_ENCODER, "head_dim": 8, "tie_word_embeddings": False}
_GROUPED = {**_DECODER, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32}
_EXPERTS = {**_GROUPED, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_GPT2 = {**_IDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
_PAIR = {
    **_IDS,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_T5 = {**_IDS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 2}


def _encoder(name: str, title: str, **settings: Any) -> Family:
    return Family(name, title, SEQUENCE, {**_ENCODER, **settings})


def _decoder(name: str, title: str, **settings: Any) -> Family:
    return Family(name, title, NEXT, {**_DECODER, **settings})


def _grouped(name: str, title: str, **settings: Any) -> Family:
    return Family(name, title, NEXT, {**_GROUPED, **settings})


def _experts(name: str, title: str, **settings: Any) -> Family:
    return Family(name, title, NEXT, {**_EXPERTS, **settings}, experts=True)


def _pair(name: str, title: str, **settings: Any) -> Family:
    return Family(name, title, TRANSLATE, {**_PAIR, **settings})


def _t5(name: str, title: str, **settings: Any) -> Family:
    return Family(name, title, TRANSLATE, {**_T5, **settings})


ENCODERS = (
    _encoder("bert", "BERT"),
    Family("distilbert", "DistilBERT", SEQUENCE, {**_IDS, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}),
    _encoder("roberta", "RoBERTa"),
    _encoder("xlm-roberta", "XLM-RoBERTa"),
    _encoder("camembert", "CamemBERT"),
    _encoder("albert", "ALBERT", embedding_size=8),
    _encoder("deberta", "DeBERTa", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    _encoder(
        "deberta-v2",
        "DeBERTa-v2",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=4,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
    ),
    _encoder("electra", "ELECTRA", embedding_size=8),
    _encoder("mpnet", "MPNet"),
    _encoder("modernbert", "ModernBERT", local_attention=4, global_attn_every_n_layers=2),
    _encoder("roformer", "RoFormer", embedding_size=16),
    _encoder("squeezebert", "SqueezeBERT", embedding_size=16),
    _encoder("convbert", "ConvBERT", embedding_size=16, head_ratio=1, conv_kernel_size=3),
    _encoder("mobilebert", "MobileBERT", embedding_size=8, intra_bottleneck_size=16, true_hidden_size=16),
    _encoder("esm", "ESM", position_embedding_type="rotary", mask_token_id=4),
    _encoder("longformer", "Longformer", attention_window=4),
    _encoder("big_bird", "BigBird", attention_type="original_full"),
    _encoder("nystromformer", "Nystromformer", segment_means_seq_len=7, num_landmarks=7),
    Family("fnet", "FNet", SEQUENCE_UNPADDED, _ENCODER),
    Family(
        "funnel", "Funnel", SEQUENCE, {**_IDS, "block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8,
                                       "d_inner": 24, "num_labels": 3}
    ),
    Family("xlnet", "XLNet", SEQUENCE, {**_IDS, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24}),
    Family(
        "xlm", "XLM", SEQUENCE, {"n_words": VOCABULARY, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "pad_index": 1}
    ),
)  # fmt: skip

DECODERS = (
    Family("gpt2", "GPT-2", NEXT, _GPT2),
    Family("gpt_neo", "GPT-Neo", NEXT, {**_IDS, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "window_size": 4,
                                        "attention_types": [[["global", "local"], 1]], "intermediate_size": 24}),
    Family("gptj", "GPT-J", NEXT, {**_GPT2, "rotary_dim": 4, "n_inner": 24}),
    Family("codegen", "CodeGen", NEXT, {**_GPT2, "rotary_dim": 4, "n_head": 4}),
    _decoder("gpt_neox", "GPT-NeoX"),
    _decoder("opt", "OPT", ffn_dim=24, word_embed_proj_dim=16),
    Family("bloom", "BLOOM", NEXT, {**_IDS, "hidden_size": 16, "n_layer": 2, "n_head": 2}),
    Family("falcon", "Falcon", NEXT, {**_ENCODER, "alibi": False}),
    Family("mpt", "MPT", NEXT, {**_IDS, "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32}),
    _grouped("llama", "LLaMA", attention_bias=True, mlp_bias=True),
    _grouped("mistral", "Mistral", sliding_window=4),
    _grouped("qwen2", "Qwen2"),
    _grouped("qwen3", "Qwen3"),
    _grouped("gemma", "Gemma"),
    _grouped("gemma2", "Gemma 2", sliding_window=4, query_pre_attn_scalar=8),
    _grouped("gemma3_text", "Gemma 3", sliding_window=4, query_pre_attn_scalar=8),
    _decoder("phi", "Phi"),
    _grouped("phi3", "Phi-3", original_max_position_embeddings=32),
    _grouped("stablelm", "StableLM"),
    _grouped("starcoder2", "StarCoder2"),
    _grouped("nemotron", "Nemotron"),
    _grouped("cohere", "Cohere"),
    _grouped("cohere2", "Cohere 2", sliding_window=4),
    _grouped("olmo", "OLMo"),
    _grouped("olmo2", "OLMo 2"),
    _grouped("granite", "Granite", attention_multiplier=0.3, residual_multiplier=0.7),
    _grouped("glm", "GLM"),
    _grouped("smollm3", "SmolLM3"),
    _experts("mixtral", "Mixtral"),
    _experts("qwen2_moe", "Qwen2-MoE", shared_expert_intermediate_size=16),
    _experts("qwen3_moe", "Qwen3-MoE"),
    _experts("olmoe", "OLMoE"),
    _experts("granitemoe", "Granite-MoE"),
    _experts("gpt_oss", "GPT-OSS", sliding_window=4),
    _experts("deepseek_v3", "DeepSeek-V3", n_routed_experts=4, n_group=2, topk_group=1, kv_lora_rank=8, q_lora_rank=8,
             qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, first_k_dense_replace=1, num_key_value_heads=4,
             head_dim=4),
    Family("dbrx", "DBRX", NEXT, {**_IDS, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32,
                                  "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
                                  "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2}}),
    Family("mamba", "Mamba", NEXT_UNPADDED, {**_IDS, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
    Family("mamba2", "Mamba-2", NEXT_UNPADDED, {**_IDS, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4,
                                                "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 4}),
    Family("rwkv", "RWKV", NEXT_UNPADDED, {**_IDS, "hidden_size": 16, "num_hidden_layers": 2, "context_length": 16,
                                           "attention_hidden_size": 16, "intermediate_size": 24}),
)  # fmt: skip

PAIRS = (
    _t5("t5", "T5"),
    _t5("mt5", "mT5 (gated)", feed_forward_proj="gated-gelu"),
    _t5("umt5", "UMT5", feed_forward_proj="gated-gelu"),
    _t5("longt5", "LongT5", local_radius=4),
    _t5("switch_transformers", "Switch Transformer", num_experts=4, num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1, expert_capacity=14),
    _pair("bart", "BART"),
    _pair("mbart", "mBART"),
    _pair("pegasus", "Pegasus"),
    _pair("marian", "Marian"),
    _pair("blenderbot", "Blenderbot"),
    _pair("m2m_100", "M2M-100"),
    _pair("led", "LED", attention_window=4, max_encoder_position_embeddings=32, max_decoder_position_embeddings=32),
)  # fmt: skip
