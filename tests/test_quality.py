"""The seam score: real footage is its own best transition, and every fault planted in it is found."""

from __future__ import annotations

import numpy as np
import pytest

from bench.controls import FAULTS, SPAN_FRAMES, cut_out
from bench.footage import SHOTS, Shot
from splice.models.protocol import Frame
from splice.quality import SeamTooShort, level_step, measure_signals, picture_of, score_seam

RATE = 48_000
UNCUT = [shot for shot in SHOTS if not shot.cut]
IDS = [f"{shot.name}, {shot.gap_frames}" for shot in UNCUT]


@pytest.mark.parametrize("shot", UNCUT, ids=IDS)
def test_the_truth_scores_best_and_every_planted_fault_is_found(shot: Shot) -> None:
    before, span, after = cut_out(shot)
    start, stop = len(before), len(before) + SPAN_FRAMES
    scores = {
        name: score_seam([*before, *fault(before, span, after), *after], start, stop).total
        for name, fault in FAULTS.items()
    }
    of_truth = scores.pop("truth")
    assert not {name: score for name, score in scores.items() if score <= of_truth + 0.3}, of_truth


def _still(count: int) -> list[Frame]:
    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    return [picture] * count


def test_nothing_is_wrong_with_a_still() -> None:
    assert score_seam(_still(25), 8, 17).total == 0


def test_with_too_few_frames_beside_it_a_seam_has_no_score() -> None:
    with pytest.raises(SeamTooShort, match="3 and 8 frames"):
        score_seam(_still(20), 3, 12)


def test_signals_do_not_depend_on_what_else_was_measured() -> None:
    before, span, after = cut_out(UNCUT[0])
    pictures = [picture_of(frame) for frame in (*before, *span, *after)]
    whole, part = measure_signals(pictures), measure_signals(pictures[5:])
    for name in ("difference", "bend", "warp", "turn", "sharpness"):
        np.testing.assert_array_equal(getattr(whole, name)[7:], getattr(part, name)[2:])


def test_a_step_of_the_sound_is_measured_in_db() -> None:
    tone = np.sin(np.arange(RATE // 2) / 20, dtype=np.float32)[None]
    assert level_step(tone, tone / 2) == pytest.approx(6.02, abs=0.05)
    assert level_step(tone, tone) == pytest.approx(0, abs=1e-6)
    assert level_step(np.zeros_like(tone), np.full_like(tone, 1e-6)) == 0, "both are silence"
    assert level_step(tone, tone[:, :0]) == 0
