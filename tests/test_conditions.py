"""What goes into a VACE pipeline, and when which expert runs: exactly, without torch."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from splice.models.protocol import Guide
from splice.models.vace.conditions import WorkingSize, kept_frames, lay_conditions, working_size
from splice.models.vace.presets import LIGHTNING, PRESETS, find_preset
from splice.models.vace.schedule import plan_steps


def guide_of(left: int, gap: int, right: int, width: int = 50, height: int = 37, dtype: type = np.uint8) -> Guide:
    random = np.random.default_rng(left)
    most = np.iinfo(dtype).max
    sides = [random.integers(0, most + 1, (count, height, width, 3)).astype(dtype) for count in (left, right)]
    return Guide(sides[0], sides[1], gap, Fraction(16))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_window_is_context_grey_and_mask_to_the_bit(dtype: type) -> None:
    guide = guide_of(9, 5, 7, dtype=dtype)
    made = lay_conditions(guide, WorkingSize(50, 37))
    assert made.video.shape == made.mask.shape == (1, 21, 3, 48, 64) and made.video.dtype == np.float32
    most = np.float32(np.iinfo(dtype).max)
    inside = made.video[0].transpose(0, 2, 3, 1)[:, :37, :50]
    assert (inside[:9] == guide.left / most).all() and (inside[14:] == guide.right / most).all()
    assert (inside[9:14] * 255 == np.float32(127.5)).all()
    assert (made.mask[0, 9:14] == 1).all() and made.mask.sum() == 5 * 3 * 48 * 64
    # Edges are the nearest pixel's, so that no line is seen where the picture ends.
    assert (made.video[0, 0, :, :37, 50:] == made.video[0, 0, :, :37, 49:50]).all()
    assert (made.video[0, 0, :, 37:, :] == made.video[0, 0, :, 36:37, :]).all()


def test_a_window_that_is_none_never_reaches_the_pipeline() -> None:
    with pytest.raises(AssertionError, match="22 frames"):
        lay_conditions(guide_of(9, 5, 8), WorkingSize(50, 37))


@pytest.mark.parametrize(
    ("picture", "asked", "expected", "padded"),
    [
        ((1920, 1080), None, (848, 480), (848, 480)),
        ((1080, 1920), None, (480, 848), (480, 848)),
        ((640, 272), None, (640, 272), (640, 272)),
        ((643, 271), None, (643, 271), (656, 272)),
        ((1920, 1080), (1280, 720), (1280, 720), (1280, 720)),
        ((640, 360), (1280, 720), (640, 360), (640, 368)),
    ],
)
def test_the_model_works_at_its_own_size_and_never_above_the_clips(
    picture: tuple[int, int], asked: tuple[int, int] | None, expected: tuple[int, int], padded: tuple[int, int]
) -> None:
    size = working_size(*picture, 832 * 480, asked)
    assert (size.width, size.height) == expected
    assert (size.padded_width, size.padded_height) == padded


def test_kept_frames_hold_whole_latents_on_both_sides() -> None:
    left, right = kept_frames(9, 53, 7)
    assert left == range(5) and right == range(65, 69), "frames 61 to 64 are one latent, and 61 is the gap's"
    left, right = kept_frames(8, 53, 8)
    assert left == range(5) and right == range(61, 69)
    left, right = kept_frames(12, 53, 8 + 8)
    assert left.stop <= 12 and right.start >= 65 and right.stop == 81


def test_the_six_steps_of_the_default_preset() -> None:
    steps = plan_steps(LIGHTNING, None, None)
    assert [round(step.timestep, 1) for step in steps] == [1000.0, 952.4, 882.5, 769.7, 556.8, 5.0]
    assert [step.expert for step in steps] == ["transformer"] * 4 + ["transformer_2"] * 2
    assert [step.guidance for step in steps] == [3, 3, 1, 1, 1, 1]
    high, full, low = (("lightning_high", 0.75),), (("lightning_high", 1.0),), (("lightning_low", 1.0),)
    assert [step.loras for step in steps] == [high, high, full, full, low, low]
    assert [step.guidance for step in plan_steps(LIGHTNING, None, 4.5)] == [4.5, 4.5, 1, 1, 1, 1]
    assert len(plan_steps(LIGHTNING, 12, None)) == 12


def test_guidance_can_only_be_switched_off() -> None:
    with pytest.raises(ValueError, match="may only switch guidance off"):
        replace(LIGHTNING, phases=LIGHTNING.phases[::-1])


def test_the_other_name_is_the_same_preset() -> None:
    assert find_preset("wan_2_2_vace_lightning_baseline_2_2_2") is PRESETS["lightning_baseline_2_2_2"]
