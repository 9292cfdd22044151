"""Which expert runs at which timestep, with which guidance and which LoRA weights: a preset, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splice.models.vace.presets import Expert, Preset

TRAIN_TIMESTEPS = 1000
"""Of every Wan model."""

UNGUIDED = 1.0


@dataclass(frozen=True)
class Step:
    """One step of denoising. timestep: 1000 is noise alone, 0 the picture. guidance: 1 is none at all, and takes one
    call of the transformer instead of two. loras: (name, weight) of those that are active in the expert."""

    timestep: float
    expert: Expert
    guidance: float
    loras: tuple[tuple[str, float], ...] = ()


def plan_steps(preset: Preset, num_inference_steps: int | None, guidance_scale: float | None) -> tuple[Step, ...]:
    """Every step of a phased preset, in order; the overrides are of the request, None where it has none.

    Raises AssertionError where the phases do not divide the steps: the plan refuses that.
    """
    count = num_inference_steps or preset.num_inference_steps
    guidance = preset.guidance_scale if guidance_scale is None else guidance_scale
    assert count % len(preset.phases) == 0, f"{count} steps in {len(preset.phases)} phases"
    assert preset.shift is not None, "phases are laid on a schedule that is known"
    a_phase = count // len(preset.phases)
    return tuple(
        Step(timestep, phase.expert, guidance if phase.is_guided else UNGUIDED, phase.loras)
        for timestep, phase in zip(
            euler_timesteps(count, preset.shift),
            (phase for phase in preset.phases for _ in range(a_phase)),
            strict=True,
        )
    )


def boundary_of(steps: Sequence[Step]) -> float:
    """Between the last step of the first expert and the first of the second: 0..1, a share of the timesteps."""
    last = min((step.timestep for step in steps if step.expert == "transformer"), default=TRAIN_TIMESTEPS)
    first = max((step.timestep for step in steps if step.expert == "transformer_2"), default=0.0)
    return (last + first) / 2 / TRAIN_TIMESTEPS


def euler_timesteps(count: int, shift: float) -> tuple[float, ...]:
    """``count`` timesteps from 1000 down, evenly spaced before they are shifted: s t / (1 + (s - 1) t).

    The shift is that of Esser et al., Scaling Rectified Flow Transformers (2024), equation 23.
    """
    even = [1 - index * (1 - 1 / TRAIN_TIMESTEPS) / max(count - 1, 1) for index in range(count)]
    return tuple(TRAIN_TIMESTEPS * shift * t / (1 + (shift - 1) * t) for t in even)
