"""The plan against an oracle that is written from docs/frames.md: lists of single frames, no arithmetic."""

from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from splice.errors import RequestError
from splice.format import choose_format, conform_reasons, conformed_frame_count
from splice.models.protocol import ModelSpec, WindowRule
from splice.plan import limit_settings, plan_timeline
from splice.recipe import step_digests
from splice.request import JoinRequest, parse_request
from splice.types import (
    UNKNOWN_SOUND,
    Clip,
    ClipIdentity,
    ColorTags,
    CutPoints,
    Segment,
    Sound,
    SoundFormat,
    Timeline,
    Unit,
    VideoFormat,
)

# Time is no matter: other work may hold the machine.
many = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])

BT709 = ColorTags("bt709", "bt709", "bt709", full_range=False)
PQ = ColorTags("bt2020nc", "bt2020", "smpte2084", full_range=False)
HLG = ColorTags("bt2020nc", "bt2020", "arib-std-b67", full_range=False)

OF_A_JOIN: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 2.5, "additional_loras": {"style": 0.5}}
OF_ALL: dict[str, Any] = {"time_stride": 2, "generation_resolution": [320, 160]}
SPECS = {
    "gap_only": ModelSpec("gap_only", "1", renders_context=False),
    "free": ModelSpec("free", "1", renders_context=True),
    "phased": ModelSpec("phased", "1", renders_context=True, overrides=frozenset(OF_A_JOIN), step_multiple=3),
    "windowed": ModelSpec(
        "windowed", "1", renders_context=True, window=WindowRule(4, 81), overrides=frozenset({*OF_A_JOIN, *OF_ALL})
    ),
}

Shown = tuple[str, int, int]
"""One frame of an output: ("clip", clip, frame) or ("join", join, frame of its transition)."""


def make_clip(index: int = 0, frame_count: int = 100, **changes: Any) -> Clip:
    rate = changes.get("rate", Fraction(25))
    values: dict[str, Any] = {
        "index": index,
        "name": f"{'abcdef'[index]}.mp4",
        "path": f"/clips/{index}.mp4",
        "identity": ClipIdentity(size_bytes=1000 + index, mtime_ns=1, sha256=f"{index:064x}"),
        "container": "mov,mp4",
        "codec": "h264",
        "width": 640,
        "height": 360,
        "rotation": 0,
        "sample_aspect_ratio": Fraction(1),
        "pixel_format": "yuv420p",
        "bit_depth": 8,
        "color": BT709,
        "is_interlaced": False,
        "rate": rate,
        "is_constant_rate": True,
        "frame_count": frame_count,
        "duration_seconds": frame_count / rate,
        "time_base": Fraction(1, 12800),
        "first_pts": 0,
        "start_seconds": Fraction(0),
        "sound": None,
    }
    return Clip(**{**values, **changes})


@dataclass(frozen=True)
class Case:
    """A request with the lengths of its clips."""

    request: JoinRequest
    counts: tuple[int, ...]
    cuts: tuple[CutPoints | None, ...] = ()

    @property
    def clips(self) -> list[Clip]:
        cuts = self.cuts or (None,) * len(self.counts)
        return [make_clip(i, count, cut_points=cuts[i]) for i, count in enumerate(self.counts)]

    @property
    def joins(self) -> range:
        return range(self.request.join_count)

    def plan(self, **limits: Any) -> Timeline:
        return plan_timeline(limit_settings(self.request, limits), self.clips, SPECS)


def make_case(counts: Sequence[int], per_join: Sequence[dict[str, Any]] = (), **parameters: Any) -> Case:
    clip_list = [{"url": f"/clips/{index}.mp4"} for index in range(len(counts))]
    given_settings = {"run_id": "test", "model": "free", "per_join_settings": list(per_join), **parameters}
    return Case(parse_request({"clip_list": clip_list, **given_settings}), tuple(counts))


# ---------------------------------------------------------------------------------------------------------
# The oracle. Nothing here is taken from splice/plan.py.
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seam:
    """What one join does, as the request and its model say."""

    context: int
    gap: int
    blend: int
    gone_left: int
    gone_right: int
    spec: ModelSpec


def seam_of(case: Case, join: int) -> Seam:
    wanted = case.request.settings(join)
    spec = SPECS[wanted.model]
    gap = wanted.gap_frame_count
    gone_left, gone_right = (gap // 2, gap - gap // 2) if wanted.replace_mode else (0, 0)
    blend = wanted.blend_frames if spec.renders_context else 0
    return Seam(wanted.context_frame_count, gap, blend, gone_left, gone_right, spec)


def seams_of_clip(case: Case, clip: int) -> tuple[Seam | None, Seam | None]:
    """The seams before and after a clip."""
    before = seam_of(case, (clip - 1) % len(case.counts)) if clip > 0 or case.request.loop else None
    return before, seam_of(case, clip) if clip in case.joins else None


def expected_output(case: Case, last_join: int) -> list[Shown]:
    """Every frame of join ``last_join``'s output: follow the fate of each source frame through joins 0..last_join."""
    clip_count = len(case.counts)
    fates: list[list[Shown | None]] = [[("clip", i, f) for f in range(n)] for i, n in enumerate(case.counts)]
    gaps: dict[int, list[Shown]] = {}
    for join in range(last_join + 1):
        seam = seam_of(case, join)
        left, right = fates[join], fates[(join + 1) % clip_count]
        kept = len(left) - seam.gone_left
        left[kept:] = [None] * seam.gone_left
        left[kept - seam.blend : kept] = [("join", join, n) for n in range(seam.blend)]
        gaps[join] = [("join", join, seam.blend + n) for n in range(seam.gap)]
        right[: seam.gone_right] = [None] * seam.gone_right
        blended = [("join", join, seam.blend + seam.gap + n) for n in range(seam.blend)]
        right[seam.gone_right : seam.gone_right + seam.blend] = blended
    output: list[Shown] = []
    for clip in range(min(last_join + 2, clip_count)):
        output += [fate for fate in fates[clip] if fate is not None]
        output += gaps.get(clip, [])
    return output


def too_short(case: Case) -> list[tuple[int, int]]:
    """(clip, frames needed) of the clips that can't hold what their two joins take."""
    found = []
    for clip, count in enumerate(case.counts):
        before, after = seams_of_clip(case, clip)
        gone = (before.gone_right if before else 0) + (after.gone_left if after else 0)
        blended = sum(seam.blend for seam in (before, after) if seam)
        if gone + max(1, blended) > count:
            found.append((clip, gone + max(1, blended)))
    return found


def mask_is_kept_right(left: int, gap: int, right: int) -> bool:
    """Wan's mask: one frame is looked up per latent (nearest-exact); frame 0 alone is latent 0, then groups of 4."""
    is_gap = [False] * left + [True] * gap + [False] * right
    groups = [is_gap[:1]] + [is_gap[start : start + 4] for start in range(1, len(is_gap), 4)]
    kept = [group for n, group in enumerate(groups) if not is_gap[int((n + 0.5) * len(is_gap) / len(groups))]]
    inside_left, inside_right = groups[0], groups[-1]
    return not any(any(group) for group in kept) and not any(inside_left) and not any(inside_right)


def expected_window(case: Case, join: int) -> tuple[int, int, int] | None:
    """(context used, left, right) frames that the model is shown; None where no window will do."""
    seam = seam_of(case, join)
    left_has = case.counts[join] - seam.gone_left
    right_has = case.counts[(join + 1) % len(case.counts)] - seam.gone_right
    if seam.spec.window is None:
        return seam.context, min(seam.context, left_has), min(seam.context, right_has)
    for context in range(seam.context, 0, -1):
        multiples = range(4, 1000, 4)
        right = next(n for n in multiples if n >= context)
        if right > right_has:
            right = max((n for n in multiples if n <= right_has), default=4)
        left = next(n for n in itertools.count(max(context, 2)) if (n + seam.gap + right) % 4 == 1)
        fits = left + seam.gap + right <= 81 and mask_is_kept_right(left, seam.gap, right)
        if fits and min(context, left, right) >= seam.blend:
            return context, left, right
    return None


def is_possible(case: Case) -> bool:
    return not too_short(case) and all(expected_window(case, join) for join in case.joins)


def expand(units: Sequence[Unit]) -> list[Shown]:
    shown: list[Shown] = []
    for unit in units:
        kind, number = ("clip", unit.clip) if isinstance(unit, Segment) else ("join", unit.join)
        shown += [(kind, number, frame) for frame in range(unit.frames.start, unit.frames.stop)]
    return shown


# ---------------------------------------------------------------------------------------------------------
# Strategies
# ---------------------------------------------------------------------------------------------------------


@st.composite
def join_settings(draw: st.DrawFn, max_gap: int = 60) -> dict[str, Any]:
    context = draw(st.integers(1, 16))
    return {
        "context_frame_count": context,
        "gap_frame_count": draw(st.integers(1, max_gap)),
        "blend_frames": draw(st.integers(0, min(8, context))),
        "replace_mode": draw(st.booleans()),
        "model": draw(st.sampled_from(sorted(SPECS))),
    }


@st.composite
def cases(draw: st.DrawFn, max_gap: int = 60, max_frames: int = 120) -> Case:
    """Any request, whether its clips are long enough or not."""
    counts = draw(st.lists(st.integers(1, max_frames), min_size=2, max_size=6))
    loop = draw(st.booleans())
    joins = len(counts) - (not loop)
    per_join = draw(st.lists(join_settings(max_gap), min_size=joins, max_size=joins))
    return make_case(counts, per_join, loop=loop)


@st.composite
def cut_points(draw: st.DrawFn, frame_count: int) -> CutPoints:
    """Of a clip that begins with an IDR picture; copies can end where they can begin, and at the end."""
    stops = [True, *draw(st.lists(st.booleans(), min_size=frame_count - 1, max_size=frame_count - 1)), True]
    starts = [True, *(draw(st.booleans()) and stop for stop in stops[1:-1])]
    return CutPoints(bytes(starts), bytes(stops), 1)


@st.composite
def possible_cases(draw: st.DrawFn) -> Case:
    """Requests whose clips are long enough, often by nothing to spare."""
    case = draw(cases())
    needed = dict(too_short(Case(case.request, (0,) * len(case.counts))))
    spare = draw(st.lists(st.sampled_from((0, 0, 1, 2, 3, 5, 8, 13, 44)), min_size=len(needed), max_size=len(needed)))
    counts = tuple(needed[clip] + spare[clip] for clip in range(len(case.counts)))
    cuts = tuple(draw(st.none() | cut_points(count)) for count in counts)
    roomy = Case(case.request, counts, cuts)
    assume(is_possible(roomy))
    return roomy


# ---------------------------------------------------------------------------------------------------------
# Which frame comes from where
# ---------------------------------------------------------------------------------------------------------


@many
@given(possible_cases())
def test_every_join_s_output_is_what_the_words_say_frame_by_frame(case: Case) -> None:
    timeline = case.plan()
    assert [join.name for join in timeline.joins] == [f"join_{k}" for k in case.joins]
    for index, join in enumerate(timeline.joins):
        assert expand(join.output) == expected_output(case, index)


@many
@given(possible_cases())
def test_concatenated_packets_are_the_output_at_every_join(case: Case) -> None:
    shown: list[Shown] = []
    timeline = case.plan()
    for join in timeline.joins:
        assert (join.kept is None) == (join is timeline.joins[0])
        if join.kept is not None:
            assert join.kept.stop <= len(shown)
            shown = shown[join.kept.start : join.kept.stop]
        shown = expand(join.before) + shown + expand(join.after)
        assert shown == expand(join.output)
        assert join.frame_count == len(shown)


@many
@given(possible_cases())
def test_every_source_frame_outside_gaps_and_blends_is_shown_once_in_order(case: Case) -> None:
    timeline = case.plan()
    shown = [(clip, frame) for kind, clip, frame in expand(timeline.joins[-1].output) if kind == "clip"]
    expected = []
    for clip, count in enumerate(case.counts):
        before, after = seams_of_clip(case, clip)
        start = before.gone_right + before.blend if before else 0
        stop = count - (after.gone_left + after.blend if after else 0)
        expected += [(clip, frame) for frame in range(start, stop)]
    assert shown == expected


@many
@given(possible_cases())
def test_totals_are_the_clips_and_the_inserted_gaps_at_every_join(case: Case) -> None:
    for index, join in enumerate(case.plan().joins):
        clips = case.counts[: index + 2]
        done = [case.request.settings(earlier) for earlier in range(index + 1)]
        inserted = sum(one.gap_frame_count for one in done if not one.replace_mode)
        assert join.frame_count == sum(clips) + inserted


@many
@given(possible_cases())
def test_every_unit_is_made_once_and_comes_in_with_one_join(case: Case) -> None:
    timeline = case.plan()
    names = [unit.name for join in timeline.joins for unit in join.new_units]
    assert len(names) == len(set(names)) == len(timeline.units)
    assert all(unit.frame_count > 0 for unit in timeline.units)
    known: set[Unit] = set()
    for join in timeline.joins:
        known.update(join.new_units)
        assert set(join.output) <= known
    for transition in timeline.transitions:
        pieces = timeline.pieces_of(transition)
        assert expand(pieces) == [("join", transition.join, n) for n in range(transition.frame_count)]
    source_frames = expand([unit for unit in timeline.units if isinstance(unit, Segment) and not unit.is_copied])
    assert len(source_frames) == len(set(source_frames)), "a source frame is encoded in two units"


@many
@given(possible_cases())
def test_what_the_final_video_loses_is_interim_and_what_it_shows_is_not(case: Case) -> None:
    timeline = case.plan()
    final = set(timeline.joins[-1].output)
    for unit in timeline.units:
        if isinstance(unit, Segment):
            assert (unit in final) == (unit.role not in ("head", "tail"))


@many
@given(possible_cases(), st.sampled_from(["sequential", "parallel"]))
def test_copies_begin_and_end_at_cut_points_and_nothing_is_encoded_that_could_be_copied(
    case: Case, strategy: str
) -> None:
    timeline = dataclasses.replace(case, request=case.request.model_copy(update={"strategy": strategy})).plan()
    for unit in timeline.joins[-1].output:
        cuts = case.clips[unit.clip].cut_points if isinstance(unit, Segment) else None
        if not isinstance(unit, Segment) or cuts is None:
            assert not unit.is_copied
            continue
        inside = range(unit.frames.start, unit.frames.stop)
        starts, stops = [n for n in inside if cuts.starts[n]], [n + 1 for n in inside if cuts.stops[n + 1]]
        if unit.is_copied:
            assert unit.frames.start in starts and unit.frames.stop in stops
        else:
            assert not any(start < stop for start in starts for stop in stops), "these frames could be copied"


@many
@given(possible_cases())
def test_a_stitch_shows_what_the_chain_ends_with(case: Case) -> None:
    parallel = case.request.model_copy(update={"strategy": "parallel"})
    (stitch,) = dataclasses.replace(case, request=parallel).plan().joins
    chain = case.plan()
    assert stitch.output == stitch.new_units == chain.joins[-1].output
    assert stitch.transitions == chain.transitions


# ---------------------------------------------------------------------------------------------------------
# What the model sees and what is blended
# ---------------------------------------------------------------------------------------------------------


@many
@given(possible_cases())
def test_contexts_are_nearest_the_seam_outside_of_what_is_removed_and_padded_to_the_window(case: Case) -> None:
    for transition in case.plan().transitions:
        seam = seam_of(case, transition.join)
        window = expected_window(case, transition.join)
        assert window is not None
        _, wanted_left, wanted_right = window
        left_clip, right_clip = transition.join, (transition.join + 1) % len(case.counts)
        left_frames = list(range(case.counts[left_clip] - seam.gone_left))[-wanted_left:]
        right_frames = list(range(seam.gone_right, case.counts[right_clip]))[:wanted_right]
        assert (transition.left.clip, transition.right.clip) == (left_clip, right_clip)
        assert list(range(transition.left.frames.start, transition.left.frames.stop)) == left_frames
        assert list(range(transition.right.frames.start, transition.right.frames.stop)) == right_frames
        assert left_frames and right_frames
        assert transition.left.padding == wanted_left - len(left_frames)
        assert transition.right.padding == wanted_right - len(right_frames)
        assert transition.gap_frame_count == seam.gap


@many
@given(possible_cases())
def test_ranges_stay_inside_their_clips_and_blends_inside_what_the_model_sees(case: Case) -> None:
    timeline = case.plan()
    for transition in timeline.transitions:
        seam = seam_of(case, transition.join)
        left_count = timeline.frame_counts[transition.left.clip]
        right_count = timeline.frame_counts[transition.right.clip]
        assert (transition.removed_left.stop, len(transition.removed_left)) == (left_count, seam.gone_left)
        assert (transition.removed_right.start, len(transition.removed_right)) == (0, seam.gone_right)
        assert transition.left.frames.stop == transition.blend_left.stop == transition.removed_left.start
        assert transition.right.frames.start == transition.blend_right.start == transition.removed_right.stop
        assert transition.left.frames.start <= transition.blend_left.start
        assert transition.blend_right.stop <= transition.right.frames.stop <= right_count
        assert (len(transition.blend_left), len(transition.blend_right)) == (seam.blend, seam.blend)


@many
@given(possible_cases())
def test_a_model_that_renders_the_gap_alone_has_nothing_to_blend(case: Case) -> None:
    for transition in case.plan().transitions:
        blends = len(transition.blend_left) + len(transition.blend_right)
        wanted = transition.settings.blend_frames
        assert blends == (2 * wanted if transition.spec.renders_context else 0)


@many
@given(possible_cases())
def test_windows_have_4n_plus_1_frames_around_the_exact_gap_and_shrink_with_a_note(case: Case) -> None:
    for transition in case.plan().transitions:
        seam = seam_of(case, transition.join)
        window = expected_window(case, transition.join)
        assert window is not None
        if seam.spec.window is None:
            assert transition.notes == ()
            continue
        left, right = len(transition.left), len(transition.right)
        assert (left + seam.gap + right) % 4 == 1 and left + seam.gap + right <= 81
        assert right % 4 == 0 and right >= 4 and left >= max(window[0], 2)
        assert mask_is_kept_right(left, seam.gap, right)
        if window[0] == seam.context:
            assert transition.notes == ()
        else:
            assert transition.notes == (
                f"context shrunk from {seam.context} to {window[0]} frames to fit a window of 81",
            )


# ---------------------------------------------------------------------------------------------------------
# By hand
# ---------------------------------------------------------------------------------------------------------


def spans(*ranges: Any) -> list[tuple[int, int]]:
    return [(one.start, one.stop) for one in ranges]


def test_insert_by_hand() -> None:
    timeline = make_case([10, 20, 10], gap_frame_count=5, blend_frames=2).plan()
    assert timeline.frame_count == 10 + 5 + 20 + 5 + 10
    assert [(unit.name, unit.frames.start, unit.frames.stop) for unit in timeline.joins[0].output] == [
        ("clip_0_body", 0, 8),
        ("join_0_transition", 0, 9),
        ("clip_1_body", 2, 18),
        ("clip_1_tail", 18, 20),
    ]
    last = timeline.joins[1]
    assert last.kept is not None and spans(last.kept) == [(0, 33)]
    assert [(unit.name, unit.frames.start, unit.frames.stop) for unit in last.after] == [
        ("join_1_transition", 0, 9),
        ("clip_2_body", 2, 10),
    ]


def test_replace_by_hand_takes_the_larger_half_of_an_odd_gap_from_the_right() -> None:
    timeline = make_case([20, 30], gap_frame_count=7, blend_frames=2, replace_mode=True).plan()
    transition = timeline.transitions[0]
    assert timeline.frame_count == 50
    assert spans(transition.removed_left, transition.removed_right) == [(17, 20), (0, 4)]
    assert spans(transition.blend_left, transition.blend_right) == [(15, 17), (4, 6)]
    assert spans(transition.left.frames, transition.right.frames) == [(9, 17), (4, 12)]


def test_loop_by_hand_replaces_the_head_and_the_tail() -> None:
    timeline = make_case([20, 30], gap_frame_count=6, blend_frames=2, replace_mode=True, loop=True).plan()
    first, closing = timeline.joins
    assert (first.frame_count, closing.frame_count) == (50, 50)
    assert [unit.name for unit in first.output] == [
        "clip_0_head",
        "clip_0_body",
        "join_0_transition",
        "clip_1_body",
        "clip_1_tail",
    ]
    assert closing.kept is not None and spans(closing.kept) == [(5, 45)]
    assert [(unit.name, unit.frames.start, unit.frames.stop) for unit in closing.new_units] == [
        ("join_1_transition_head", 8, 10),
        ("join_1_transition", 0, 8),
    ]


@pytest.mark.parametrize(
    ("counts", "context", "gap", "left", "right"),
    [
        ([100, 100], 8, 53, 8, 8),  # 69 = 4 * 17 + 1
        ([100, 100], 8, 54, 11, 8),  # 8 would make 70
        ([100, 100], 1, 8, 5, 4),  # left is never 1: 1 + 8 + 4 is 4n + 1, but 1 frame holds no latent
        ([100, 7], 8, 53, 8, 4),  # 7 rounded down to whole groups
        ([100, 3], 8, 53, 8, 4),  # never below one group: the last frame is repeated
        ([3, 100], 8, 53, 8, 8),
        ([100, 100], 16, 60, 9, 12),  # 16 + 60 + 16 is above 81; 9 is the most that fits
        ([100, 7], 12, 1, 8, 4),  # 12 + 1 + 4: the pipeline's mask would lose the gap
    ],
)
def test_windows_by_hand(counts: list[int], context: int, gap: int, left: int, right: int) -> None:
    case = make_case(counts, model="windowed", context_frame_count=context, gap_frame_count=gap, blend_frames=0)
    transition = case.plan().transitions[0]
    assert (len(transition.left), len(transition.right)) == (left, right)
    assert (transition.left.padding, transition.right.padding) == (max(0, left - counts[0]), max(0, right - counts[1]))


@pytest.mark.parametrize(
    ("counts", "context", "gap", "stride", "left", "right"),
    [
        ([200, 200], 8, 53, 2, 21, 15),  # 26 of the gap are made: 11 + 26 + 8 is 45
        ([200, 200], 8, 120, 2, 17, 15),  # more than the longest window of its own rate
        ([200, 200], 8, 53, 4, 29, 29),  # 13 of the gap, unevenly: 54 is no multiple of 4
        ([200, 20], 8, 53, 4, 29, 13),  # 5 of the clip are on the grid, rounded down to a whole group
        ([200, 200], 2, 1, 3, 10, 10),  # at least one frame of the gap is made
    ],
)
def test_windows_with_a_stride_by_hand(
    counts: list[int], context: int, gap: int, stride: int, left: int, right: int
) -> None:
    settings = {"context_frame_count": context, "gap_frame_count": gap, "time_stride": stride, "blend_frames": 2}
    transition = make_case(counts, model="windowed", **settings).plan().transitions[0]
    assert (len(transition.left), len(transition.right)) == (left, right)
    assert (transition.left.padding, transition.right.padding) == (max(0, left - counts[0]), max(0, right - counts[1]))


# ---------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------


def refusal(case: Case, **limits: Any) -> RequestError | None:
    try:
        case.plan(**limits)
    except RequestError as error:
        return error
    return None


tight_cases = st.one_of(cases(max_gap=90, max_frames=60), cases(max_gap=90, max_frames=8), cases(max_gap=100))


@settings(many, max_examples=200)
@given(tight_cases)
def test_a_plan_is_refused_exactly_where_the_words_say(case: Case) -> None:
    assert (refusal(case) is None) == is_possible(case)


@settings(many, max_examples=200)
@given(tight_cases)
def test_a_refusal_says_what_does_not_fit_and_the_largest_setting_that_does(case: Case) -> None:
    error = refusal(case)
    assume(error is not None)
    assert error is not None
    message, remedy = str(error), dict(error.remedy)
    short = too_short(case)
    if short:
        clip, needed = short[0]
        assert message.startswith(f"clip {clip} ({'abcdef'[clip]}.mp4) is too short: ")
        assert f"has {case.counts[clip]} frames" in message and f"need {needed} " in message
    else:
        join = next(join for join in case.joins if not expected_window(case, join))
        assert message.startswith(f"join {join}: ")
        assert "needs a window of" in message or "too short" in message
    assert remedy and set(remedy) <= {"gap_frame_count", "blend_frames", "replace_mode"}
    said = {"replace_mode": "replace_mode false"}
    for name, value in remedy.items():
        assert said.get(name, f"{name} of at most {value}") in message
    assert refusal(case, **remedy) is None
    for name in {"gap_frame_count", "blend_frames"} & set(remedy):
        assert refusal(case, **{**remedy, name: remedy[name] + 1}) is not None, f"{name} could be larger"
    if "replace_mode" in remedy:
        assert refusal(case, gap_frame_count=1, blend_frames=0) is not None, "replace_mode could have been kept"


@pytest.mark.parametrize(
    ("case", "message", "remedy"),
    [
        (
            make_case([100, 20, 100], gap_frame_count=30, replace_mode=True, blend_frames=2),
            "clip 1 (b.mp4) is too short: it has 20 frames at the timeline's rate, but its joins need 34 "
            "(15 + 15 replaced, 2 + 2 blended, at least 1 kept); "
            "what works: gap_frame_count of at most 16 at every join",
            {"gap_frame_count": 16},
        ),
        (
            make_case([100, 7, 100], gap_frame_count=10, blend_frames=5),
            "clip 1 (b.mp4) is too short: it has 7 frames at the timeline's rate, but its joins need 10 "
            "(0 + 0 replaced, 5 + 5 blended, at least 1 kept); what works: blend_frames of at most 3 at every join",
            {"blend_frames": 3},
        ),
        (
            make_case([9, 9], gap_frame_count=40, replace_mode=True, blend_frames=8, context_frame_count=8, loop=True),
            "clip 0 (a.mp4) is too short: it has 9 frames at the timeline's rate, but its joins need 56 "
            "(20 + 20 replaced, 8 + 8 blended, at least 1 kept); "
            "what works: blend_frames of at most 0 and gap_frame_count of at most 8 at every join",
            {"blend_frames": 0, "gap_frame_count": 8},
        ),
        (
            make_case([100, 5], gap_frame_count=40, replace_mode=True, blend_frames=8),
            "clip 1 (b.mp4) is too short: it has 5 frames at the timeline's rate, but its joins need 28 "
            "(20 + 0 replaced, 8 + 0 blended, at least 1 kept); "
            "what works: blend_frames of at most 1 and gap_frame_count of at most 8 at every join",
            {"blend_frames": 1, "gap_frame_count": 8},
        ),
        (
            make_case([50, 1, 50], gap_frame_count=9, replace_mode=True, blend_frames=0),
            "clip 1 (b.mp4) is too short: it has 1 frames at the timeline's rate, but its joins need 10 "
            "(5 + 4 replaced, 0 + 0 blended, at least 1 kept); what works: replace_mode false at every join",
            {"replace_mode": False},
        ),
        (
            make_case([100, 100], model="windowed", gap_frame_count=90, blend_frames=3),
            "join 0: a gap of 90 frames with 3 blended on each side needs a window of 97 frames, "
            "but windowed has one of 81 frames at most; a time_stride above 1 models fewer of them; "
            "what works: gap_frame_count of at most 74 at every join",
            {"gap_frame_count": 74},
        ),
        (
            make_case([100, 7], model="windowed", blend_frames=5),
            "join 0: the right clip is too short: it has 7 frames beyond the gap, of which windowed sees 4 "
            "(whole groups of 4), but 5 are needed to blend; what works: blend_frames of at most 4 at every join",
            {"blend_frames": 4},
        ),
    ],
    ids=["gap", "blend", "loop", "both", "replace", "window", "whole-groups"],
)
def test_refusals_by_hand(case: Case, message: str, remedy: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        case.plan()
    assert str(caught.value) == message
    assert caught.value.remedy == remedy


@pytest.mark.parametrize("name", OF_A_JOIN)
def test_an_override_that_the_model_does_not_read_is_refused(name: str) -> None:
    taken = make_case([100, 100, 100], [{}, {name: OF_A_JOIN[name], "model": "windowed"}])
    assert taken.plan().transitions[1].settings == taken.request.settings(1)
    with pytest.raises(RequestError, match=rf"join 1: model free has no {name} to override; leave it out") as caught:
        make_case([100, 100, 100], [{}, {name: OF_A_JOIN[name]}]).plan()
    assert caught.value.remedy == {}


@pytest.mark.parametrize("name", OF_ALL)
def test_a_setting_of_diffusion_models_is_refused_with_others(name: str) -> None:
    assert make_case([100, 100], model="windowed", **{name: OF_ALL[name]}).plan()
    with pytest.raises(RequestError, match=rf"join 0: model free has no {name} to override; leave it out"):
        make_case([100, 100], **{name: OF_ALL[name]}).plan()


def test_steps_that_the_phases_of_a_model_do_not_divide_are_refused() -> None:
    case = make_case([100, 100], model="phased", num_inference_steps=8)
    with pytest.raises(RequestError, match=r"join 0: num_inference_steps is 8, but .* needed is a multiple of 3"):
        case.plan()
    assert make_case([100, 100], model="phased", num_inference_steps=9).plan()


@given(cases(), st.integers(1, 60), st.integers(0, 8))
@many
def test_limits_hold_at_every_join_and_change_nothing_else(case: Case, gap: int, blend: int) -> None:
    limited = limit_settings(case.request, {"gap_frame_count": gap, "blend_frames": blend, "replace_mode": False})
    for join in case.joins:
        before, after = case.request.settings(join), limited.settings(join)
        assert after == dataclasses.replace(
            before,
            gap_frame_count=min(gap, before.gap_frame_count),
            blend_frames=min(blend, before.blend_frames),
            replace_mode=False,
        )


# ---------------------------------------------------------------------------------------------------------
# Digests: what a change reaches, and what it does not
# ---------------------------------------------------------------------------------------------------------


@many
@given(possible_cases())
def test_planning_twice_gives_equal_timelines_and_digests(case: Case) -> None:
    first, second = case.plan(), case.plan()
    assert first == second
    digests = step_digests(first)
    assert digests == step_digests(second)
    made = {unit.step for unit in first.units if not unit.is_copied}
    assert set(digests) == made | {f"join_{join}" for join in case.joins}
    assert len(set(digests.values())) == len(digests)


def print_digests() -> None:
    case = make_case([100, 100], model="windowed", additional_loras={"b": 1.0, "a": 0.5})
    print(step_digests(case.plan()))


def test_digests_do_not_depend_on_the_process() -> None:
    """Hashes of strings differ from process to process, and with them the order of sets."""
    command = [sys.executable, "-c", "from tests.test_plan import print_digests; print_digests()"]
    root = Path(__file__).resolve().parent.parent
    said = {
        subprocess.run(command, cwd=root, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1 and b"join_0_transition" in said.pop()


def changed_steps(before: Timeline, after: Timeline) -> set[str]:
    old, new = step_digests(before), step_digests(after)
    return {step for step in old.keys() | new.keys() if old.get(step) != new.get(step)}


def clip_units(timeline: Timeline, clip: int) -> set[str]:
    return {unit.name for unit in timeline.units if isinstance(unit, Segment) and unit.clip == clip}


def with_joins(case: Case, steps: set[str], first_join: int) -> set[str]:
    return steps | {f"join_{join}" for join in case.joins if join >= first_join}


CHAINS = st.tuples(st.integers(2, 6), st.booleans(), st.booleans())
"""Number of clips, loop, replace_mode."""


def long_case(chain: tuple[int, bool, bool], join: int = 0, **override: Any) -> Case:
    """Clips of 100 frames, blends everywhere; ``override`` at one join."""
    clip_count, loop, replace_mode = chain
    per_join = [override if k == join else {} for k in range(join + 1)] if override else []
    return make_case(
        [100] * clip_count, per_join, loop=loop, replace_mode=replace_mode, gap_frame_count=20, model="windowed"
    )


@many
@given(CHAINS, st.integers(0, 5))
def test_prompt_seed_and_context_reach_their_transition_and_the_joins_from_there(
    chain: tuple[int, bool, bool], join: int
) -> None:
    case = long_case(chain)
    join %= case.request.join_count
    expected = with_joins(case, {f"join_{join}_transition"}, join)
    overrides: tuple[dict[str, Any], ...] = (
        {"prompt": "fog"},
        {"negative_prompt": "text"},
        {"seed": 7},
        {"context_frame_count": 12},
        {"num_inference_steps": 8},
        {"guidance_scale": 1.5},
        {"additional_loras": {"style": 0.5}},
        {"model": "free"},
    )
    for override in overrides:
        assert changed_steps(case.plan(), long_case(chain, join, **override).plan()) == expected, override


@many
@given(CHAINS, st.integers(0, 5), st.sampled_from([{"gap_frame_count": 23}, {"blend_frames": 5}]))
def test_gap_and_blend_reach_the_transition_and_the_pieces_of_its_clips_that_they_cut(
    chain: tuple[int, bool, bool], join: int, override: dict[str, int]
) -> None:
    case = long_case(chain)
    join %= case.request.join_count
    before, after = case.plan(), long_case(chain, join, **override).plan()
    expected = {f"join_{join}_transition"}
    first_join = join
    left, right = join, (join + 1) % len(case.counts)
    if "blend_frames" in override or case.request.settings(join).replace_mode:
        # The left clip's cut moves its body and the tail that stands there until then, the right clip's its
        # body and, where a loop closes, the head; what is cut at a clip's other end stays.
        expected |= {f"clip_{left}_body", f"clip_{right}_body"}
        expected |= {f"clip_{left}_tail"} if left > 0 else {"clip_0_body"}
        expected |= {"clip_0_head"} if right == 0 else set()
        first_join = 0 if right == 0 else max(0, join - 1)
    assert changed_steps(before, after) == with_joins(case, expected, first_join)


@many
@given(CHAINS, st.integers(0, 5))
def test_a_clip_s_content_reaches_its_units_its_transitions_and_the_joins_from_its_first(
    chain: tuple[int, bool, bool], clip: int
) -> None:
    case = long_case(chain)
    clip %= len(case.counts)
    before = case.plan()
    clips = case.clips
    clips[clip] = dataclasses.replace(clips[clip], identity=ClipIdentity(1, 1, "f" * 64))
    after = plan_timeline(case.request, clips, SPECS)
    touching = [join for join in case.joins if clip in (join, (join + 1) % len(case.counts))]
    expected = clip_units(before, clip) | {f"join_{join}_transition" for join in touching}
    assert changed_steps(before, after) == with_joins(case, expected, max(0, clip - 1))


@many
@given(CHAINS, st.integers(0, 5))
def test_a_model_s_revision_reaches_only_the_transitions_it_renders(chain: tuple[int, bool, bool], join: int) -> None:
    join %= long_case(chain).request.join_count
    case = long_case(chain, join, model="free")
    revised = {**SPECS, "free": dataclasses.replace(SPECS["free"], revision="2")}
    after = plan_timeline(case.request, case.clips, revised)
    assert changed_steps(case.plan(), after) == with_joins(case, {f"join_{join}_transition"}, join)


def test_a_clip_s_file_name_and_time_reach_nothing() -> None:
    case = make_case([100, 100])
    clips = case.clips
    clips[1] = dataclasses.replace(
        clips[1], name="z.mp4", path="/moved.mp4", identity=dataclasses.replace(clips[1].identity, mtime_ns=2)
    )
    assert changed_steps(case.plan(), plan_timeline(case.request, clips, SPECS)) == set()


def test_the_format_reaches_every_step() -> None:
    case = make_case([100, 100, 100])
    other = dataclasses.replace(case, request=case.request.model_copy(update={"resolution": [320, 180]}))
    assert changed_steps(case.plan(), other.plan()) == set(step_digests(case.plan()))


# ---------------------------------------------------------------------------------------------------------
# The format
# ---------------------------------------------------------------------------------------------------------


def format_of(*clips: Clip, **parameters: Any) -> VideoFormat:
    return choose_format(make_case([1] * max(2, len(clips)), **parameters).request, clips)


def size_of(video_format: VideoFormat) -> tuple[int, int]:
    return video_format.width, video_format.height


def test_the_format_is_the_first_clip_s() -> None:
    first = make_clip(0, width=1280, height=720, rate=Fraction(24000, 1001))
    chosen = format_of(first, make_clip(1, width=640, height=480, rate=Fraction(50), codec="hevc", bit_depth=10))
    assert chosen == VideoFormat("h264", 1280, 720, Fraction(24000, 1001), 8, BT709)
    assert conform_reasons(first, chosen) == ()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (1920, 1080)),
        ({"aspect_ratio": "16:9"}, (1920, 1080)),
        ({"aspect_ratio": "4:3"}, (1440, 1080)),
        ({"aspect_ratio": "1:1"}, (1080, 1080)),
        ({"aspect_ratio": "64:27"}, (1920, 810)),
        ({"aspect_ratio": "2:1"}, (1920, 960)),
        ({"resolution": [853, 480]}, (852, 480)),
        ({"resolution": [640, 361]}, (640, 360)),
        ({"resolution": [854, 480], "aspect_ratio": "16:9"}, (854, 480)),
        ({"resolution": [1080, 1920], "aspect_ratio": "9:16"}, (1080, 1920)),
        ({"resolution": [910, 100], "aspect_ratio": "9:1"}, (910, 100)),  # the height is 1.1 off: a matter of rounding
        ({"resolution": [3, 2]}, (2, 2)),
    ],
)
def test_sizes_are_cropped_from_the_first_clip_or_as_asked_and_even(
    parameters: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert size_of(format_of(make_clip(0, width=1920, height=1080), make_clip(1), **parameters)) == expected


def test_odd_sizes_of_the_first_clip_are_rounded_down() -> None:
    assert size_of(format_of(make_clip(0, width=641, height=359), make_clip(1))) == (640, 358)


@many
@given(st.integers(2, 4096), st.integers(2, 4096), st.integers(1, 64), st.integers(1, 64))
def test_a_centre_crop_lies_inside_the_picture_and_has_its_aspect_to_a_pixel(
    width: int, height: int, across: int, down: int
) -> None:
    chosen = format_of(make_clip(0, width=width, height=height), make_clip(1), aspect_ratio=f"{across}:{down}")
    assert chosen.width % 2 == chosen.height % 2 == 0
    assert 2 <= chosen.width <= width and 2 <= chosen.height <= height
    # The largest such rectangle: one side is the picture's, the other follows from the aspect.
    exact_width, exact_height = min(width, height * across / down), min(height, width * down / across)
    assert chosen.width == pytest.approx(max(2, exact_width), abs=2)
    assert chosen.height == pytest.approx(max(2, exact_height), abs=2)


@pytest.mark.parametrize("resolution", [[640, 480], [1080, 1920], [1920, 1076], [1910, 1080]])
def test_an_aspect_that_contradicts_the_resolution_is_refused(resolution: list[int]) -> None:
    message = f"aspect_ratio 16:9 and resolution {resolution[0]}x{resolution[1]} contradict .* leave one of them out"
    with pytest.raises(RequestError, match=message):
        format_of(make_clip(0), make_clip(1), aspect_ratio="16:9", resolution=resolution)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_rotation_that_all_share_is_kept_as_metadata(rotation: int) -> None:
    chosen = format_of(make_clip(0, rotation=rotation), make_clip(1, rotation=rotation))
    assert (chosen.rotation, size_of(chosen)) == (rotation, (640, 360))
    assert conform_reasons(make_clip(1, rotation=rotation), chosen) == ()


@pytest.mark.parametrize(
    ("rotation", "expected"), [(90, (360, 640)), (180, (640, 360)), (270, (360, 640)), (0, (640, 360))]
)
def test_clips_that_are_turned_differently_are_shown_upright(rotation: int, expected: tuple[int, int]) -> None:
    other = 90 if rotation == 0 else 0
    chosen = format_of(make_clip(0, rotation=rotation), make_clip(1, rotation=other))
    assert (chosen.rotation, size_of(chosen)) == (0, expected)


def test_resolution_and_aspect_speak_of_the_picture_as_shown() -> None:
    turned = [make_clip(0, rotation=90), make_clip(1, rotation=90)]  # shown 360 wide, 640 high
    assert size_of(format_of(*turned, resolution=[180, 320])) == (320, 180)
    assert size_of(format_of(*turned, aspect_ratio="1:1")) == (360, 360)
    assert size_of(format_of(*turned, aspect_ratio="3:4")) == (480, 360)
    assert format_of(*turned, aspect_ratio="1:1").rotation == 90


def anamorphic(index: int, aspect: Fraction = Fraction(4, 3), **changes: Any) -> Clip:
    return make_clip(index, width=1440, height=1080, sample_aspect_ratio=aspect, **changes)


def test_a_sample_aspect_that_all_share_is_kept() -> None:
    chosen = format_of(anamorphic(0), anamorphic(1))
    assert (chosen.sample_aspect_ratio, size_of(chosen)) == (Fraction(4, 3), (1440, 1080))
    assert conform_reasons(anamorphic(1), chosen) == ()


@pytest.mark.parametrize(
    ("second", "parameters", "expected"),
    [
        (make_clip(1), {}, (1920, 1080)),
        (anamorphic(1), {"aspect_ratio": "1:1"}, (1080, 1080)),
        (anamorphic(1), {"resolution": [1280, 720]}, (1280, 720)),
    ],
)
def test_pixels_are_square_where_sample_aspects_differ_or_a_size_is_asked_for(
    second: Clip, parameters: dict[str, Any], expected: tuple[int, int]
) -> None:
    chosen = format_of(anamorphic(0), second, **parameters)
    assert (chosen.sample_aspect_ratio, size_of(chosen)) == (1, expected)


def test_a_turn_lays_the_sample_aspect_on_its_side() -> None:
    turned = anamorphic(0, rotation=90)
    assert format_of(turned, anamorphic(1, rotation=90)).sample_aspect_ratio == Fraction(4, 3)
    mixed = format_of(turned, anamorphic(1))
    assert (mixed.rotation, mixed.sample_aspect_ratio, size_of(mixed)) == (0, 1, (1080, 1920))
    alike = format_of(turned, anamorphic(1, rotation=270))
    assert (alike.rotation, alike.sample_aspect_ratio, size_of(alike)) == (0, Fraction(3, 4), (1080, 1440))


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (Fraction(291, 10), Fraction(30000, 1001)),
        (Fraction(2999, 100), Fraction(30)),
        (Fraction(2398, 100), Fraction(24000, 1001)),
        (Fraction(26), Fraction(25)),
        (Fraction(1), Fraction(12)),
        (Fraction(200), Fraction(120)),
    ],
)
def test_where_the_first_clip_s_rate_varies_the_nearest_standard_rate_is_taken(
    mean: Fraction, expected: Fraction
) -> None:
    varying = make_clip(0, rate=mean, is_constant_rate=False)
    chosen = format_of(varying, make_clip(1))
    assert chosen.rate == expected
    assert conform_reasons(varying, chosen) == (f"rate varying -> {expected}",)


def test_a_constant_rate_is_kept_even_if_it_is_no_standard_one() -> None:
    assert format_of(make_clip(0, rate=Fraction(17)), make_clip(1)).rate == 17
    assert format_of(make_clip(0), make_clip(1, rate=Fraction(30), is_constant_rate=False)).rate == 25


def test_the_rate_that_is_asked_for_comes_first() -> None:
    varying = make_clip(0, rate=Fraction(26), is_constant_rate=False)
    assert format_of(varying, make_clip(1), fps=29.97).rate == Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("codec", "depth", "expected"),
    [
        ("h264", 8, ("h264", 8, "yuv420p")),
        ("hevc", 8, ("hevc", 8, "yuv420p")),
        ("hevc", 10, ("hevc", 10, "yuv420p10le")),
        ("prores", 10, ("h264", 10, "yuv420p10le")),
        ("prores", 12, ("h264", 10, "yuv420p10le")),
        ("vp9", 8, ("h264", 8, "yuv420p")),
    ],
)
def test_codec_and_depth_are_the_first_clip_s_where_mp4_players_know_them(
    codec: str, depth: int, expected: tuple[str, int, str]
) -> None:
    chosen = format_of(make_clip(0, codec=codec, bit_depth=depth), make_clip(1))
    assert (chosen.codec, chosen.bit_depth, chosen.pixel_format) == expected


@pytest.mark.parametrize(("first", "second"), [(PQ, BT709), (BT709, PQ), (BT709, HLG), (PQ, HLG)])
def test_hdr_mixed_with_another_transfer_is_refused(first: ColorTags, second: ColorTags) -> None:
    with pytest.raises(RequestError, match=r"clip \d \([ab].mp4\) is HDR .* but clip \d .*; convert one of them"):
        format_of(make_clip(0, color=first), make_clip(1, color=second))


def test_hdr_alone_is_kept() -> None:
    ten_bit = {"codec": "hevc", "bit_depth": 10, "pixel_format": "yuv420p10le"}
    clips = [make_clip(0, color=PQ, **ten_bit), make_clip(1, color=PQ, **ten_bit)]
    assert format_of(*clips).color == PQ
    assert conform_reasons(clips[1], format_of(*clips)) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 320}, "size 320x360 -> 640x360"),
        ({"rate": Fraction(30000, 1001)}, "rate 30000/1001 -> 25"),
        ({"is_constant_rate": False}, "rate varying -> 25"),
        ({"pixel_format": "yuv422p"}, "pixel format yuv422p -> yuv420p"),
        ({"rotation": 180}, "rotation 180 -> 0"),
        ({"sample_aspect_ratio": Fraction(4, 3)}, "sample aspect 4/3 -> 1"),
        ({"color": dataclasses.replace(BT709, matrix="bt470bg")}, "matrix smpte170m -> bt709"),
        ({"color": dataclasses.replace(BT709, primaries="smpte170m")}, "primaries smpte170m -> bt709"),
        ({"color": dataclasses.replace(BT709, transfer="gamma22")}, "transfer gamma22 -> bt709"),
        ({"color": dataclasses.replace(BT709, full_range=True)}, "range full -> limited"),
        ({"is_interlaced": True}, "interlaced"),
    ],
)
def test_whatever_differs_is_a_reason_to_conform_and_nothing_else_is(changes: dict[str, Any], reason: str) -> None:
    chosen = format_of(make_clip(0), make_clip(1))
    assert conform_reasons(make_clip(1, **changes), chosen) == (reason,)


@pytest.mark.parametrize(
    "changes",
    [
        {"pixel_format": "yuvj420p"},
        {"color": dataclasses.replace(BT709, transfer="smpte170m")},
        {"color": dataclasses.replace(BT709, assumed=("matrix",))},
    ],
)
def test_other_names_of_the_same_are_no_reason_to_conform(changes: dict[str, Any]) -> None:
    assert conform_reasons(make_clip(1, **changes), format_of(make_clip(0), make_clip(1))) == ()


@many
@given(
    st.integers(1, 10_000),
    st.sampled_from([Fraction(n) for n in (10, 24, 25, 30, 60)] + [Fraction(24000, 1001), Fraction(30000, 1001)]),
    st.sampled_from([Fraction(n) for n in (12, 25, 30, 120)] + [Fraction(60000, 1001)]),
    st.booleans(),
)
def test_a_conformed_clip_has_the_nearest_whole_number_of_frames(
    frame_count: int, rate: Fraction, to: Fraction, is_constant: bool
) -> None:
    clip = make_clip(0, frame_count, rate=rate, is_constant_rate=is_constant)
    count = conformed_frame_count(clip, dataclasses.replace(format_of(make_clip(0), make_clip(1)), rate=to))
    exact = clip.duration_seconds * to
    assert count == max(1, math.floor(exact) + (exact % 1 >= Fraction(1, 2)))


def test_a_clip_at_the_timeline_s_rate_keeps_its_counted_frames() -> None:
    """Whatever its container says of its duration: a tick more or less is no frame."""
    clip = make_clip(0, 100, duration_seconds=Fraction(101, 25))
    chosen = format_of(clip, make_clip(1))
    assert conformed_frame_count(clip, chosen) == 100
    varying = dataclasses.replace(clip, is_constant_rate=False)
    assert conformed_frame_count(varying, chosen) == 101


def test_conformed_lengths_are_what_is_planned() -> None:
    clips = [make_clip(0, 100), make_clip(1, 100, rate=Fraction(50))]
    timeline = plan_timeline(make_case([100, 50], gap_frame_count=10).request, clips, SPECS)
    assert timeline.frame_counts == (100, 50)
    assert timeline.frame_count == 160
    assert timeline.conformed == ((), ("rate 50 -> 25",))


# ---------------------------------------------------------------------------------------------------------
# The format of the sound
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sounds", "parameters", "expected"),
    [
        ([None, None], {}, None),
        ([None, Sound("aac", 44100, "mono")], {}, SoundFormat(44100, "mono", "aac")),
        ([Sound("ac3", 32000, "5.1(side)"), Sound("aac", 44100, "mono")], {}, SoundFormat(32000, "5.1(side)", "aac")),
        ([Sound("opus", 48000, "stereo"), None], {"audio": "drop"}, None),
        ([Sound("opus", 48000, "stereo"), None], {"audio": "silence"}, SoundFormat(48000, "stereo", "aac")),
        ([Sound("aac", 44100, "stereo"), None], {"audio_codec": "opus"}, SoundFormat(48000, "stereo", "opus")),
        ([Sound("pcm_s24le", 192000, "stereo"), None], {}, SoundFormat(48000, "stereo", "aac")),
        ([Sound("pcm_s24le", 192000, "22.2"), None], {"audio_codec": "flac"}, SoundFormat(192000, "stereo", "flac")),
        ([None, None], {"soundtrack": "/music.wav"}, SoundFormat(48000, "stereo", "aac")),
        ([Sound("aac", 44100, "mono"), None], {"soundtrack": "/m.wav", "audio": "drop"}, SoundFormat(48000, "stereo")),
    ],
)
def test_rate_and_layout_are_those_of_the_first_clip_that_has_sound(
    sounds: list[Sound | None], parameters: dict[str, Any], expected: SoundFormat | None
) -> None:
    clips = [make_clip(i, 50, sound=sound) for i, sound in enumerate(sounds)]
    assert plan_timeline(make_case([50, 50], **parameters).request, clips, SPECS).sound == expected


def test_sound_that_cannot_be_decoded_is_refused_unless_it_is_left_out() -> None:
    clips = [make_clip(0, 50), make_clip(1, 50, sound=UNKNOWN_SOUND)]
    with pytest.raises(RequestError, match=r"clip 1 .*codec that can't be decoded; .*audio='drop'"):
        plan_timeline(make_case([50, 50]).request, clips, SPECS)
    assert plan_timeline(make_case([50, 50], audio="drop").request, clips, SPECS).sound is None
