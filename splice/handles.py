"""A seam on its way: its context frames to a machine that has a GPU and no footage, and the rendered frames back.

Either is one file, lossless and all-intra: **handles** (what the model sees, and what is asked of it) and the
**window** (what it rendered).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from splice.errors import GenerationError, MediaError
from splice.guide import read_guide
from splice.media import ANEW, LosslessVideo, open_lossless, write_lossless
from splice.models.protocol import Frame, Guide, ModelSettings, Rendering, TransitionModel
from splice.models.weights import digest_loras
from splice.transition import GeneratedTransition, lay_rendering, render_guide
from splice.types import Timeline, Transition


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1


class Handles(_Note):
    """What stands beside the frames. left_frames, right_frames, replaced_frames: how many there are, in this order.

    revision: of the model that the run was planned with; loras: digests of its LoRA files, by name, as far as they
    could be read there. pixels_sha256: hexadecimal, of all frames one after another.
    """

    kind: Literal["handles"] = "handles"
    left_frames: int
    right_frames: int
    replaced_frames: int
    gap_frames: int
    rate: Fraction
    pixels_sha256: str
    model: str
    revision: str
    loras: dict[str, str]
    settings: ModelSettings


class Window(_Note):
    """What stands beside the rendered frames. notes: what the model has to say for the report."""

    kind: Literal["window"] = "window"
    frames: int
    notes: dict[str, str | float]


Note = TypeVar("Note", bound=_Note)


def write_handles(timeline: Timeline, transition: Transition, path: Path) -> None:
    """Write all that a model needs for one seam: complete or absent. Raises MediaError as ``read_guide`` does."""
    guide = read_guide(timeline, transition)
    handles = Handles(
        left_frames=len(guide.left),
        right_frames=len(guide.right),
        replaced_frames=0 if guide.replaced is None else len(guide.replaced),
        gap_frames=guide.gap_frames,
        rate=guide.rate,
        pixels_sha256=_digest(_pictures(guide)),
        model=transition.spec.name,
        revision=transition.spec.revision,
        loras=dict(transition.spec.loras),
        settings=transition.settings.model_settings,
    )
    write_lossless(_pictures(guide), path, guide.rate, handles.model_dump_json())


def read_handles(path: Path, *, as_tensor: bool = False) -> tuple[Guide, Handles]:
    """What ``write_handles`` wrote, bit for bit. Raises MediaError where the file is missing, damaged or foreign.

    as_tensor: for a model that works on tensors. The guide's arrays are then views of one torch tensor, wherever
    decord can read the file.
    """
    video = open_lossless(path)
    handles = _parse(video, Handles)
    left, right, replaced = handles.left_frames, handles.right_frames, handles.replaced_frames
    count = left + right + replaced
    if as_tensor and video.suits_tensors:
        pictures = video.read_tensor(count).numpy()
    else:
        pictures = np.stack(list(video.read(count)))
    if _digest(pictures) != handles.pixels_sha256:
        raise MediaError(f"{path}: its frames are not those that were written; {ANEW}")
    return Guide(
        left=pictures[:left],
        right=pictures[left : left + right],
        gap_frames=handles.gap_frames,
        rate=handles.rate,
        replaced=pictures[left + right :] if replaced else None,
    ), handles


def _pictures(guide: Guide) -> Iterable[Frame]:
    return chain(guide.left, guide.right, () if guide.replaced is None else guide.replaced)


def render_handles(path: Path, window: Path, model: TransitionModel) -> Window:
    """Let ``model`` render a seam, frame by frame into the file ``window``: complete or absent.

    Raises GenerationError: the model is another one than was planned with, or breaks its promise; MediaError as
    ``read_handles`` does.
    """
    guide, handles = read_handles(path, as_tensor=model.spec.takes_tensors)
    asked, here = (handles.model, handles.revision), (model.spec.name, model.spec.revision)
    if asked != here:
        raise GenerationError(
            f"{path}: is for {asked[0]} of revision {asked[1]}, here is {here[0]} of revision {here[1]}; install the "
            f"same version of the model on every machine"
        )
    for file, digest in digest_loras(handles.settings.additional_loras).items():
        if handles.loras.get(file, digest) != digest:
            raise GenerationError(
                f"{path}: is for other LoRA weights than {file} holds here; let it be the same file on every machine"
            )
    rendering = render_guide(guide, handles.settings, model)
    frames = guide.window_frames if model.spec.renders_context else guide.gap_frames
    made = Window(frames=frames, notes=dict(rendering.notes))
    write_lossless(rendering.frames, window, guide.rate, made.model_dump_json())
    return made


def lay_window(timeline: Timeline, transition: Transition, window: Path) -> GeneratedTransition:
    """Lay a rendered window between the originals: the frames that ``generate_transition`` would give.

    Raises MediaError where the file is missing, foreign, or for another seam; while its frames are drawn, where it
    is damaged, or a clip can't be read.
    """
    video = open_lossless(window)
    made = _parse(video, Window)
    context = len(transition.left) + len(transition.right) if transition.spec.renders_context else 0
    size = (timeline.format.height, timeline.format.width, 3)
    needed = (context + transition.gap_frame_count, size, np.dtype(_levels(timeline)))
    if (made.frames, video.shape, video.dtype) != needed:
        raise MediaError(
            f"{window}: holds {made.frames} frames of {video.dtype} {video.shape}, seam {transition.join} needs "
            f"{needed[0]} of {needed[2]} {needed[1]}; {ANEW}"
        )
    return lay_rendering(timeline, transition, Rendering(video.read(made.frames), made.notes))


def _levels(timeline: Timeline) -> type[np.generic]:
    return np.uint8 if timeline.format.bit_depth == 8 else np.uint16


def _parse(video: LosslessVideo, kind: type[Note]) -> Note:
    try:
        return kind.model_validate_json(video.note)
    except ValidationError as error:
        name = kind.__name__.lower()
        raise MediaError(f"{video.path}: is no {name} file of this version of the program; {ANEW}") from error


def _digest(pictures: Iterable[Frame]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()
