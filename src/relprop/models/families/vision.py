"""Families that see and hear: pictures, videos, sounds, and pictures with text."""

from __future__ import annotations

from typing import Any

from relprop.models.families.family import Family, Task
from relprop.models.families.tasks import (
    DEIT,
    DETECT,
    DICTATION,
    IMAGE,
    LEVIT,
    POOLED,
    SEGMENT,
    SIDE,
    SOUND,
    SPECTROGRAM,
    VIDEO,
    VOCABULARY,
    caption,
    own_caption,
)

_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 8,
    "num_labels": 3,
}
_STAGES = {"image_size": SIDE, "num_labels": 3, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2,
           "patch_size": 4, "embed_dim": 8}  # fmt: skip
_TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 16, "eos_token_id": VOCABULARY - 1, "pad_token_id": 1,
    "bos_token_id": 0,
}  # fmt: skip
_SPEECH = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "num_labels": 3,
    "classifier_proj_size": 8, "do_stable_layer_norm": True, "feat_extract_norm": "layer",
}  # fmt: skip


def _vit(name: str, title: str, task: Task = IMAGE, **settings: Any) -> Family:
    return Family(name, title, task, {**_VIT, **settings})


def _image(name: str, title: str, task: Task = IMAGE, **settings: Any) -> Family:
    return Family(name, title, task, {"image_size": SIDE, "num_labels": 3, **settings})


PICTURES = (
    _vit("vit", "ViT"),
    _vit("deit", "DeiT", DEIT),
    _vit("beit", "BEiT", use_relative_position_bias=True, use_absolute_position_embeddings=True,
         layer_scale_init_value=0.5),
    _vit("dinov2", "DINOv2"),
    _vit("dinov2_with_registers", "DINOv2 with registers"),
    _vit("dinov3_vit", "DINOv3", POOLED),
    _vit("ijepa", "I-JEPA"),
    Family("swin", "Swin", IMAGE, _STAGES),
    Family("swinv2", "Swin V2", IMAGE, _STAGES),
    _image("segformer", "SegFormer", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
           patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16),
    _image("pvt", "PVT", num_encoder_blocks=2, depths=[1, 1], sequence_reduction_ratios=[2, 1], hidden_sizes=[8, 16],
           patch_sizes=[4, 2], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2]),
    _image("pvt_v2", "PVT v2", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
           patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2]),
    _image("cvt", "CvT", depth=[1, 2], embed_dim=[8, 16], num_heads=[1, 2], patch_sizes=[7, 3],
           patch_stride=[4, 2], patch_padding=[2, 1], mlp_ratio=[2.0, 2.0], attention_drop_rate=[0.0, 0.0],
           drop_rate=[0.0, 0.0], drop_path_rate=[0.0, 0.0], qkv_bias=[True, True], cls_token=[False, True],
           qkv_projection_method=["dw_bn", "dw_bn"], kernel_qkv=[3, 3], padding_kv=[1, 1], stride_kv=[2, 2],
           padding_q=[1, 1], stride_q=[1, 1]),
    _image("levit", "LeViT", LEVIT, hidden_sizes=[16, 24, 32], num_attention_heads=[2, 2, 2], depths=[1, 1, 1],
           key_dim=[8, 8, 8], patch_size=16, attention_ratio=[2, 2, 2], mlp_ratio=[2, 2, 2]),
    _image("mobilevit", "MobileViT", hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 8, 8, 16, 16, 24],
           num_attention_heads=2),
    _image("mobilevitv2", "MobileViT V2", width_multiplier=0.25, expand_ratio=1.0, ffn_multiplier=1, output_stride=8),
    _image("poolformer", "PoolFormer", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    _image("focalnet", "FocalNet", embed_dim=8, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3],
           use_layerscale=True),
    _image("hiera", "Hiera", embed_dim=8, image_size=[32, 32], patch_size=[7, 7], patch_stride=[4, 4],
           depths=[1, 1], num_heads=[1, 2], masked_unit_size=[2, 2], query_stride=[2, 2],
           masked_unit_attention=[True, False], num_query_pool=1),
    _image("convnext", "ConvNeXt", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_scale_init_value=0.5),
    _image("convnextv2", "ConvNeXt V2", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    _image("resnet", "ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
    _image("bit", "BiT", embedding_size=8, hidden_sizes=[32, 64], depths=[1, 1], num_groups=4),
    _image("regnet", "RegNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    _image("mobilenet_v1", "MobileNet V1", depth_multiplier=0.25),
    _image("mobilenet_v2", "MobileNet V2", depth_multiplier=0.25),
    _image("efficientnet", "EfficientNet", width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    Family("videomae", "VideoMAE", VIDEO, {**_VIT, "num_frames": 4}),
    Family("timesformer", "TimeSformer", VIDEO, {**_VIT, "num_frames": 4}),
    Family("vivit", "ViViT", VIDEO, {**_VIT, "num_frames": 4, "tubelet_size": [2, 8, 8]}),
    _vit("yolos", "YOLOS", DETECT, image_size=[SIDE, SIDE], num_detection_tokens=3),
    Family("upernet", "UPerNet", SEGMENT,
           {"hidden_size": 16, "num_labels": 3, "use_auxiliary_head": False,
            "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
                                "out_features": ["stage1", "stage2"]}}),
)  # fmt: skip

SOUNDS = (
    Family("wav2vec2", "Wav2Vec2", SOUND, _SPEECH),
    Family("hubert", "HuBERT", SOUND, _SPEECH),
    Family("audio-spectrogram-transformer", "AST", SPECTROGRAM,
           {**_VIT, "max_length": 32, "num_mel_bins": 16, "frequency_stride": 4, "time_stride": 4}),
    Family("whisper", "Whisper", DICTATION,
           {"vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
            "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 12, "pad_token_id": 1,
            "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}),
)  # fmt: skip

BOTH = (
    Family("clip", "CLIP", Task("CLIPModel", caption, own_caption),
           {"text_config": _TEXT, "vision_config": _VIT, "projection_dim": 8}),
    Family("siglip", "SigLIP", Task("SiglipModel", caption, own_caption),
           {"text_config": _TEXT, "vision_config": _VIT}),
    Family("blip", "BLIP (text and image features)", Task("BlipModel", caption, own_caption),
           {"text_config": _TEXT, "vision_config": _VIT, "projection_dim": 8}),
    Family("chinese_clip", "Chinese-CLIP", Task("ChineseCLIPModel", caption, own_caption),
           {"text_config": _TEXT, "vision_config": _VIT, "projection_dim": 8}),
)  # fmt: skip
