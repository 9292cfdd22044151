"""What a transition model is: one small protocol, common to the CPU models and to the diffusion ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]
"""One RGB picture, H x W x 3, full range: uint8 for 8-bit timelines, uint16 (0..65535) for deeper ones."""


Pictures = NDArray[np.float32]
"""Shape (N, H, W, 3), or of one picture (H, W, 3); RGB in 0..1."""


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
    overrides: which of the settings that have a default (see ModelSettings) it reads; a request for another one
        is refused.
    step_multiple: num_inference_steps must be a multiple of it.
    reads_seed: another seed makes other frames, so that it is worth trying again.
    takes_tensors: it works on torch tensors: its handles are read as such where they can be.
    loras: (file, digest) of those additional_loras that the machine which planned the run can read.
    """

    name: str
    revision: str
    renders_context: bool
    window: WindowRule | None = None
    max_context: int | None = None
    overrides: frozenset[str] = frozenset()
    step_multiple: int = 1
    reads_seed: bool = True
    takes_tensors: bool = False
    loras: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Guide:
    """What a model sees at one seam.

    left:  context frames before the gap in display order, shape (L, H, W, 3), L >= 1; the last one touches the seam.
    right: context frames after the gap, shape (R, H, W, 3), R >= 1; the first one touches the seam.
    gap_frames: how many frames are wanted between them, >= 1.
    rate: frames per second of the timeline.
    replaced: shape (gap_frames, H, W, 3), the source frames in whose place the gap stands; only where the
        settings have a ``vid2vid_strength``.
    """

    left: Frame
    right: Frame
    gap_frames: int
    rate: Fraction
    replaced: Frame | None = None

    @property
    def window_frames(self) -> int:
        return len(self.left) + self.gap_frames + len(self.right)


@dataclass(frozen=True)
class ModelSettings:
    """What a request may ask of a model. CPU models read none of it; it is part of every cache key.

    additional_loras: (file, weight). generation_resolution: (width, height) in pixels that the model works at.
    time_stride: it makes every that many-th frame of the window, and what is between them is interpolated.
    vid2vid_strength: 0..1, how much of the frames being replaced is made anew; None: all.
    prompt_model: the vision-language model that writes the prompt from what is seen at the seam; None: none does.
    """

    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    additional_loras: tuple[tuple[str, float], ...] = ()
    generation_resolution: tuple[int, int] | None = None
    time_stride: int = 1
    vid2vid_strength: float | None = None
    prompt_model: str | None = None


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
    """Renders the frames of a seam. Deterministic: same guide and settings, same frames.

    Where it fails it raises GenerationError, or a RuntimeError as torch does: at a later try (``quality_retries``) the
    best one so far is kept then. Whatever else it raises fails the seam.
    """

    @property
    def spec(self) -> ModelSpec: ...

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering: ...
