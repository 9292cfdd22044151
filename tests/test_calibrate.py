"""Colours and sharpness by truth: a drift is undone, and what is clean is left alone. On real footage."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from bench.footage import SHOTS, Shot, hold_out
from splice.calibrate import Calibration, fit_side
from splice.models.protocol import Pictures
from splice.models.vace.conditions import kept_frames, to_float
from splice.sharpness import sharpen, sharpening_amount, sharpness

Drift = Callable[[Pictures, float], Pictures]
"""(picture, time from 0 at the window's start to 1 at its end) -> what the model made of it."""

INVISIBLE = 0.5
"""Levels of 255."""


def gain(picture: Pictures, time: float) -> Pictures:
    return picture * np.float32([1.08, 1.0, 0.97])


def offset(picture: Pictures, time: float) -> Pictures:
    return picture * np.float32(0.94) + np.float32([0.05, 0.02, 0.0])


def hue(picture: Pictures, time: float) -> Pictures:
    """A turn by 8 degrees around grey, in RGB."""
    angle = np.deg2rad(8)
    around = (1 - np.cos(angle)) / 3 + np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * np.sin(angle) / np.sqrt(3)
    return picture @ (around + np.eye(3) * np.cos(angle)).T.astype(np.float32)


def gamma(picture: Pictures, time: float) -> Pictures:
    return picture ** np.float32(1.15)


def growing(picture: Pictures, time: float) -> Pictures:
    """Redder and brighter with time, as VACE does."""
    return picture + np.float32(time) * (picture * np.float32([0.08, 0.03, 0.0]) + np.float32(0.03))


def window(shot: Shot) -> tuple[Pictures, range, range]:
    """Consecutive frames of a real shot, and which of them are kept context."""
    guide, truth = hold_out(shot, width_pixels=640)
    shown = np.concatenate([guide.left, truth, guide.right])
    left, right = kept_frames(len(guide.left), len(truth), len(guide.right))
    return to_float(shown), left, right


def calibrated(originals: Pictures, rendered: Pictures, left: range, right: range) -> Calibration:
    sides = [fit_side(originals[s.start : s.stop], rendered[s.start : s.stop], s) for s in (left, right)]
    return Calibration(*sides)


def drifted(originals: Pictures, drift: Drift) -> Pictures:
    times = np.linspace(0, 1, len(originals))
    return np.stack([np.clip(drift(each, t), 0, 1, dtype=np.float32) for each, t in zip(originals, times, strict=True)])


def step(source: Pictures, generated: Pictures) -> float:
    """Of colour at a seam: mean difference of pictures made coarse, in levels of 255."""
    coarse = [cv2.resize(each, (16, 9), interpolation=cv2.INTER_AREA) for each in (source, generated)]
    return float(255 * np.abs(coarse[0] - coarse[1]).mean())


@pytest.mark.parametrize("drift", [gain, offset, hue, gamma, growing])
@pytest.mark.parametrize("shot", SHOTS[:3], ids=lambda shot: shot.name)
def test_a_drift_of_colour_is_undone_at_both_seams_and_between(shot: Shot, drift: Drift) -> None:
    originals, left, right = window(shot)
    rendered = drifted(originals, drift)
    calibration = calibrated(originals, rendered, left, right)
    edges = (left[-1] + 1, right[0] - 1)
    for index in (*edges, len(originals) // 2):
        before = step(originals[index], rendered[index])
        after = step(originals[index], calibration.undo(rendered[index], index))
        assert after <= max(0.1 * before, INVISIBLE), (index, before, after, calibration.notes)


def shifted(picture: Pictures) -> Pictures:
    return np.roll(picture, (2, 3), axis=(0, 1))


@pytest.mark.parametrize("shot", SHOTS[:3], ids=lambda shot: shot.name)
def test_a_clean_generation_is_left_alone_though_it_is_misaligned_and_noisy(shot: Shot) -> None:
    originals, left, right = window(shot)
    random = np.random.default_rng(7)
    noise = random.normal(0, 4 / 255, originals.shape).astype(np.float32)
    rendered = np.clip(np.stack([shifted(each) for each in originals]) + noise, 0, 1, dtype=np.float32)
    calibration = calibrated(originals, rendered, left, right)
    assert "can't be seen" in calibration.reason or "not one of colour alone" in calibration.reason
    assert (calibration.undo(rendered[20], 20) == rendered[20]).all()
    assert calibration.notes["drift_kept"] == calibration.reason


def test_a_drift_under_misalignment_is_undone_without_spoiling_contrast() -> None:
    originals, left, right = window(SHOTS[0])
    rendered = drifted(np.stack([shifted(each) for each in originals]), offset)
    calibration = calibrated(originals, rendered, left, right)
    middle = len(originals) // 2
    undone = calibration.undo(rendered[middle], middle)
    assert step(shifted(originals[middle]), undone) <= 0.2 * step(shifted(originals[middle]), rendered[middle])
    assert undone.std() == pytest.approx(originals[middle].std(), rel=0.02)


def test_what_is_no_matter_of_colour_is_left_alone() -> None:
    originals, left, right = window(SHOTS[0])
    other = originals[::-1, :, ::-1]
    calibration = calibrated(originals, np.ascontiguousarray(other), left, right)
    assert "not one of colour alone" in calibration.reason
    assert all((calibration.undo(other[index], index) == other[index]).all() for index in (0, 30, 60))


def test_softened_frames_get_as_sharp_as_their_neighbours_and_sharp_ones_stay() -> None:
    originals, *_ = window(SHOTS[0])
    few = originals[:2]
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), 0.5) for each in few])
    amount = sharpening_amount(few, soft)
    assert amount > 0
    assert sharpness(np.stack([sharpen(each, amount) for each in soft])) == pytest.approx(sharpness(few), rel=0.1)
    assert sharpening_amount(soft, few) == 0
