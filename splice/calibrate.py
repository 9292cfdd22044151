"""Colour calibrated by truth: undo what a model did to colours, as seen on frames whose originals are known.

A model that re-renders its context (VACE) changes its colours a little, and those of the gap alike: after the seam the
picture is redder or brighter. Of the context there are the originals, so that the change can be fitted there, on each
side, and undone over the gap between.

Fitted are means of blocks, never pixels: a pixel fit takes misalignment and noise for a loss of contrast. All pictures
here are float32 in 0..1, RGB, as shown (with their transfer curve).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from splice.models.protocol import Pictures

BLOCK = 32
"""Pixels of a block's side, in pictures of the size that the model works at; smaller where there would be too few."""

FEWEST_BLOCKS = 4
"""Along a picture's shorter side."""

LEAST_EFFECT = 1 / 255
"""Root mean square over blocks; less can't be seen, and may as well be chance."""

MOST_RESIDUAL = 5 / 255
"""Root mean square over blocks of what a fit leaves: with more the pictures show something else."""

MOST_CHANGE = 0.15
"""That any value of a pixel is changed by."""

NOISE = 2 / 255
"""Of a block's mean, by misalignment and texture: the root mean square that the fit takes for chance."""

PRIOR = np.array([0.1, *[0.2] * 3, *[0.2] * 3, *[0.2] * 3])
"""How large an offset, gains, and the bends of the curve usually are: what draws the fit towards identity."""


@dataclass(frozen=True)
class SideFit:
    """What the model did on one side.

    change: (10, 3), of each channel by ``_features``: what undoes it. centre: the number in the window of the frame at
    which it holds. effect, residual: root mean squares over blocks, 0..1, of what would be undone and of what that
    leaves.
    """

    change: NDArray[np.float64]
    centre: float
    effect: float
    residual: float


@dataclass(frozen=True)
class Calibration:
    """The change on both sides; in between, and beyond, it is taken to be linear in time."""

    left: SideFit
    right: SideFit

    @property
    def reason(self) -> str:
        """Why nothing is undone; empty where something is."""
        larger = max(self.left, self.right, key=lambda side: side.effect)
        if larger.effect < LEAST_EFFECT:
            return f"{255 * larger.effect:.2f} of 255 levels can't be seen"
        if larger.residual > min(larger.effect, MOST_RESIDUAL):
            return f"it is not one of colour alone: {255 * larger.residual:.2f} of 255 levels would stay"
        return ""

    def undo(self, picture: Pictures, index: int) -> Pictures:
        """A rendered picture (H, W, 3) of number ``index`` in the window, in the colours of the sources."""
        if self.reason:
            return picture
        share = (index - self.left.centre) / (self.right.centre - self.left.centre)
        change = (1 - share) * self.left.change + share * self.right.change
        correction = _features(picture) @ change.astype(np.float32)
        corrected = picture + np.clip(correction, -MOST_CHANGE, MOST_CHANGE)
        clipped: Pictures = np.clip(corrected, 0, 1, dtype=np.float32)
        return clipped

    @property
    def notes(self) -> dict[str, str | float]:
        """For the report: the drift in levels of 255, or why it was left alone."""
        found: dict[str, str | float] = {
            "drift_left": round(255 * self.left.effect, 2),
            "drift_right": round(255 * self.right.effect, 2),
        }
        return {**found, "drift_kept": self.reason} if self.reason else found


def fit_side(originals: Pictures, rendered: Pictures, indices: range) -> SideFit:
    """What the model did to frames whose originals are known.

    originals, rendered: the same frames, of the same shape; only such as lie in latents that are kept as a whole.
    indices: their numbers in the window.

    Ridge regression of the difference of the blocks' means on ``_features``; the ridge is the maximum a posteriori
    for noise and changes as large as NOISE and PRIOR say (Hastie, Tibshirani, Friedman: The Elements of Statistical
    Learning, 2nd edition, 3.4.1).
    """
    # Means of the features, not features of the means: those of a curve would be wrong where a block has contrast.
    features = np.concatenate([_block_means(_features(picture)) for picture in rendered])
    pairs = zip(originals, rendered, strict=True)
    difference = np.concatenate([_block_means(original - picture) for original, picture in pairs])
    ridge = np.diag((NOISE / PRIOR) ** 2)
    change = np.linalg.solve(features.T @ features + ridge, features.T @ difference)
    undone = features @ change
    effect, residual = _rms(undone), _rms(difference - undone)
    return SideFit(change, (indices[0] + indices[-1]) / 2, effect, residual)


def _features(picture: Pictures) -> NDArray[np.float32]:
    """(H, W, 3) -> (H, W, 10): an offset, a matrix, and of each channel a bend of its curve and a change of its gamma.

    The last is x ln x, by which x^g changes with g around 1.
    """
    around = picture - np.float32(0.5)
    gamma = picture * np.log(np.maximum(picture, np.float32(1e-6)))
    return np.concatenate([np.ones_like(around[..., :1]), around, around**2, gamma], axis=-1)


def _block_means(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(H, W, C) -> (n, C): the mean of every block; what does not fill one at the edges is spread evenly."""
    height, width, channels = values.shape
    block = max(1, min(BLOCK, min(height, width) // FEWEST_BLOCKS))
    size = (width // block, height // block)
    planes = [cv2.resize(values[..., channel], size, interpolation=cv2.INTER_AREA) for channel in range(channels)]
    return np.stack(planes, axis=-1).reshape(-1, channels).astype(np.float64)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
