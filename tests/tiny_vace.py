"""A Wan VACE pipeline of random weights and a few hundred kB, saved as a user's would be."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from safetensors.torch import save_file
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

WIDTH = 32
"""Of the text's embeddings."""


def save_pipeline(folder: Path, experts: int = 1) -> Path:
    """A saved WanVACEPipeline; experts: 1 as Wan 2.1 has, 2 as Wan 2.2."""
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    text = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=4,
        relative_attention_num_buckets=8,
    )
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    parts: dict[str, Any] = {"transformer": make_transformer()}
    if experts == 2:
        parts |= {"transformer_2": make_transformer(), "boundary_ratio": 0.875}
        scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    else:
        scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipeline = WanVACEPipeline(
        tokenizer=tokenizer, text_encoder=UMT5EncoderModel(text), vae=vae, scheduler=scheduler, **parts
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def make_tokenizer() -> Any:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_letters, *string.digits, *string.punctuation]
    return T5Tokenizer(vocab=[(piece, -float(number)) for number, piece in enumerate(pieces)], extra_ids=0)


def make_transformer() -> Any:
    return WanVACETransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=256,
        ffn_dim=32,
        num_layers=3,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
        vace_layers=[0, 2],
        vace_in_channels=96,
    )


def save_lora(path: Path, scale: float = 1.0, width: int = 24) -> Path:
    """Low-rank weights for every layer's query projection, in the format of diffusers."""
    torch.manual_seed(2)
    weights = {}
    for layer in range(3):
        name = f"transformer.blocks.{layer}.attn1.to_q"
        weights[f"{name}.lora_A.weight"] = torch.randn(4, width) * scale
        weights[f"{name}.lora_B.weight"] = torch.randn(width, 4) * scale
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path
