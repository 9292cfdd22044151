"""What a transition model is: one small protocol, common to the CPU models and to the diffusion ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

from numpy.typing import NDArray

Frame = NDArray[Any]
"""One RGB picture, H x W x 3, full range: uint8 for 8-bit timelines, uint16 (0..65535) for deeper ones."""


@dataclass(frozen=True)
class WindowRule:
    """The window lengths that a model accepts: ``multiple * n + 1`` frames, at most ``max_frames``."""

    multiple: int
    max_frames: int


@dataclass(frozen=True)
class ModelSpec:
    """What the planner and the cache keys need to know of a model, without loading it.

    revision: changes whenever the same guide and settings would render other frames.
    renders_context: True when the model renders the whole window, context included; False when it
        renders the gap alone, so that there is nothing to blend.
    window: None when any window length will do.
    max_context: how many frames of each side it makes use of, at most; None: all that it is given.
    overrides: which of the preset overrides it reads (num_inference_steps, guidance_scale,
        additional_loras); a request for another one is refused.
    """

    name: str
    revision: str
    renders_context: bool
    window: WindowRule | None = None
    max_context: int | None = None
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Guide:
    """What a model sees at one seam.

    left:  context frames before the gap in display order, shape (L, H, W, 3), L >= 1; the last one touches the seam.
    right: context frames after the gap, shape (R, H, W, 3), R >= 1; the first one touches the seam.
    gap_frames: how many frames are wanted between them, >= 1.
    rate: frames per second of the timeline.
    """

    left: Frame
    right: Frame
    gap_frames: int
    rate: Fraction

    @property
    def window_frames(self) -> int:
        return len(self.left) + self.gap_frames + len(self.right)


@dataclass(frozen=True)
class ModelSettings:
    """What a request may ask of a model. CPU models read none of it; it is part of every cache key."""

    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    additional_loras: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Rendering:
    """A model's answer: the frames, yielded one by one in display order, and what to say of them in the report.

    frames: the whole window where the spec says ``renders_context``, else the gap alone; dtype and
        size of the guide's.
    notes: facts for the report, for example ``{"relatedness": 0.83, "method": "morph"}``.
    """

    frames: Iterator[Frame]
    notes: Mapping[str, str | float] = field(default_factory=dict)


class TransitionModel(Protocol):
    """Renders the frames of a seam. Deterministic: same guide and settings, same frames."""

    @property
    def spec(self) -> ModelSpec: ...

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering: ...
