"""What is done with what comes out of the pipeline: colours and sharpness of the sources, their size and depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from splice.calibrate import Calibration, fit_side
from splice.models.protocol import Frame, Guide, Pictures, Rendering
from splice.models.vace.conditions import Rendered, WorkingSize, kept_frames, scale_pictures, to_float
from splice.sharpness import sharpen, sharpening_amount


def finish(guide: Guide, size: WorkingSize, made: Rendered) -> Rendering:
    """The whole window as the sources have it. made: at the padded size."""
    rendered = made.window[:, : size.height, : size.width]
    calibration = calibrate(guide, size, rendered)
    originals = _originals(guide, made.reencoded)
    reencoded = np.stack([picture[: size.height, : size.width] for picture in made.reencoded.values()])
    amount = sharpening_amount(originals, np.stack([enlarge(picture, guide) for picture in reencoded]))
    drift = fit_side(scale_pictures(originals, size), reencoded, range(len(reencoded))).effect
    notes = {
        **calibration.notes,
        "drift_vae": round(255 * drift, 2),
        "sharpening": round(amount, 2),
        "worked_at": f"{size.width}x{size.height}",
    }

    def frames() -> Iterator[Frame]:
        for index, picture in enumerate(rendered):
            enlarged = enlarge(calibration.undo(picture, index), guide)
            yield quantise(sharpen(enlarged, amount), guide.left.dtype)

    return Rendering(frames(), notes)


def calibrate(guide: Guide, size: WorkingSize, rendered: Pictures) -> Calibration:
    """What the model did to the colours of both sides, at the working size."""
    left, right = kept_frames(len(guide.left), guide.gap_frames, len(guide.right))
    first_right = len(guide.left) + guide.gap_frames
    originals_left = guide.left[left.start : left.stop]
    originals_right = guide.right[right.start - first_right :]
    return Calibration(
        fit_side(scale_pictures(to_float(originals_left), size), rendered[left.start : left.stop], left),
        fit_side(scale_pictures(to_float(originals_right), size), rendered[right.start : right.stop], right),
    )


def _originals(guide: Guide, reencoded: dict[int, Pictures]) -> Pictures:
    """What the frames of those numbers in the window were in the sources."""
    first_right = len(guide.left) + guide.gap_frames
    sides = [guide.left[index] if index < first_right else guide.right[index - first_right] for index in reencoded]
    return to_float(np.stack(sides))


def enlarge(picture: Pictures, guide: Guide) -> Pictures:
    """At the size of the sources."""
    height, width = guide.left.shape[1:3]
    if picture.shape[:2] == (height, width):
        return picture
    enlarged = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LANCZOS4)
    clipped: Pictures = np.clip(enlarged, 0, 1, dtype=np.float32)
    return clipped


def quantise(picture: Pictures, dtype: np.dtype[Any]) -> Frame:
    """0..1 -> uint8 or uint16, to the nearest level."""
    levels: Frame = np.rint(picture.astype(np.float64) * np.iinfo(dtype).max).astype(dtype)
    return levels
