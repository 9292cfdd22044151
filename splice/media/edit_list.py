"""Edit lists of mp4 and mov files (ISO/IEC 14496-12:2022, 8.6.6), which FFmpeg applies but does not show."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

NORMAL_SPEED = 1 << 16

Span = tuple[int, int]
"""Offsets of a box's content: start, stop."""


def edit_list_obstacle(path: str, track_id: int) -> str | None:
    """Why a track's edit list keeps its packets from being shown one for one; None where it does not.

    The ordinary list, one edit at normal speed, only skips the delay that B-frames make; whether it skips
    frames as well is told by their number. Raises ValueError where the boxes are damaged.
    """
    edits = _read_edits(path, track_id)
    if any(media_time < 0 for media_time, _ in edits):
        return "an edit list that delays it"
    if any(speed != NORMAL_SPEED for _, speed in edits):
        return "an edit list that changes its speed"
    return "an edit list of several pieces" if len(edits) > 1 else None


def _read_edits(path: str, track_id: int) -> list[tuple[int, int]]:
    """(media time in ticks, -1 for nothing; speed in 1/65536) of each edit."""
    moov = _read_movie_box(path)
    for name, span in _boxes(moov, (0, len(moov))):
        if name == b"trak" and _track_id(moov, span) == track_id:
            edit_box = _find(moov, span, b"edts")
            entries = edit_box and _find(moov, edit_box, b"elst")
            return _entries(moov, entries) if entries else []
    return []


def _read_movie_box(path: str) -> bytes:
    with Path(path).open("rb") as file:
        while len(header := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", header)
            content = size - 8
            if size == 1:
                content = struct.unpack(">Q", file.read(8))[0] - 16
            if name == b"moov":
                return file.read(content)
            if size == 0 or content < 0:
                break
            file.seek(content, 1)
    return b""


def _boxes(data: bytes, span: Span) -> Iterator[tuple[bytes, Span]]:
    position, stop = span
    while position + 8 <= stop:
        size, name = struct.unpack_from(">I4s", data, position)
        if size < 8:
            raise ValueError(f"a box of {size} bytes")
        yield name, (position + 8, min(position + size, stop))
        position += size


def _find(data: bytes, span: Span, wanted: bytes) -> Span | None:
    return next((content for name, content in _boxes(data, span) if name == wanted), None)


def _track_id(data: bytes, trak: Span) -> int | None:
    header = _find(data, trak, b"tkhd")
    if header is None:
        return None
    is_long = data[header[0]] == 1
    found: int = struct.unpack_from(">I", data, header[0] + (20 if is_long else 12))[0]
    return found


def _entries(data: bytes, span: Span) -> list[tuple[int, int]]:
    is_long = data[span[0]] == 1
    layout = ">Qqi" if is_long else ">Iii"
    (count,) = struct.unpack_from(">I", data, span[0] + 4)
    starts = range(span[0] + 8, span[1], struct.calcsize(layout))[:count]
    return [struct.unpack_from(layout, data, start)[1:] for start in starts]
