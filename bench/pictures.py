"""Held-out gaps as pictures, what was there above what ``flow_morph`` made of it: ``python -m bench.pictures``.

Writes ``docs/images/gaps.jpg``. Needs what ``make bench`` installs.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bench.footage import MORE_SHOTS, SHOTS, hold_out
from bench.transitions import SETTINGS, gaps
from splice.models.flow_morph import FlowMorph
from splice.models.protocol import Frame

SHEET = Path(__file__).resolve().parent.parent / "docs" / "images" / "gaps.jpg"
SHOWN = (
    ("city by night", 53),
    ("light falls", 53),
    ("flight to a skyline", 53),
    ("Big Buck Bunny", 21),
    ("passer-by", 21),
    ("pan with a sled", 21),
    ("face", 21),
)
"""The last four hold what it fails on."""

COLUMNS = 5
TILE_PIXELS = (288, 162)
BAND_PIXELS = 20
JPEG_QUALITY = 82


def main() -> None:
    """Renders, and writes the sheet."""
    sheet = np.vstack([_rows(name, frames) for name, frames in SHOWN])
    cv2.imwrite(str(SHEET), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    print(SHEET)


def _rows(name: str, frames: int) -> Frame:
    """A shot's name above two rows of tiles, evenly over its gap."""
    shot = next(
        gap for shot in SHOTS + MORE_SHOTS for gap in gaps(shot) if (gap.name, gap.gap_frames) == (name, frames)
    )
    guide, truth = hold_out(shot)
    made = list(FlowMorph().render(guide, SETTINGS).frames)
    numbers = [round((column + 1) * (frames + 1) / (COLUMNS + 1)) - 1 for column in range(COLUMNS)]
    band = np.full((BAND_PIXELS, COLUMNS * TILE_PIXELS[0], 3), 255, np.uint8)
    label = f"{name}: frames {', '.join(str(n + 1) for n in numbers)} of {frames}; the truth above, flow_morph below"
    cv2.putText(band, label, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([band, *(np.hstack([_tile(row[n]) for n in numbers]) for row in (truth, made))])


def _tile(frame: Frame) -> Frame:
    """The frame in a tile, black beside it where its shape is another."""
    width, height = TILE_PIXELS
    scale = min(width / frame.shape[1], height / frame.shape[0])
    size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    tile = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return tile


if __name__ == "__main__":
    main()
