"""What is known of each Wan VACE model, as data. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Expert = Literal["transformer", "transformer_2"]
"""As the pipeline names them: for high noise, the only one of Wan 2.1, and for low noise."""

NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
"""Wan's own, in English (documentation of diffusers, Wan pipelines)."""

TRANSITION_NEGATIVE_PROMPT = f"fading, breaking, shot cuts, {NEGATIVE_PROMPT}"


@dataclass(frozen=True)
class Lora:
    """Low-rank weights for one expert: a safetensors file of a repository at a commit, and its name in the pipeline."""

    name: str
    repository: str
    file: str
    expert: Expert


@dataclass(frozen=True)
class Phase:
    """An equal share of the steps. is_guided: by classifier-free guidance; a later phase may only switch it off.

    loras: (name, weight) of those that are active.
    """

    expert: Expert
    is_guided: bool
    loras: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Preset:
    """A model and how it is run.

    repository: on the hub, at a commit, or the folder of a saved pipeline. shift: of the flow-matching schedule,
    applied once; None: as the scheduler was saved. scheduler: "euler" where the steps are few and fixed; "saved": as
    it was saved. expert_count: of transformers, of which one is at work at a time. phases: empty where every step is
    alike.
    native_pixels: of the pictures that it was trained on.
    weights_gb, text_encoder_gb: of its files in bfloat16.
    """

    name: str
    repository: str
    shift: float | None = None
    scheduler: Literal["euler", "saved"] = "saved"
    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    negative_prompt: str = NEGATIVE_PROMPT
    expert_count: int = 1
    phases: tuple[Phase, ...] = ()
    loras: tuple[Lora, ...] = ()
    native_pixels: int = 832 * 480
    weights_gb: float = 0.0
    text_encoder_gb: float = 11.4
    needs_gpu: bool = True
    licence: str = "Apache-2.0"
    model_fps: int = 16
    max_window: int = 81

    def __post_init__(self) -> None:
        """Raises ValueError where guidance is on again after it was off: WanVACEPipeline can't do that in a call."""
        guided = [phase.is_guided for phase in self.phases]
        if guided != sorted(guided, reverse=True):
            raise ValueError(f"preset {self.name}: a later phase may only switch guidance off, got {guided}")


LIGHTNING_LORAS = "lightx2v/Wan2.2-Lightning@18bccf8884ec0a078eed79785eb4ef13ea16ce1e"

HIGH_NOISE = Lora(
    "lightning_high",
    LIGHTNING_LORAS,
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1/high_noise_model.safetensors",
    "transformer",
)
LOW_NOISE = Lora(
    "lightning_low",
    LIGHTNING_LORAS,
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1/low_noise_model.safetensors",
    "transformer_2",
)

LIGHTNING = Preset(
    name="lightning_baseline_2_2_2",
    repository="linoyts/Wan2.2-VACE-Fun-14B-diffusers@1abfb95801b7bd8f952083ebf80b93448ddb0ce4",
    shift=5.0,
    scheduler="euler",
    num_inference_steps=6,
    guidance_scale=3.0,
    negative_prompt=TRANSITION_NEGATIVE_PROMPT,
    expert_count=2,
    phases=(
        Phase("transformer", True, (("lightning_high", 0.75),)),
        Phase("transformer", False, (("lightning_high", 1.0),)),
        Phase("transformer_2", False, (("lightning_low", 1.0),)),
    ),
    loras=(HIGH_NOISE, LOW_NOISE),
    weights_gb=69.4,
)

PRESETS = {
    preset.name: preset
    for preset in (
        LIGHTNING,
        Preset(
            "vace_14b",
            "Wan-AI/Wan2.1-VACE-14B-diffusers@db79b90c60bbb45ceec9e41b9d5a4df934538ac4",
            shift=5.0,
            native_pixels=1280 * 720,
            weights_gb=34.7,
        ),
        Preset(
            "vace_1_3b",
            "Wan-AI/Wan2.1-VACE-1.3B-diffusers@ec4d2cb062b548996b179d493fdd05340de702a1",
            shift=3.0,
            weights_gb=4.3,
        ),
    )
}

ALIASES = {"wan_2_2_vace_lightning_baseline_2_2_2": LIGHTNING.name}


def find_preset(name: str) -> Preset | None:
    """The preset of that name or alias."""
    return PRESETS.get(ALIASES.get(name, name))
