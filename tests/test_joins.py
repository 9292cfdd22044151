"""Whole timelines, executed in this process through the core alone: every frame of every join in its place, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench.chain import execute
from splice.contact_sheet import write_contact_sheet
from splice.errors import GenerationError, MediaError
from splice.layout import RunFolder
from splice.media import (
    PARTIAL_PREFIX,
    VideoFrame,
    count_frames,
    probe_clip,
    read_frames,
    read_output,
    to_rgb,
)
from splice.models.crossfade import Crossfade
from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering, TransitionModel, WindowRule
from splice.plan import plan_timeline
from splice.request import parse_request
from splice.seam_view import view_seam
from splice.transition import generate_transition
from splice.types import Clip, FrameRange, Join, Timeline
from tests.footage import Code, make_clip, read_code, read_codes

LEVEL_STEP = 2
LEVEL_FLOOR = 40


@dataclass
class Painter:
    """Renders every frame of the window, context included, in a grey of its own; keeps the guides that it was shown."""

    guides: list[Guide] = field(default_factory=list)

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec("painter", "1", renders_context=True, window=WindowRule(4, 81))

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        self.guides.append(guide)
        unit = 1 if guide.left.dtype == np.uint8 else 257
        pictures = (np.full_like(guide.left[0], _grey(n) * unit) for n in range(guide.window_frames))
        return Rendering(frames=pictures, notes={"painted": guide.window_frames})


class Blank:
    """Renders a gap of any length, all of it in one grey."""

    spec = ModelSpec("blank", "1", renders_context=False)

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        return Rendering(repeat(np.full_like(guide.left[0], LEVEL_FLOOR), guide.gap_frames))


def _grey(window_index: int) -> int:
    """Level (0..255) that the painter gives to a frame of the window."""
    return LEVEL_FLOOR + LEVEL_STEP * window_index


def _plan(clips: Sequence[Path], models: Mapping[str, TransitionModel], **parameters: Any) -> Timeline:
    """The timeline of a request for these files; clip i is called by its index."""
    sources = [{"url": str(path)} for path in clips]
    request = parse_request({"clip_list": sources, "run_id": "test", **parameters})
    probed = [probe_clip(i, path.name, str(path)) for i, path in enumerate(clips)]
    return plan_timeline(request, probed, {name: model.spec for name, model in models.items()})


# --- what docs/frames.md says, without the plan


@dataclass(frozen=True)
class Seam:
    """The numbers of one join as requested; blend: as it takes effect."""

    gap: int
    blend: int
    replace: bool

    @property
    def removed_left(self) -> int:
        return self.gap // 2 if self.replace else 0

    @property
    def removed_right(self) -> int:
        return self.gap - self.gap // 2 if self.replace else 0


@dataclass(frozen=True)
class Shown:
    """What one frame of an output is: frame `number` of clip `clip`, or gap frame `number` of seam `seam`, or both.

    alpha: share of what was generated; offset: of the frame from the first gap frame of its seam.
    """

    clip: int | None
    number: int
    seam: int | None = None
    offset: int = 0
    alpha: Fraction = Fraction(0)


def _expected(counts: Sequence[int], seams: Sequence[Seam], last: int) -> list[Shown]:
    """Every frame of the output of join `last`, by the rules of docs/frames.md."""
    loop = len(seams) == len(counts)
    closed = loop and last == len(seams) - 1
    shown: list[Shown] = []
    for clip in range(len(counts) if closed else last + 2):
        before = clip - 1 if clip else len(seams) - 1 if closed else None
        after = clip if clip <= last else None
        start = seams[before].removed_right if before is not None else 0
        stop = counts[clip] - (seams[after].removed_left if after is not None else 0)
        for n in range(start, stop):
            shown.append(_mixed(seams, clip, n, (start, before), (stop, after)))
        if after is not None:
            shown += [Shown(None, j, after, j, Fraction(1)) for j in range(seams[after].gap)]
    return shown


def _mixed(
    seams: Sequence[Seam], clip: int, n: int, begin: tuple[int, int | None], end: tuple[int, int | None]
) -> Shown:
    """A kept frame, mixed with what was generated where it stands within the blend of a seam."""
    (start, before), (stop, after) = begin, end
    if before is not None and n - start < (blend := seams[before].blend):
        return Shown(clip, n, before, seams[before].gap + n - start, Fraction(blend - (n - start), blend + 1))
    if after is not None and stop - n <= (blend := seams[after].blend):
        return Shown(clip, n, after, n - stop, Fraction(blend - (stop - n) + 1, blend + 1))
    return Shown(clip, n)


def _luma(frame: VideoFrame) -> np.ndarray[Any, Any]:
    """Luma plane in levels of 8 bits."""
    planes = frame.to_ndarray().astype(float)[: frame.height, : frame.width]
    return np.asarray(planes / (1 if frame.format.components[0].bits == 8 else 4))


def _painted(grey: int, timeline: Timeline) -> float:
    return float(grey) if timeline.format.color.full_range else 16 + grey * 219 / 255


def _generated(timeline: Timeline, shown: Shown, originals: Mapping[int, list[VideoFrame]]) -> np.ndarray[Any, Any]:
    """Luma of what the seam's model must have rendered at that place: a picture, or one number."""
    assert shown.seam is not None
    transition = timeline.transitions[shown.seam]
    if transition.spec.renders_context:
        return np.array(_painted(_grey(len(transition.left) + shown.offset), timeline))
    share = (shown.offset + 1) / (transition.gap_frame_count + 1)
    left = originals[transition.left.clip][transition.left.frames.stop - 1]
    right = originals[transition.right.clip][transition.right.frames.start]
    return _luma(left) * (1 - share) + _luma(right) * share


def _check_output(timeline: Timeline, seams: Sequence[Seam], join: Join, path: Path, codes: Mapping[int, Any]) -> None:
    """Every frame of one output: source frames by their code, mixed and generated ones by their pixels."""
    expected = _expected(timeline.frame_counts, seams, join.transitions[-1].join)
    assert join.frame_count == count_frames(path) == len(expected)
    found = read_codes(path)
    assert len(found) == len(expected)
    pure = [(n, shown) for n, shown in enumerate(expected) if not shown.alpha]
    assert [(n, found[n]) for n, _ in pure] == [(n, codes[shown.clip or 0][shown.number]) for n, shown in pure]
    originals = {
        clip.index: list(read_frames(clip, timeline.format, FrameRange(0, timeline.frame_counts[clip.index])))
        for clip in timeline.clips
    }
    frames = read_output(path, timeline.format, len(expected), FrameRange(0, len(expected)))
    for frame, shown in zip(frames, expected, strict=True):
        if not shown.alpha:
            continue
        seen, generated, alpha = _luma(frame), _generated(timeline, shown, originals), float(shown.alpha)
        if shown.clip is None:
            assert np.abs(seen - generated).mean() < 2, shown
            continue
        original = _luma(originals[shown.clip][shown.number])
        assert np.abs(seen - (original * (1 - alpha) + generated * alpha)).mean() < 2, shown
        away = generated - original
        assert abs(((seen - original) * away).sum() / (away**2).sum() - alpha) < 0.02, shown


def _counted(clip: Clip, clip_id: int, timeline: Timeline) -> list[Code]:
    """The codes that the clip's frames must show at the timeline's rate; constant rates only."""
    rate = clip.rate / timeline.format.rate
    return [(clip_id, min(int(n * rate), clip.frame_count - 1)) for n in range(timeline.frame_counts[clip.index])]


CONTEXT_8 = {"context_frame_count": 8}
PAINTED = {"model": "painter", **CONTEXT_8}
OVERRIDES: list[dict[str, Any]] = [
    {"gap_frame_count": 4, "blend_frames": 0},
    {"replace_mode": True, "blend_frames": 8},
    {"model": "crossfade"},
    {"context_frame_count": 5, "gap_frame_count": 1, "blend_frames": 1},
    {},
]

# name: frames of each clip, parameters
CASES: dict[str, tuple[list[int], dict[str, Any]]] = {
    "insert, two": ([20, 20], {"model": "crossfade", "gap_frame_count": 7}),
    "insert, blended": ([20, 26, 21], {**PAINTED, "gap_frame_count": 9, "blend_frames": 3}),
    "insert, nothing blended": ([20, 20], {**PAINTED, "gap_frame_count": 5, "blend_frames": 0}),
    "insert, blended widely": ([20, 20], {**PAINTED, "gap_frame_count": 13, "blend_frames": 8}),
    "insert, six": ([16] * 6, {**PAINTED, "gap_frame_count": 5}),
    "replace, two": ([24, 24], {"model": "crossfade", "gap_frame_count": 9, "replace_mode": True}),
    "replace, odd gap": ([24, 30, 24], {**PAINTED, "gap_frame_count": 9, "replace_mode": True}),
    "replace, even gap": ([24, 30], {**PAINTED, "gap_frame_count": 10, "blend_frames": 0, "replace_mode": True}),
    "replace, gap of one": ([24, 24], {**PAINTED, "gap_frame_count": 1, "replace_mode": True}),
    "replace, four blended widely": (
        [30, 36, 40, 30],
        {**PAINTED, "gap_frame_count": 12, "blend_frames": 8, "replace_mode": True},
    ),
    "as tight as it can be": (
        # 3 removed and 3 blended at each end of the middle clip: nothing of it is left as it was.
        [6, 12, 6],
        {**PAINTED, "gap_frame_count": 6, "blend_frames": 3, "replace_mode": True},
    ),
    "contexts that are padded": ([5, 9, 5], {**PAINTED, "gap_frame_count": 5, "blend_frames": 3}),
    "overrides": ([20, 30, 30, 30, 22, 20], {**PAINTED, "gap_frame_count": 6, "per_join_settings": OVERRIDES}),
    "loop, insert": ([18, 20], {**PAINTED, "gap_frame_count": 5, "loop": True}),
    "loop, replace": ([30, 26, 28], {**PAINTED, "gap_frame_count": 9, "replace_mode": True, "loop": True}),
    "loop, blended widely": ([26, 30, 26], {**PAINTED, "gap_frame_count": 5, "blend_frames": 8, "loop": True}),
    "loop, nothing blended": ([18, 20], {"model": "crossfade", "gap_frame_count": 6, "loop": True}),
    "loop, overrides": (
        [26, 30, 26],
        {
            **PAINTED,
            "gap_frame_count": 5,
            "loop": True,
            "per_join_settings": [{}, {"replace_mode": True}, {"replace_mode": True, "gap_frame_count": 8}],
        },
    ),
}


def _seams(timeline: Timeline, parameters: Mapping[str, Any]) -> list[Seam]:
    """What was asked of each join: the parameters under their overrides."""
    seams = []
    for join in range(len(timeline.joins)):
        overrides = parameters.get("per_join_settings", [])
        asked = {"blend_frames": 3, **parameters, **(overrides[join] if join < len(overrides) else {})}
        blend = 0 if asked["model"] == "crossfade" else asked["blend_frames"]
        seams.append(Seam(asked["gap_frame_count"], blend, asked.get("replace_mode", False)))
    return seams


@pytest.mark.parametrize("case", CASES)
def test_every_frame_is_in_its_place_once(tmp_path: Path, case: str) -> None:
    counts, parameters = CASES[case]
    clips = [
        make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=count, gop_frames=12) for i, count in enumerate(counts)
    ]
    models: dict[str, TransitionModel] = {"painter": Painter(), "crossfade": Crossfade()}
    timeline = _plan(clips, models, **parameters)
    seams = _seams(timeline, parameters)
    codes = {i: [(i, n) for n in range(count)] for i, count in enumerate(counts)}
    for join, path in zip(timeline.joins, execute(timeline, models, RunFolder(tmp_path / "run")), strict=True):
        _check_output(timeline, seams, join, path, codes)
    inserted = sum(seam.gap for seam in seams if not seam.replace)
    assert timeline.frame_count == sum(counts) + inserted


SOURCES: dict[str, list[dict[str, Any]]] = {
    "other sizes, rates, codecs and colours": [
        {"matrix": "bt709", "full_range": False},
        {"codec": "hevc", "rate": Fraction(30), "size": (160, 120), "open_gop": True, "gop_frames": 12},
        {"rotation": 90, "rate": Fraction(24), "matrix": "bt601", "full_range": True},
        {"sample_aspect": Fraction(4, 3), "pixel_format": "yuv420p10le", "rate": Fraction(30000, 1001)},
    ],
    "hevc, 10 bit, 23.976": [
        {"codec": "hevc", "pixel_format": "yuv420p10le", "matrix": "bt2020", "rate": Fraction(24000, 1001)},
        {"matrix": "bt709", "rate": Fraction(24000, 1001)},
        {"codec": "hevc", "pixel_format": "yuv420p10le", "matrix": "bt2020", "rate": Fraction(24000, 1001)},
    ],
    "turned": [{"rotation": 90}, {"rotation": 90, "rate": Fraction(50)}],
    "full range, anamorphic": [
        {"full_range": True, "sample_aspect": Fraction(4, 3)},
        {"sample_aspect": Fraction(4, 3), "matrix": "bt709"},
    ],
    "vp9, mpeg2 and open gops": [
        {"suffix": ".webm", "codec": "vp9", "size": (193, 109)},
        {"suffix": ".mpg", "codec": "mpeg2"},
        {"suffix": ".mkv", "open_gop": True, "gop_frames": 12},
        {"suffix": ".ts", "codec": "mpeg2", "rate": Fraction(30)},
    ],
    "varying rate": [
        {"timestamps": [Fraction(n // 2, 10) + (n % 2) * Fraction(1, 30) for n in range(40)]},
        {"suffix": ".mkv", "timestamps": [Fraction(n // 2, 10) + (n % 2) * Fraction(1, 30) for n in range(40)]},
    ],
    "trimmed": [{"hidden_frames": 7, "gop_frames": 12}, {"hidden_frames": 13, "gop_frames": 12}],
}


def _shown_at(times: list[Fraction], clip: int, timeline: Timeline) -> list[Code]:
    """Frame n of a clip whose rate varies shows its last picture with a time <= n / rate."""
    moments = [n / timeline.format.rate for n in range(timeline.frame_counts[clip])]
    return [(clip, max(j for j, time in enumerate(times) if time - times[0] <= moment)) for moment in moments]


def _suffixed(sources: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    plain = [{name: value for name, value in options.items() if name != "suffix"} for options in sources]
    return [(options.get("suffix", ".mp4"), more) for options, more in zip(sources, plain, strict=True)]


@pytest.mark.parametrize("replace_mode", [False, True], ids=["insert", "replace"])
@pytest.mark.parametrize("sources", SOURCES)
def test_mixed_sources_are_joined_frame_by_frame(tmp_path: Path, sources: str, replace_mode: bool) -> None:
    clips = [
        make_clip(tmp_path / f"{i}{suffix}", clip_id=i, frame_count=40, **options)
        for i, (suffix, options) in enumerate(_suffixed(SOURCES[sources]))
    ]
    models: dict[str, TransitionModel] = {"painter": Painter()}
    parameters = {**PAINTED, "gap_frame_count": 9, "replace_mode": replace_mode}
    timeline = _plan(clips, models, **parameters)
    codes = {clip.index: _counted(clip, clip.index, timeline) for clip in timeline.clips}
    for clip, options in zip(timeline.clips, SOURCES[sources], strict=True):
        if times := options.get("timestamps"):
            codes[clip.index] = _shown_at(times, clip.index, timeline)
        hidden = options.get("hidden_frames", 0)
        codes[clip.index] = [(i, n + hidden) for i, n in codes[clip.index]]
    seams = _seams(timeline, parameters)
    for join, path in zip(timeline.joins, execute(timeline, models, RunFolder(tmp_path / "run")), strict=True):
        _check_output(timeline, seams, join, path, codes)
        assert probe_clip(0, "joined", str(path)).rate == timeline.format.rate


@pytest.mark.parametrize(("replace_mode", "loop"), [(False, False), (True, False), (True, True)])
def test_a_model_is_shown_the_frames_that_touch_the_gap(tmp_path: Path, replace_mode: bool, loop: bool) -> None:
    counts = [30, 33]
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=count) for i, count in enumerate(counts)]
    painter = Painter()
    timeline = _plan(clips, {"painter": painter}, **PAINTED, gap_frame_count=9, replace_mode=replace_mode, loop=loop)
    removed_left, removed_right = (4, 5) if replace_mode else (0, 0)
    for join in timeline.joins:
        list(generate_transition(timeline, join.transitions[0], painter).frames)
        guide = painter.guides[-1]
        left, right = join.transitions[0].join, (join.transitions[0].join + 1) % 2
        stop = counts[left] - removed_left
        # Right: 8 is a multiple of 4 already; left: as many as make 8 or more + 9 + 8 = 4n + 1.
        assert (len(guide.left), guide.gap_frames, len(guide.right)) == (8, 9, 8)
        assert [read_code(picture) for picture in guide.left] == [(left, n) for n in range(stop - 8, stop)]
        expected = [(right, n) for n in range(removed_right, removed_right + 8)]
        assert [read_code(picture) for picture in guide.right] == expected
        assert guide.rate == 25


def test_what_a_window_needs_beyond_a_clip_is_its_outermost_frame_repeated(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=count) for i, count in enumerate((5, 3))]
    painter = Painter()
    timeline = _plan(clips, {"painter": painter}, **PAINTED, gap_frame_count=5, blend_frames=1)
    list(generate_transition(timeline, timeline.transitions[0], painter).frames)
    (guide,) = painter.guides
    assert guide.window_frames % 4 == 1
    seen = [read_code(picture) for picture in guide.left]
    assert seen == [(0, 0)] * (len(seen) - 5) + [(0, n) for n in range(5)]
    # Right of the gap whole groups of 4 are needed.
    assert [read_code(picture) for picture in guide.right] == [(1, 0), (1, 1), (1, 2), (1, 2)]


def test_notes_of_the_model_come_back(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=12) for i in range(2)]
    timeline = _plan(clips, {"painter": Painter()}, **PAINTED, gap_frame_count=5)
    assert generate_transition(timeline, timeline.transitions[0], Painter()).notes == {"painted": 21}


# --- models that break their promise


@dataclass
class Liar:
    """Renders `count` frames more than it should (or fewer), each of them changed by `change`."""

    renders_context: bool
    count: int = 0
    kind: str = "right"

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec("liar", "1", self.renders_context, WindowRule(4, 81) if self.renders_context else None)

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        promised = guide.window_frames if self.renders_context else guide.gap_frames
        return Rendering(frames=self._pictures(guide.left[0], promised + self.count))

    def _pictures(self, like: Frame, count: int) -> Iterator[Frame]:
        for n in range(count):
            is_last = n == count - 1
            match self.kind if is_last else "right":
                case "narrow":
                    yield like[:, :-2]
                case "grey":
                    yield like[..., 0]
                case "deep":
                    yield like.astype(np.uint16)
                case "float":
                    yield like.astype(np.float32) / 255
                case _:
                    yield like


@pytest.mark.parametrize("renders_context", [False, True], ids=["gap alone", "with context"])
@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"count": -1}, r"liar rendered \d+ frames, needed are \d+"),
        ({"count": 1}, r"liar rendered \d+ frames, needed are \d+"),
        ({"count": -100}, r"liar rendered 0 frames"),
        ({"kind": "narrow"}, r"liar rendered frame \d+ as uint8 \(108, 190, 3\), needed is uint8 \(108, 192, 3\)"),
        ({"kind": "grey"}, r"\(108, 192\), needed"),
        ({"kind": "deep"}, r"as uint16 .* needed is uint8"),
        ({"kind": "float"}, r"as float32 .* needed is uint8"),
    ],
    ids=["too few", "too many", "none", "narrow", "grey", "deep", "float"],
)
def test_a_model_that_breaks_its_promise_is_an_error(
    tmp_path: Path, lie: dict[str, Any], message: str, renders_context: bool
) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=20) for i in range(2)]
    liar = Liar(renders_context, **lie)
    timeline = _plan(clips, {"liar": liar}, model="liar", gap_frame_count=5)
    with pytest.raises(GenerationError, match=message):
        execute(timeline, {"liar": liar}, RunFolder(tmp_path / "run"))
    left_over = [path.name for path in (tmp_path / "run").rglob("*") if path.name.startswith(PARTIAL_PREFIX)]
    assert left_over == []
    assert not RunFolder(tmp_path / "run").joined_output("join_0").exists()


# --- contact sheets


@pytest.mark.parametrize(
    ("counts", "parameters", "rotation"),
    [
        ([20, 20], {**PAINTED, "gap_frame_count": 9}, 0),
        ([20, 20], {**PAINTED, "gap_frame_count": 1, "blend_frames": 0}, 0),
        ([20, 20], {**PAINTED, "gap_frame_count": 9, "loop": True}, 0),
        ([20, 20], {"model": "blank", "gap_frame_count": 700}, 0),
        ([2, 2], {"model": "crossfade", "gap_frame_count": 5}, 0),
        ([20, 20], {**PAINTED, "gap_frame_count": 9}, 90),
        ([20, 20], {**PAINTED, "gap_frame_count": 9}, 180),
        ([20, 20], {**PAINTED, "gap_frame_count": 9}, 270),
    ],
    ids=["plain", "gap of one", "loop", "long gap", "short clips", "turned 90", "turned 180", "turned 270"],
)
def test_contact_sheets_show_the_seam(
    tmp_path: Path, counts: list[int], parameters: dict[str, Any], rotation: int
) -> None:
    clips = [
        make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=count, rotation=rotation)
        for i, count in enumerate(counts)
    ]
    models: dict[str, TransitionModel] = {"painter": Painter(), "blank": Blank(), "crossfade": Crossfade()}
    timeline = _plan(clips, models, **parameters)
    outputs = execute(timeline, models, RunFolder(tmp_path / "run"))
    blend = parameters.get("blend_frames", 3) if parameters["model"] == "painter" else 0
    for join, output in zip(timeline.joins, outputs, strict=True):
        sheet = tmp_path / f"{join.name}.jpg"
        write_contact_sheet(view_seam(timeline, join, join.transitions[0], output), sheet)
        tiles = _tiles(sheet)
        left, right = join.transitions[0].join, (join.transitions[0].join + 1) % len(counts)
        stop = counts[left]
        before = [(left, max(0, n)) for n in range(stop - 4, stop)]
        after = [(right, min(n, counts[right] - 1)) for n in range(4)]
        # Blended frames next to the seam read as nothing.
        assert tiles[: 4 - blend] == before[: 4 - blend]
        assert tiles[12 + blend :] == after[blend:]
        if timeline.transitions[0].spec.name != "crossfade":
            assert tiles[4:12] == [None] * 8


def _tiles(sheet: Path) -> list[Code | None]:
    picture = cv2.cvtColor(cv2.imread(str(sheet)), cv2.COLOR_BGR2RGB)
    rows = np.split(picture, 4)
    return [read_code(np.ascontiguousarray(tile[:-22])) for row in rows for tile in np.split(row, 4, axis=1)]


def test_a_seam_of_a_missing_video_is_an_error(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=12) for i in range(2)]
    timeline = _plan(clips, {"painter": Painter()}, **PAINTED, gap_frame_count=5)
    with pytest.raises(MediaError, match=r"none\.mp4"):
        view_seam(timeline, timeline.joins[0], timeline.transitions[0], tmp_path / "none.mp4")


# --- one result, however it is made


def test_units_are_the_same_bytes_in_every_run(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=24) for i in range(3)]
    parameters = {**PAINTED, "gap_frame_count": 5, "replace_mode": True}
    made = []
    for run in ("one", "two"):
        timeline = _plan(clips, {"painter": Painter()}, **parameters)
        execute(timeline, {"painter": Painter()}, RunFolder(tmp_path / run))
        files = sorted((tmp_path / run).rglob("*.mp4"))
        made.append({path.relative_to(tmp_path / run).as_posix(): path.read_bytes() for path in files})
    assert made[0] == made[1]
    encoded = [unit for unit in timeline.units if not unit.is_copied]
    assert len(made[0]) == len(encoded) + len(timeline.joins)


def test_a_joins_own_pixels_do_not_depend_on_the_other_joins(tmp_path: Path) -> None:
    """The seam of the first two clips looks the same, whatever is joined after them."""
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=30) for i in range(3)]
    seen = []
    for run, count in (("two", 2), ("three", 3)):
        timeline = _plan(clips[:count], {"painter": Painter()}, **PAINTED, gap_frame_count=5)
        first = execute(timeline, {"painter": Painter()}, RunFolder(tmp_path / run))[0]
        frames = read_output(first, timeline.format, 65, FrameRange(0, 38))
        seen.append([to_rgb(frame, timeline.format).tobytes() for frame in frames])
    assert seen[0] == seen[1]
