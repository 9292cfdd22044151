"""One seam: guide -> model -> checked, blended frames of the timeline."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING

from splice.errors import GenerationError
from splice.guide import read_guide
from splice.media import mix_frames, read_frames, to_yuv
from splice.models.protocol import Frame, Guide, ModelSettings, Rendering, TransitionModel
from splice.types import Timeline, Transition

if TYPE_CHECKING:
    from splice.media import VideoFrame


@dataclass(frozen=True)
class GeneratedTransition:
    """frames: the transition's ``frame_count`` frames in the timeline's format, one by one. notes: of the model."""

    frames: Iterator[VideoFrame]
    notes: Mapping[str, str | float]


def generate_transition(timeline: Timeline, transition: Transition, model: TransitionModel) -> GeneratedTransition:
    """Let ``model`` render a seam and lay its frames between the originals.

    Raises GenerationError where the model breaks its promise of count, size or type; MediaError where a
    clip can't be read.
    """
    guide = read_guide(timeline, transition)
    return lay_rendering(timeline, transition, render_guide(guide, transition.settings.model_settings, model))


def render_guide(guide: Guide, settings: ModelSettings, model: TransitionModel) -> Rendering:
    """Let ``model`` render a guide. While they are drawn, its frames are checked: GenerationError as above.

    GenerationError, too, where it fails as torch does and CUDA: with a RuntimeError, out of memory among them.
    """
    with _failures_of(model):
        rendering = model.render(guide, settings)
    return Rendering(_checked(rendering.frames, guide, model), rendering.notes)


@contextmanager
def _failures_of(model: TransitionModel) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise GenerationError(f"{model.spec.name} failed: {error}") from error


def lay_rendering(timeline: Timeline, transition: Transition, rendering: Rendering) -> GeneratedTransition:
    """Lay what a model rendered, here or elsewhere, between the originals. Raises MediaError as above."""
    # Of the rendered context only what is blended is of use: the originals are better.
    skipped = len(transition.left) - len(transition.blend_left) if transition.spec.renders_context else 0
    return GeneratedTransition(_blended(timeline, transition, islice(rendering.frames, skipped, None)), rendering.notes)


def _checked(frames: Iterator[Frame], guide: Guide, model: TransitionModel) -> Iterator[Frame]:
    """The same frames, each of the guide's size and type, exactly as many as the model promised."""
    needed = guide.window_frames if model.spec.renders_context else guide.gap_frames
    wanted = (guide.left.shape[1:], guide.left.dtype)
    count = 0
    with _failures_of(model):
        for frame in frames:
            if (frame.shape, frame.dtype) != wanted:
                raise GenerationError(
                    f"{model.spec.name} rendered frame {count} as {frame.dtype} {frame.shape}, "
                    f"needed is {wanted[1]} {wanted[0]}"
                )
            count += 1
            if count <= needed:
                yield frame
    if count != needed:
        raise GenerationError(f"{model.spec.name} rendered {count} frames, needed are {needed}")


def _blended(timeline: Timeline, transition: Transition, rendered: Iterator[Frame]) -> Iterator[VideoFrame]:
    """Mix the edges with their originals: alpha (j + 1) / (b + 1) towards the rendering, mirrored on the right.

    Neither end reaches 100%, so that no frame is held twice.
    """
    left, right = transition.blend_left, transition.blend_right
    yuv = (to_yuv(frame, timeline.format) for frame in rendered)
    originals = read_frames(timeline.clips[transition.left.clip], timeline.format, left)
    for j, (original, generated) in enumerate(zip(originals, yuv, strict=False)):
        yield mix_frames(original, generated, Fraction(j + 1, len(left) + 1))
    yield from islice(yuv, transition.gap_frame_count)
    originals = read_frames(timeline.clips[transition.right.clip], timeline.format, right)
    for j, (original, generated) in enumerate(zip(originals, yuv, strict=False)):
        yield mix_frames(original, generated, Fraction(len(right) - j, len(right) + 1))
    # Drawn to its end, so that a model that gives too many or too few is found out.
    deque(rendered, maxlen=0)
