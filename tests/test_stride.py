"""A model that makes every s-th frame: it sees the right ones, and what lies between them follows the motion."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bench.footage import BIG_BUCK_BUNNY, SHOTS, hold_out
from bench.transitions import psnr_db
from splice.models.protocol import Guide
from splice.stride import fill_frames, stride_guide


def numbered(left: int, gap: int, right: int) -> tuple[Guide, np.ndarray]:
    """A guide, and its whole window: frame n is a picture of n everywhere."""
    window = np.broadcast_to(
        np.arange(left + gap + right, dtype=np.uint8)[:, None, None, None], (left + gap + right, 40, 48, 3)
    )
    replaced = window[left : left + gap]
    return Guide(window[:left], window[left + gap :], gap, Fraction(24), replaced), window


def numbers(frames: np.ndarray) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


def test_the_grid_starts_at_the_seam_on_each_side() -> None:
    guide, _ = numbered(7, 11, 10)
    seen = stride_guide(guide, 3)
    assert numbers(seen.left) == [0, 3, 6] and numbers(seen.right) == [18, 21, 24, 27]
    assert seen.gap_frames == 3 and seen.rate == 8
    assert seen.replaced is not None and numbers(seen.replaced) == [9, 12, 15]
    assert stride_guide(guide, 1) is guide


@pytest.mark.parametrize(
    ("left", "gap", "right", "stride"), [(7, 11, 10, 3), (9, 53, 13, 4), (5, 1, 5, 4), (3, 4, 3, 2)]
)
def test_the_whole_window_comes_back_with_the_model_s_frames_in_their_places(
    left: int, gap: int, right: int, stride: int
) -> None:
    guide, window = numbered(left, gap, right)
    seen = stride_guide(guide, stride)
    # Of a picture that brightens evenly the model's own frames are as bright as it is at their time.
    times = left - 1 + (gap + 1) * np.arange(1, seen.gap_frames + 1) / (seen.gap_frames + 1)
    made = [np.full((40, 48, 3), round(time), np.uint8) for time in times]
    filled = np.stack(list(fill_frames(guide, stride, [*seen.left, *made, *seen.right])))
    assert filled.shape == window.shape
    assert np.abs(filled.astype(int) - window).max() <= 1
    on_grid = [*range(0, left, stride), *range(left + gap, len(window), stride)]
    assert (filled[on_grid] == window[on_grid]).all()


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_what_is_between_follows_the_motion(depth: type) -> None:
    shot = next(shot for shot in SHOTS if shot.video is BIG_BUCK_BUNNY)
    guide, truth = hold_out(shot, width_pixels=320)
    scale = np.iinfo(depth).max // 255
    guide = replace(guide, left=guide.left.astype(depth) * scale, right=guide.right.astype(depth) * scale)
    window = np.concatenate([guide.left, truth.astype(depth) * scale, guide.right])[3 : 3 + 25]
    guide = Guide(window[:9], window[16:], 7, guide.rate)
    filled = np.stack(list(fill_frames(guide, 2, window[::2])))
    assert filled.dtype == depth and (filled[::2] == window[::2]).all()
    dissolved = ((window[:-1:2].astype(float) + window[2::2]) / 2).astype(depth)
    between, expected = (frames.astype(float) / scale for frames in (filled[1::2], window[1::2]))
    assert psnr_db(between, expected) > psnr_db(dissolved.astype(float) / scale, expected) + 3
