"""One output, made of finished units, of clips' own packets and of what its predecessor made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from splice.layout import RunFolder
from splice.media import (
    UNIT_REORDER_FRAMES,
    AddSound,
    Part,
    Watch,
    add_sound_stream,
    clip_part,
    copied_sound,
    encode_sound,
    join_parts,
)
from splice.mix import JoinSound, plan_sound, render_join, render_pieces
from splice.types import FrameRange, Join, Segment, Timeline, Unit


def write_join(
    timeline: Timeline, join: Join, folder: RunFolder, predecessor: Path | None, watch: Watch = iter
) -> npt.NDArray[np.int64]:
    """Write a join's ``joined_output.mp4``: complete or absent. Returns the bytes of every frame, in display order.

    predecessor: the file of the join before, where this one keeps frames of it. watch: sees every frame.
    Raises MediaError: a part does not hold what the plan says, or the disk is full.
    """
    return join_parts(
        _parts(timeline, join, folder, predecessor),
        folder.joined_output(join.name),
        timeline.format.rate,
        in_band=timeline.has_passthrough,
        reorder_frames=max(UNIT_REORDER_FRAMES, timeline.reorder_frames),
        add_sound=_sound_of(timeline, join, predecessor),
        is_durable=join is timeline.joins[-1],
        watch=watch,
    )


def _parts(timeline: Timeline, join: Join, folder: RunFolder, predecessor: Path | None) -> list[Part]:
    """The parts whose packets a join copies, in order."""

    def parts_of(units: tuple[Unit, ...]) -> list[Part]:
        return [_part_of(timeline, unit, folder) for unit in units]

    kept = []
    if join.kept is not None:
        assert predecessor is not None, "only the first output has no predecessor"
        kept = [Part(predecessor, join.kept)]
    return parts_of(join.before) + kept + parts_of(join.after)


def _part_of(timeline: Timeline, unit: Unit, folder: RunFolder) -> Part:
    if isinstance(unit, Segment) and unit.is_copied:
        return clip_part(timeline.clips[unit.clip], unit.frames)
    return Part(folder.unit(unit), FrameRange(0, unit.frame_count))


def _sound_of(timeline: Timeline, join: Join, predecessor: Path | None) -> AddSound | None:
    """The last output gets its codec, once; those before it stay lossless, so that the next one can copy them."""
    if timeline.sound is None:
        return None
    kept_file = predecessor if join.kept is not None else None
    if join is timeline.joins[-1]:
        return lambda output: _final_sound(output, timeline, join, kept_file)
    return None if timeline.audio == "drop" else lambda output: _lossless_sound(output, timeline, join, kept_file)


def _final_sound(output: Any, timeline: Timeline, join: Join, predecessor: Path | None) -> Iterator[Any]:
    assert timeline.sound is not None
    stream = add_sound_stream(output, timeline.sound, timeline.sound.codec)
    return encode_sound(stream, render_join(timeline, join, predecessor))


def _lossless_sound(output: Any, timeline: Timeline, join: Join, predecessor: Path | None) -> Iterator[Any]:
    """The predecessor's packets up to the seam, then new ones; a packet ends where the next join will cut."""
    assert timeline.sound is not None
    stream = add_sound_stream(output, timeline.sound, "flac")
    return _copied_then_new(stream, timeline, plan_sound(timeline, join), predecessor)


def _copied_then_new(stream: Any, timeline: Timeline, sound: JoinSound, predecessor: Path | None) -> Iterator[Any]:
    start = sound.kept[1]
    assert sound.cut is not None, "only the last output is not cut, and that is not lossless"
    if predecessor is not None:
        for packet in copied_sound(predecessor, start):
            packet.stream = stream
            yield packet
    new = render_pieces(timeline, sound.after, predecessor)
    for packet in encode_sound(stream, new, boundaries=[sound.cut - start]):
        packet.pts, packet.dts = (packet.pts or 0) + start, (packet.dts or 0) + start
        yield packet
