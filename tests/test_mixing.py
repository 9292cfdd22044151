"""Frames mixed out of two others: nothing is lost that need not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from splice.models.mixing import Mixer, Sources
from splice.models.motion import positions
from splice.models.protocol import Frame

SIZE = (64, 48)  # width, height


def mixed(left: Frame, right: Frame, way: tuple[float, float], right_share: float) -> Frame:
    """way: of every point in both frames, in pixels."""
    ways = np.zeros_like(positions(SIZE)) + np.float32(way)
    return Mixer(left, right, SIZE).mix(Sources(ways, ways, np.full(SIZE[::-1], right_share, np.float32)))


def noise(dtype: Any, seed: int = 0) -> Frame:
    """As many of the darkest and the brightest level as of any other."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (*SIZE[::-1], 3), dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("right_share", [0.0, 0.3, 1.0])
def test_what_comes_from_a_whole_pixel_is_that_pixel(dtype: Any, right_share: float) -> None:
    frame = noise(dtype)
    np.testing.assert_array_equal(mixed(frame, frame, (0, 0), right_share), frame)
    moved = mixed(frame, frame, (3, -2), right_share)
    np.testing.assert_array_equal(moved[2:, :-3], frame[:-2, 3:])
    np.testing.assert_array_equal(moved[:2, :-3], frame[[0, 0], 3:], err_msg="above the picture its edge goes on")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shares_are_of_light_values_to_the_level(dtype: Any) -> None:
    left, right = noise(dtype, 1), noise(dtype, 2)
    expected = 0.75 * left.astype(np.float64) + 0.25 * right
    assert np.abs(mixed(left, right, (0, 0), 0.25) - expected).max() <= 0.51


@pytest.mark.parametrize(("way", "kept"), [(0.5, 0.97), (0.25, 0.85)])
def test_fine_detail_is_as_sharp_between_pixels(way: float, kept: float) -> None:
    """A grating of four pixels; of a bilinear warp by half a pixel 0.71 is left."""
    x = np.arange(SIZE[0])
    grating = np.round(127.5 + 100 * np.sin(np.pi / 2 * x + 0.3))
    frame = np.broadcast_to(grating[None, :, None], (*SIZE[::-1], 3)).astype(np.uint8)
    row = mixed(frame, frame, (way, 0), 0.5)[20, 8:-8, 0].astype(float)
    amplitude = np.abs(np.fft.rfft(row - row.mean())[len(row) // 4]) * 2 / len(row)
    assert amplitude / 100 > kept
