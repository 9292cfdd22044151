"""A seam at a glance: frames before, generated and after, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from splice.errors import MediaError
from splice.media import atomic_output, read_output, to_rgb
from splice.models.protocol import Frame
from splice.types import FrameRange, Join, Timeline, Transition, TransitionPiece

MOST_BYTES = 74_000
"""Prefect's UI shows it as text, in which it takes a third more: 100 kB."""

ENCODINGS = ((1.0, 88), (1.0, 70), (0.8, 70), (0.8, 50), (0.6, 50), (0.4, 50), (0.25, 50))
"""(scale, JPEG quality), best first."""

COLUMNS = 4
TILE_WIDTH = 320
BAND_COLORS = {"before": (160, 160, 160), "generated": (60, 180, 75), "after": (160, 160, 160)}
"""BGR of the band under each frame: green marks what was generated."""


def write_contact_sheet(timeline: Timeline, join: Join, transition: Transition, video: Path, sheet: Path) -> None:
    """A seam of ``join`` as a JPEG: four frames before, eight of the generated span, four after, from the joined video.

    At the end of a loop the frames after the seam are the video's first ones.
    Raises MediaError where the video can't be read or the sheet not be written.
    """
    start = _start_of_gap(join, transition)
    stop = start + transition.gap_frame_count
    before = [max(0, n) for n in range(start - COLUMNS, start)]
    generated = np.linspace(start, stop - 1, 2 * COLUMNS).round().astype(int).tolist()
    # Beyond the end a loop goes on with its first frames; a right clip of a few frames repeats its last one.
    last = stop + COLUMNS if transition.right.clip == 0 else join.frame_count - 1
    after = [min(n, last) % join.frame_count for n in range(stop, stop + COLUMNS)]
    pictures = _read_pictures(timeline, join, video, (*before, *generated, *after))
    kinds = (
        ("before", before),
        ("generated", generated[:COLUMNS]),
        ("generated", generated[COLUMNS:]),
        ("after", after),
    )
    rows = [np.hstack([_tile(pictures[n], timeline, kind, n) for n in numbers]) for kind, numbers in kinds]
    data = _encode(np.vstack(rows))
    if data is None:
        raise MediaError(f"{sheet}: the contact sheet can't be encoded")
    with atomic_output(sheet) as partial:
        partial.write_bytes(data)


def _encode(picture: Frame) -> bytes | None:
    """As a JPEG of at most MOST_BYTES: the best of ENCODINGS that fits, or the last one."""
    data = None
    height, width = (length // COLUMNS for length in picture.shape[:2])
    for scale, quality in ENCODINGS:
        # Whole pixels for every tile, of which there are as many rows as columns.
        size = (COLUMNS * round(scale * width), COLUMNS * round(scale * height))
        scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        is_encoded, encoded = cv2.imencode(".jpg", scaled, [cv2.IMWRITE_JPEG_QUALITY, quality])
        data = encoded.tobytes() if is_encoded else None
        if data is None or len(data) <= MOST_BYTES:
            return data
    return data


def _start_of_gap(join: Join, transition: Transition) -> int:
    start = 0
    for unit in join.output:
        if isinstance(unit, TransitionPiece) and unit.join == transition.join and unit.role == "transition":
            return start + len(transition.blend_left)
        start += unit.frame_count
    raise MediaError(f"{join.name} shows nothing of transition {transition.join}")


def _read_pictures(timeline: Timeline, join: Join, video: Path, numbers: Sequence[int]) -> dict[int, Frame]:
    """The frames of those numbers; a run that wraps around to the start is read in two passes."""
    first = numbers[0]
    pictures: dict[int, Frame] = {}
    for wanted in ({n for n in numbers if n >= first}, {n for n in numbers if n < first}):
        if not wanted:
            continue
        frames = FrameRange(min(wanted), max(wanted) + 1)
        shown = read_output(video, timeline.format, join.frame_count, frames)
        pictures |= {
            n: _eight_bit(to_rgb(f, timeline.format)) for n, f in enumerate(shown, frames.start) if n in wanted
        }
    return pictures


def _eight_bit(rgb: Frame) -> Frame:
    return rgb if rgb.dtype == np.uint8 else (rgb >> 8).astype(np.uint8)


def _tile(rgb: Frame, timeline: Timeline, kind: str, number: int) -> Frame:
    width = round(timeline.format.width * timeline.format.sample_aspect_ratio)
    size = (TILE_WIDTH, max(1, round(TILE_WIDTH * timeline.format.height / width)))
    picture = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_AREA)
    picture = np.rot90(picture, k=-timeline.format.rotation // 90) if timeline.format.rotation else picture
    band = np.full((22, picture.shape[1], 3), BAND_COLORS[kind], np.uint8)
    cv2.putText(band, f"{kind} {number}", (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([picture, band])
