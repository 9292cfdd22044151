"""The pieces that joins are made of: each is encoded once, from the original clips, into a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from splice.layout import RunFolder
from splice.media import Watch, encode_frames, read_frames
from splice.models.protocol import TransitionModel
from splice.transition import GeneratedTransition, generate_transition
from splice.types import Segment, Timeline, Transition


def write_segment(timeline: Timeline, segment: Segment, folder: RunFolder, watch: Watch = iter) -> None:
    """Encode one segment of a clip, conformed. watch: sees every frame.

    Raises MediaError: the clip can't be read, or the disk is full.
    """
    frames = read_frames(timeline.clips[segment.clip], timeline.format, segment.frames)
    encode_frames(watch(frames), folder.unit(segment), timeline.format, segment.frame_count)


def write_transition(
    timeline: Timeline, transition: Transition, model: TransitionModel, folder: RunFolder, watch: Watch = iter
) -> Mapping[str, str | float]:
    """Let ``model`` render one seam, and encode it as one unit, or as two where a loop divides it.

    watch: sees every frame. Returns what the model has to say for the report. Raises as ``generate_transition`` does.
    """
    return write_generated(timeline, transition, generate_transition(timeline, transition, model), folder, watch)


def write_generated(
    timeline: Timeline,
    transition: Transition,
    generated: GeneratedTransition,
    folder: RunFolder,
    watch: Watch = iter,
) -> Mapping[str, str | float]:
    """``write_transition`` for a seam that was rendered here or elsewhere. Raises what drawing its frames raises."""
    frames = watch(generated.frames)
    for piece in timeline.pieces_of(transition):
        part = islice(frames, piece.frame_count)
        encode_frames(part, folder.unit(piece), timeline.format, piece.frame_count)
    # Drawn once more, the model must have nothing left to give.
    assert next(frames, None) is None
    return generated.notes
