"""A seam at a glance: frames before, generated and after, as one picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from splice.errors import MediaError
from splice.media import atomic_output
from splice.models.protocol import Frame
from splice.seam_view import SeamView

MOST_BYTES = 74_000
"""Prefect's UI shows it as text, in which it takes a third more: 100 kB."""

ENCODINGS = ((1.0, 88), (1.0, 70), (0.8, 70), (0.8, 50), (0.6, 50), (0.6, 35), (0.5, 40), (0.4, 50), (0.25, 50))
"""(scale, JPEG quality), best first."""

COLUMNS = 4
TILE_WIDTH = 320
BAND_COLORS = {"before": (160, 160, 160), "generated": (60, 180, 75), "after": (160, 160, 160)}
"""BGR of the band under each frame: green marks what was generated."""


def write_contact_sheet(view: SeamView, sheet: Path) -> None:
    """A seam as a JPEG: four frames before, eight of those that were generated, four after.

    Raises MediaError where the sheet can't be written.
    """
    last = len(view.numbers) - 1
    # Where there are fewer, the outermost is shown again.
    before = [max(0, n) for n in range(view.gap.start - COLUMNS, view.gap.start)]
    after = [min(n, last) for n in range(view.gap.stop, view.gap.stop + COLUMNS)]
    generated = np.linspace(view.gap.start, view.gap.stop - 1, 2 * COLUMNS).round().astype(int).tolist()
    kinds = (
        ("before", before),
        ("generated", generated[:COLUMNS]),
        ("generated", generated[COLUMNS:]),
        ("after", after),
    )
    rows = [np.hstack([_tile(view, kind, position) for position in positions]) for kind, positions in kinds]
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
        is_encoded, encoded = cv2.imencode(
            ".jpg", scaled, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        )
        data = encoded.tobytes() if is_encoded else None
        if data is None or len(data) <= MOST_BYTES:
            return data
    return data


def _tile(view: SeamView, kind: str, position: int) -> Frame:
    kept = min(view.pictures, key=lambda each: abs(each - position))
    shown = view.pictures[kept]
    width = TILE_WIDTH if shown.shape[1] >= shown.shape[0] else round(TILE_WIDTH * shown.shape[1] / shown.shape[0])
    size = (width, max(1, round(width * shown.shape[0] / shown.shape[1])))
    picture = cv2.resize(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_AREA)
    band = np.full((22, width, 3), BAND_COLORS[kind], np.uint8)
    label = f"{kind} {view.numbers[kept]}"
    cv2.putText(band, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([picture, band])
