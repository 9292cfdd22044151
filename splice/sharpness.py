"""Sharpness of generated frames brought to that of the frames beside them: models soften, and scaling up does, too."""

from __future__ import annotations

import cv2
import numpy as np

from splice.models.protocol import Pictures

RADIUS = 1.0
"""Standard deviation in pixels of the blur that unsharp masking takes away."""

MOST_AMOUNT = 1.5
"""Of unsharp masking: beyond it edges get a bright line."""

TOLERANCE = 0.01


def sharpness(pictures: Pictures) -> float:
    """Energy of the Laplacian of the luma: the variance that Pech-Pacheco et al. (ICPR 2000) measure focus by."""
    lumas = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures)
    return float(np.mean([cv2.Laplacian(luma, cv2.CV_32F).var() for luma in lumas]))


def sharpening_amount(originals: Pictures, rendered: Pictures) -> float:
    """The amount, 0..MOST_AMOUNT, by which rendered frames get as sharp as their originals; never softens.

    originals, rendered: the same frames, of the same shape.
    """
    wanted = sharpness(originals)
    low, high = 0.0, MOST_AMOUNT
    if sharpness(rendered) >= wanted:
        return 0.0
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        enough = sharpness(np.stack([sharpen(picture, middle) for picture in rendered])) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def sharpen(picture: Pictures, amount: float) -> Pictures:
    """Unsharp masking of one picture (H, W, 3): what a blur takes away is added, ``amount`` times."""
    if amount == 0:
        return picture
    blurred = cv2.GaussianBlur(picture, (0, 0), RADIUS)
    sharpened: Pictures = np.clip(picture + np.float32(amount) * (picture - blurred), 0, 1, dtype=np.float32)
    return sharpened
