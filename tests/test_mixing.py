"""Frames mixed out of two others: nothing is lost that need not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from splice.models.mixing import Mixer, Sources
from splice.models.motion import positions
from splice.models.protocol import Frame

SIZE = WIDTH, HEIGHT = 64, 48
Way = tuple[float, float]


def mixed(left: Frame, right: Frame, ways: tuple[Way, Way], right_share: float, grid: tuple[int, int] = SIZE) -> Frame:
    """ways: of every point in the left and in the right frame, in pixels of the grid, x before y."""
    to_left, to_right = (np.zeros_like(positions(grid)) + np.float32(way) for way in ways)
    return Mixer(left, right, grid).mix(Sources(to_left, to_right, np.full(grid[::-1], right_share, np.float32)))


def noise(dtype: Any, seed: int = 0) -> Frame:
    """As many of the darkest and the brightest level as of any other."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, 3), dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("right_share", [0.0, 0.3, 1.0])
def test_what_comes_from_a_whole_pixel_is_that_pixel(dtype: Any, right_share: float) -> None:
    frame = noise(dtype)
    np.testing.assert_array_equal(mixed(frame, frame, ((0, 0), (0, 0)), right_share), frame)
    moved = mixed(frame, frame, ((3, -2), (3, -2)), right_share)
    np.testing.assert_array_equal(moved[2:, :-3], frame[:-2, 3:])
    np.testing.assert_array_equal(moved[:2, :-3], frame[[0, 0], 3:], err_msg="above the picture its edge goes on")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("way", [(0.5, 0), (0, 0.5), (0.5, 0.5), (-0.5, -0.5), (0.3, 0.7), (-9, 9)])
def test_white_stays_white_wherever_it_comes_from(dtype: Any, way: Way) -> None:
    white = np.full((HEIGHT, WIDTH, 3), np.iinfo(dtype).max, dtype)
    np.testing.assert_array_equal(mixed(white, white, (way, (0, 0)), 0.3), white)


@pytest.mark.parametrize("way", [(0.5, 0), (0, 0.5), (0.5, 0.5), (0.25, 0.5)])
def test_between_pixels_is_what_lies_between_them(way: Way) -> None:
    place = positions(SIZE).sum(axis=-1)
    ramp = np.repeat(2 * place[..., None], 3, axis=-1).astype(np.uint8)
    inside = np.s_[8:-8, 8:-8]
    made = mixed(ramp, ramp, (way, way), 0.5)[inside].astype(float)
    assert np.abs(made - 2 * (place + sum(way))[inside][..., None]).max() <= 0.5


def test_each_side_has_ways_of_its_own_in_the_grid_s_pixels() -> None:
    left, right = noise(np.uint8, 1), noise(np.uint8, 2)
    ways, grid = ((1.0, 0.0), (0.0, 1.0)), (WIDTH // 2, HEIGHT // 4)
    np.testing.assert_array_equal(mixed(left, right, ways, 0.0, grid)[:, :-2], left[:, 2:])
    np.testing.assert_array_equal(mixed(left, right, ways, 1.0, grid)[:-4], right[4:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shares_are_of_levels_and_each_point_has_its_own(dtype: Any) -> None:
    size = (512, 600)  # several strips
    bottom = positions(size)[..., 1] / (size[1] - 1)
    left, right = (np.full((*size[::-1], 3), share * np.iinfo(dtype).max, dtype) for share in (0.0, 0.8))
    still = np.zeros_like(positions(size))
    made = Mixer(left, right, size).mix(Sources(still, still, bottom))
    assert np.abs(made - bottom[..., None] * right.astype(float)).max() <= 0.51


def test_fine_detail_is_as_sharp_between_pixels() -> None:
    """A grating of four pixels, of whose energy a bilinear warp keeps two thirds; no place much less or more."""
    left = [kept_of_a_grating(place / 8) for place in range(8)]
    assert np.mean(np.square(left)) == pytest.approx(1.0, abs=0.02)
    assert min(left) > 0.94 and max(left) < 1.12


def kept_of_a_grating(way: float) -> float:
    """How much of its amplitude."""
    grating = np.round(127.5 + 100 * np.sin(np.pi / 2 * np.arange(WIDTH) + 0.3))
    frame = np.broadcast_to(grating[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)
    row = mixed(frame, frame, ((way, 0), (way, 0)), 0.5)[20, 8:-8, 0].astype(float)
    return float(np.abs(np.fft.rfft(row - row.mean())[len(row) // 4]) * 2 / len(row) / 100)


@pytest.mark.parametrize("shape", [(16, 16384), (16384, 16), (16, 16383)])
def test_the_largest_frames_that_a_request_may_name_are_mixed(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    grid = (32, 32)
    still = np.zeros_like(positions(grid))
    made = Mixer(frame, frame, grid).mix(Sources(still, still, np.full(grid, 0.5, np.float32)))
    np.testing.assert_array_equal(made, frame)
