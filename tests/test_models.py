"""The models that run on any CPU: their promises to every caller, and that motion is followed on real footage."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from typing import Any

import cv2
import numpy as np
import pytest

from bench.footage import BIG_BUCK_BUNNY, BIKES, CITY, SHOTS, Shot, hold_out, read_frames
from bench.transitions import HardCut, psnr_db, ssim
from splice.errors import RequestError
from splice.models import find_model, flow_morph, motion
from splice.models.crossfade import Crossfade
from splice.models.flow_morph import DISSOLVE_MARGIN, RELATED, FlowMorph
from splice.models.mixing import Mixer
from splice.models.protocol import Frame, Guide, ModelSettings, TransitionModel

SETTINGS = ModelSettings(prompt="", negative_prompt="", seed=0)
MODELS = ("flow_morph", "crossfade")


def render(model: str, guide: Guide) -> list[Frame]:
    return list(find_model(model).render(guide, SETTINGS).frames)


def flat_guide(value: float, size: tuple[int, int], dtype: Any, contexts: tuple[int, int], gap: int) -> Guide:
    level = round(value * np.iinfo(dtype).max)
    left, right = (np.full((count, *size, 3), level, dtype) for count in contexts)
    return Guide(left, right, gap, Fraction(25))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [(16, 16), (48, 64), (33, 17), (202, 360), (2, 400), (1, 1)])
def test_any_size_depth_and_context_gives_the_gap_alone(model: str, size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    for dtype, (left, right, gap) in product((np.uint8, np.uint16), ((1, 1, 1), (2, 1, 5), (8, 8, 3), (3, 20, 2))):
        noise = [random.integers(0, np.iinfo(dtype).max + 1, (n, *size, 3)).astype(dtype) for n in (left, right)]
        frames = render(model, Guide(noise[0], noise[1], gap, Fraction(25)))
        assert [(frame.shape, frame.dtype) for frame in frames] == [((*size, 3), dtype)] * gap


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("model", "dtype", "value"), list(product(MODELS, (np.uint8, np.uint16), (0.0, 1.0))))
def test_black_stays_black_and_white_white(model: str, dtype: Any, value: float) -> None:
    guide = flat_guide(value, (48, 64), dtype, (8, 8), 5)
    for frame in render(model, guide):
        assert (frame == guide.left[0]).all()


@pytest.mark.parametrize("method", ["morph", "dissolve"])
def test_what_stands_still_stays_as_it_is_to_its_very_edges(method: str) -> None:
    (picture,) = read_frames(BIG_BUCK_BUNNY, 40, 41)
    still = np.stack([picture] * 8)
    for frame in FlowMorph(method).render(Guide(still, still, 3, Fraction(25)), SETTINGS).frames:
        assert np.abs(frame.astype(int) - picture).max() <= 1


@pytest.mark.parametrize("model", MODELS)
def test_the_same_guide_gives_the_same_bytes_in_any_thread(model: str) -> None:
    guide, _ = hold_out(SHOTS[0], width_pixels=320)

    def digest(_: int) -> str:
        return hashlib.sha256(b"".join(frame.tobytes() for frame in render(model, guide))).hexdigest()

    with ThreadPoolExecutor(4) as threads:
        digests = set(threads.map(digest, range(4)))
    before = cv2.getNumThreads()
    try:
        for opencv_threads in (1, 4):
            cv2.setNumThreads(opencv_threads)
            digests.add(digest(0))
    finally:
        cv2.setNumThreads(before)
    assert len(digests) == 1


def test_sixteen_bits_render_what_eight_bits_do() -> None:
    guide, _ = hold_out(SHOTS[3])
    deep = Guide(guide.left.astype(np.uint16) * 257, guide.right.astype(np.uint16) * 257, guide.gap_frames, guide.rate)
    for shallow, full in zip(render("flow_morph", guide), render("flow_morph", deep), strict=True):
        difference = np.abs(shallow - full / 257)
        assert difference.mean() < 0.5 and difference.max() < 2.4, "rounded to 8 bits up to four times on the way"


@pytest.mark.parametrize("shot", SHOTS, ids=lambda shot: f"{shot.name} {shot.gap_frames}")
def test_flow_morph_is_nearer_to_the_truth_than_a_crossfade(shot: Shot) -> None:
    ours, crossfade, cut = (quality_of(name, shot) for name in ("chosen", "crossfade", "hard cut"))
    assert ours[0] > crossfade[0] and ours[0] > cut[0]
    # Structural similarity of a dissolve between unrelated pictures is decided by noise.
    assert ours[1] > crossfade[1] - (0.005 if shot.cut else 0)


def test_the_method_is_chosen_by_score_among_those_that_can_be_tried() -> None:
    tried = set()
    for shot in SHOTS:
        notes = notes_of(hold_out(shot, width_pixels=320)[0])
        scores = {name.removesuffix(" score"): score for name, score in notes.items() if name.endswith(" score")}
        tried.add(tuple(sorted(scores)))
        assert notes["relatedness"] < RELATED if shot.cut else notes["relatedness"] > 2 * RELATED
        if scores:
            margins = {"dissolve": DISSOLVE_MARGIN}
            assert notes["method"] == min(scores, key=lambda name: scores[name] + margins.get(name, 0))
        else:
            assert notes["method"] == "dissolve" if shot.cut else notes["relatedness"] > 0.8
    assert tried == {(), ("dissolve", "morph"), ("dissolve", "extrapolate and morph", "morph")}


def test_a_fast_camera_is_followed_from_what_it_did_before() -> None:
    flight = SHOTS[1]
    assert notes_of(hold_out(flight)[0])["method"] == "extrapolate and morph"
    assert quality_of("chosen", flight)[0] > quality_of("morph", flight)[0] + 3


@pytest.mark.parametrize("repeated", [1, 6])
def test_a_first_or_last_frame_that_is_there_twice_does_not_slow_the_camera(repeated: int) -> None:
    """Of seven frames of a pan by three pixels each."""
    (picture,) = read_frames(BIG_BUCK_BUNNY, 40, 41, 640)
    places = [3 * (index if index < repeated else index - 1) for index in range(7)]
    velocity = motion.measure_velocity(np.stack([picture[40:220, place : place + 320] for place in places]))
    np.testing.assert_allclose(velocity.drift[:2, 2], (-3.0, 0.0), atol=0.1)


@pytest.mark.parametrize(("gap_frames", "relatedness"), [(9, 0.7), (21, 0.9)])
def test_slides_that_share_nothing_but_their_background_are_dissolved(gap_frames: int, relatedness: float) -> None:
    """Nine tenths of them are the same, and nothing of what is on them."""

    def slide(*lines: str) -> Frame:
        blank = np.full((360, 640, 3), 240, np.uint8)
        for index, line in enumerate(lines):
            place = (60, 150 + 60 * index)
            cv2.putText(blank, line, place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, (20, 20, 20), 3, cv2.LINE_AA)
        return np.stack([blank] * 8)

    left, right = slide("Agenda", "- first", "- second"), slide("Results", "42 per cent", "of all")
    notes = notes_of(Guide(left, right, gap_frames, Fraction(25)))
    assert notes["relatedness"] > relatedness and notes["method"] == "dissolve"


def test_pictures_that_share_all_of_their_texture_and_little_else_are_dissolved() -> None:
    """A label stays as it is above stripes, along which nothing can be followed, and the stripes change."""

    def picture(seed: int) -> Frame:
        rows = np.random.default_rng(seed).integers(0, 256, (12, 1)).astype(np.uint8)
        stripes = np.tile(cv2.resize(rows, (1, 640), interpolation=cv2.INTER_CUBIC), (1, 360))
        label = np.random.default_rng(0).integers(0, 256, (4, 12, 3)).astype(np.uint8)
        whole = np.dstack([stripes] * 3)
        whole[:67] = 0
        whole[17:50, 40:139] = cv2.resize(label, (99, 33), interpolation=cv2.INTER_CUBIC)
        return np.stack([whole] * 8)

    guide = Guide(picture(2), picture(3), 9, Fraction(25))
    match = motion.match(guide.left[-1], guide.right[0], np.zeros((3, 3)), long_side=flow_morph.SHORT_MATCH_SIDE)
    texture = motion.texture(motion.to_grey(guide.left[-1], motion.grid_size(guide.left[-1])))
    assert match.relatedness < flow_morph.RELATED and match.found(texture) >= flow_morph.FOUND
    assert notes_of(guide)["method"] == "dissolve" and len(render("flow_morph", guide)) == 9


def test_frames_are_made_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long gap at a large size would not fit into memory."""
    made = []

    def mix(self: Mixer, sources: Any) -> Frame:
        made.append(sources)
        return MIX(self, sources)

    MIX = Mixer.mix
    monkeypatch.setattr(Mixer, "mix", mix)
    frames = FlowMorph().render(flat_guide(0.5, (48, 64), np.uint8, (1, 1), 100), SETTINGS).frames
    for taken in range(1, 4):
        next(frames)
        assert taken <= len(made) <= taken + flow_morph.FRAMES_AT_ONCE
    assert sum(1 for _ in frames) == 97


def test_a_dissolve_that_scores_a_little_better_is_not_taken() -> None:
    """It is the blurred one, and mostly further from the truth."""
    places = ((BIG_BUCK_BUNNY, 38, 9), (BIKES, 165, 9), (BIKES, 205, 12), (CITY, 154, 9), (CITY, 169, 9))
    shots = [Shot(video.file_name, video, start, gap) for video, start, gap in places]
    for shot in shots:
        notes = notes_of(hold_out(shot)[0])
        assert 0.4 < notes["morph score"] - notes["dissolve score"] < DISSOLVE_MARGIN
    chosen, dissolved = (np.mean([quality_of(name, shot) for shot in shots], axis=0) for name in ("chosen", "dissolve"))
    assert (chosen - dissolved > (0.5, 0.01)).all(), f"PSNR, SSIM: {chosen}, {dissolved}"


def test_of_the_methods_the_chosen_one_is_nearest_to_the_truth_on_average() -> None:
    fixed = ("morph", "extrapolate and morph", "dissolve")
    means = {name: np.mean([quality_of(name, shot) for shot in SHOTS], axis=0) for name in ("chosen", *fixed)}
    for method in fixed:
        assert (means["chosen"] >= means[method] - (0.02, 0.0005)).all(), f"{method}: {means}"


@cache
def quality_of(name: str, shot: Shot) -> tuple[float, float]:
    """(PSNR in dB, SSIM), means over the gap. name: a way of flow_morph's, or "chosen", or another model."""
    others: dict[str, TransitionModel] = {"chosen": FlowMorph(), "crossfade": Crossfade(), "hard cut": HardCut()}
    guide, truth = hold_out(shot)
    model = others.get(name) or FlowMorph(name)
    pairs = list(zip(model.render(guide, SETTINGS).frames, truth, strict=True))
    return float(np.mean([psnr_db(*pair) for pair in pairs])), float(np.mean([ssim(*pair) for pair in pairs]))


def notes_of(guide: Guide) -> dict[str, Any]:
    return dict(find_model("flow_morph").render(guide, SETTINGS).notes)


@pytest.mark.parametrize(("gain", "gamma"), [(0.6, 1.0), (0.45, 1.4), (1.3, 0.7), (0.2, 1.2)])
def test_light_changes_without_a_ghost_of_what_stands_still(gain: float, gamma: float) -> None:
    (day,) = read_frames(BIKES, 150, 151, 640)
    other = np.clip(255 * gain * (day / 255.0) ** gamma, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0)
    left, right = (
        np.stack([np.clip(each + noise.normal(0, 1.5, each.shape), 0, 255).astype(np.uint8) for _ in range(8)])
        for each in (day, other)
    )
    shares = [0.0]
    change = other.astype(float) - day
    for frame in render("flow_morph", Guide(left, right, 24, Fraction(25))):
        shares.append(float(((frame - day.astype(float)) * change).sum() / (change**2).sum()))
        assert psnr_db(frame, np.rint(day + shares[-1] * change)) > 36
    steps = np.diff([*shares, 1.0])
    assert steps.min() > 0 and steps.max() < 2 / len(steps), "smoothly from the one to the other"


def test_the_generated_frames_touch_both_sides_without_a_jump() -> None:
    guide, _ = hold_out(Shot("street", BIKES, 146, 9))
    frames = render("flow_morph", guide)

    def steps(*run: Frame) -> list[float]:
        return [float(cv2.absdiff(*pair).mean()) for pair in pairwise(run)]

    beside = steps(*guide.left) + steps(*guide.right)
    assert max(steps(guide.left[-1], *frames, guide.right[0])) <= max(beside)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lightning_baseline_2_2_2", "needs a CUDA GPU"),
        ("vace_14b", "needs a CUDA GPU"),
        (
            "somebody/pipeline",
            "never fetched to this machine; fetch it: python -m splice.models fetch somebody/pipeline",
        ),
        ("./no/such/folder", "unknown"),
        ("dreamer", "unknown"),
    ],
)
def test_a_model_that_can_t_run_here_says_which_do(name: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        find_model(name)
    assert "flow_morph" in str(caught.value)
