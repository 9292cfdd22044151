"""Packets that are copied: the same pictures as the source's, whatever encoder made it; what can't be copied, encoded.

The judges are independent of the product: pictures are told by the MD5 of what PyAV or Debian's ffmpeg decodes and by
the codes in their pixels, and which frame belongs where follows from docs/frames.md alone.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import opentimelineio as otio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.chain import execute
from splice.errors import MediaError
from splice.join import write_join
from splice.layout import RunFolder
from splice.media import probe_clip
from splice.media.cut_points import find_cut_points
from splice.media.nal import (
    Framing,
    NalCodec,
    is_idr,
    join_by_length,
    join_by_start_code,
    parameter_sets,
    read_framing,
    with_parameter_sets,
)
from splice.models.crossfade import Crossfade
from splice.models.protocol import Guide, ModelSettings, ModelSpec, Rendering, TransitionModel
from splice.plan import plan_timeline
from splice.report import SeamReport, join_report, join_timeline
from splice.request import parse_request
from splice.types import CutPoints, Join, Segment, Timeline
from tests.footage import Code, Edit, make_clip, read_code, read_codes, rewrite_edit_list

FFMPEG = "/usr/bin/ffmpeg"
SIZE = (96, 64)
GAP = 6

Codes = Sequence[Code | None]
Copied = set[Code]
"""Frames, by (clip, frame), that must come out as the packets that they were."""


MADE: dict[str, bytes] = {}
"""Footage by what it was asked to be: many tests begin with the same clips."""


def clip(path: Path, clip_id: int, frame_count: int = 40, **options: Any) -> Path:
    asked = {"clip_id": clip_id, "frame_count": frame_count, "size": SIZE, "gop_frames": 12, **options}
    key = f"{path.suffix} {asked}"
    if key not in MADE:
        MADE[key] = make_clip(path, **asked).read_bytes()
    path.write_bytes(MADE[key])
    return path


# --- running a timeline


class Painter:
    """A model that renders its context, too: every frame flat grey, so that mixed frames read as no source frame."""

    spec = ModelSpec("painter", "1", renders_context=True)

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        return Rendering(np.full_like(guide.left[0], 120) for _ in range(guide.window_frames))


MODELS: dict[str, TransitionModel] = {"crossfade": Crossfade(), "painter": Painter()}


@dataclass(frozen=True)
class Joined:
    timeline: Timeline
    folder: RunFolder
    outputs: list[Path]

    @property
    def output(self) -> Path:
        return self.outputs[-1]

    @property
    def last(self) -> Join:
        return self.timeline.joins[-1]

    def report(self, join: Join, output: Path) -> dict[str, Any]:
        """report.json; the sizes are counted by the file's own packets."""
        seams = [SeamReport({}, (), None, "not measured", None)] * len(join.transitions)
        written = json.dumps(join_report(self.timeline, join, seams, None, np.array(packet_sizes(output)), 0.5))
        report: dict[str, Any] = json.loads(written)
        return report


def joined(clips: Sequence[Path], folder: Path, **parameters: Any) -> Joined:
    """A whole run in this process; nothing is blended unless asked."""
    asked = {"model": "crossfade", "gap_frame_count": GAP, "blend_frames": 0, "audio": "drop", **parameters}
    request = parse_request({"clip_list": [{"url": str(path)} for path in clips], "run_id": "test", **asked})
    probed = [probe_clip(index, path.name, str(path)) for index, path in enumerate(clips)]
    timeline = plan_timeline(request, probed, {name: model.spec for name, model in MODELS.items()})
    return Joined(timeline, RunFolder(folder), execute(timeline, MODELS, RunFolder(folder)))


# --- what docs/frames.md says, without the plan


def laid(
    codes: Sequence[Codes], last: int, gap: int = GAP, replace_mode: bool = False, loop: bool = False, blend: int = 0
) -> list[Code | None]:
    """What each frame of join ``last`` shows: a clip's frame, or None where it is generated or mixed."""
    left, right = (gap // 2, gap - gap // 2) if replace_mode else (0, 0)
    closed = loop and last == len(codes) - 1
    shown: list[Code | None] = []
    for index, own in enumerate(codes[: last + 2]):
        has_before, has_after = index > 0 or closed, index <= last
        kept = list(own[right if has_before else 0 : len(own) - left if has_after else None])
        if has_before:
            kept[:blend] = [None] * blend
        if has_after and blend:
            kept[-blend:] = [None] * blend
        shown += kept + [None] * (gap if has_after else 0)
    return shown


def numbered(clip_id: int, frame_count: int) -> list[Code | None]:
    return [(clip_id, number) for number in range(frame_count)]


def run_of(clip_id: int, start: int, stop: int) -> Copied:
    return {(clip_id, number) for number in range(start, stop)}


# --- judges


def pictures(path: Path) -> list[str]:
    """MD5 of every shown picture, as PyAV decodes it."""
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.video[0])
        return [hashlib.md5(frame.to_ndarray().tobytes()).hexdigest() for frame in frames]


def debian_pictures(*paths: Path) -> list[list[str]]:
    """The same of each file by Debian's ffmpeg, which must find nothing to complain of."""
    command = [FFMPEG, "-v", "error"]
    for path in paths:
        command += ["-i", str(path)]
    for number in range(len(paths)):
        command += ["-map", f"{number}:v:0"]
    command += ["-fps_mode", "passthrough", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "", f"{paths}: {done.stderr}"
    found: list[list[str]] = [[] for _ in paths]
    for line in done.stdout.splitlines():
        if not line.startswith("#"):
            found[int(line.partition(",")[0])].append(line.rpartition(",")[2].strip())
    return found


def packet_sizes(path: Path) -> list[int]:
    """Bytes of every frame, in display order."""
    with av.open(str(path)) as container:
        packets = [(p.pts or 0, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    return [size for _, size in sorted(packets)]


def clean_stop(path: Path, frame: int) -> int:
    """The last frame number up to ``frame`` with nothing but earlier frames decoded before it."""
    with av.open(str(path)) as container:
        times = [p.pts or 0 for p in container.demux(container.streams.video[0]) if p.size]
    shown = sorted(times)
    return max(n for n in range(frame + 1) if set(times[:n]) == set(shown[:n]))


def check(run: Joined, clips: Sequence[Path], codes: Sequence[Codes], copied: Copied, **rules: Any) -> None:
    """Every frame of every output is in its place; in the last one just ``copied`` are copies, and bit by bit the same.

    copied: (index of the clip, frame), as ``codes`` is indexed.
    """
    for number, (join, output) in enumerate(zip(run.timeline.joins, run.outputs, strict=True)):
        last = number if len(run.outputs) > 1 else run.timeline.transitions[-1].join
        expected = laid(codes, last, **rules)
        found = read_codes(output)
        assert len(found) == len(expected) == join.frame_count
        assert [code for code, wanted in zip(found, expected, strict=True) if wanted] == list(filter(None, expected))
    assert list(map(len, debian_pictures(*run.outputs))) == [join.frame_count for join in run.timeline.joins]
    counted = [[(index, n) for n in range(len(own))] for index, own in enumerate(codes)]
    places = laid(counted, run.timeline.transitions[-1].join, **rules)
    originals = [pictures(path) for path in clips]
    made = pictures(run.output)
    same = {
        place for place, md5 in zip(places, made, strict=True) if place in copied and md5 == original(originals, place)
    }
    assert same == copied
    check_report(run, len(copied))


def original(originals: Sequence[Sequence[str]], place: Code | None) -> str | None:
    return originals[place[0]][place[1]] if place else None


def check_report(run: Joined, copied: int) -> None:
    """The plan and report.json say what was copied."""
    planned = [unit for unit in run.last.output if unit.is_copied]
    assert sum(unit.frame_count for unit in planned) == copied
    report = run.report(run.last, run.output)
    total, bytes_written = report["total"], sum(packet_sizes(run.output))
    assert total["passthrough"]["frames"] == copied
    assert total["encode"]["frames"] == run.last.frame_count - copied
    assert sum(total[action]["bytes"] for action in total) == bytes_written
    assert sum(total["passthrough"]["why"].values()) == copied
    assert sum(s["frames"] for s in report["segments"] if s["action"] == "passthrough") == copied
    assert [s["start"] for s in report["segments"]] == list(
        np.cumsum([0] + [s["frames"] for s in report["segments"]])[:-1]
    )


# --- copied, bit by bit

TWENTY_FOUR = Fraction(24000, 1001)
X264_SETTINGS: list[dict[str, Any]] = [
    {"encoder_options": {"preset": "ultrafast"}},
    {
        "b_frames": 5,
        "encoder_options": {
            "preset": "slow",
            "level": "5.1",
            "x264-params": "b-pyramid=normal:ref=6:weightp=2:b-adapt=0",
        },
    },
    {"b_frames": 0, "encoder_options": {"profile": "baseline", "level": "1.3"}},
    {"encoder_options": {"x264-params": "8x8dct=0:cabac=0:ref=1:b-pyramid=strict"}, "gop_frames": 250},
]
ALIKE: dict[str, list[dict[str, Any]]] = {
    "gops of 12": [{}, {"b_frames": 0}, {"b_frames": 3}],
    "gops of 48 and 250": [
        {"gop_frames": 48, "frame_count": 70},
        {"gop_frames": 250},
        {"b_frames": 0, "gop_frames": 250},
    ],
    "x264's settings": X264_SETTINGS,
    "h264, 10 bit": [
        {"pixel_format": "yuv420p10le"},
        {"pixel_format": "yuv420p10le", "b_frames": 0, "gop_frames": 250},
    ],
    "hevc as hvc1 and hev1": [
        {"codec": "hevc", "codec_tag": "hvc1"},
        {"codec": "hevc", "codec_tag": "hev1", "encoder_options": {"x265-params": "repeat-headers=1"}, "b_frames": 3},
        {"codec": "hevc", "b_frames": 0, "gop_frames": 250, "suffix": ".mkv"},
        {"codec": "hevc", "suffix": ".ts", "encoder_options": {"x265-params": "aud=1:ref=4:b-pyramid=1"}},
    ],
    "hevc, 10 bit": [{"codec": "hevc", "pixel_format": "yuv420p10le", "matrix": "bt2020"}] * 2,
    "of a phone": [
        {"rotation": 90, "size": SIZE[::-1], "matrix": "bt709", "full_range": False, "suffix": ".mov"},
        {"rotation": 90, "size": SIZE[::-1], "matrix": "bt709", "full_range": False, "b_frames": 0},
    ],
    "generated by AI": [{"frame_count": 81, "gop_frames": 250, "rate": Fraction(16)}] * 3,
    "containers, uneven ticks": [
        {"rate": TWENTY_FOUR},
        {"rate": TWENTY_FOUR, "suffix": ".mkv"},
        {"rate": TWENTY_FOUR, "suffix": ".ts", "b_frames": 0},
        {"rate": TWENTY_FOUR, "suffix": ".mov", "faststart": True},
    ],
    "full range": [{"full_range": True, "matrix": "bt601"}, {"full_range": True, "matrix": "bt601", "b_frames": 0}],
}
RULES: dict[str, dict[str, Any]] = {
    "insert": {},
    "replace": {"replace_mode": True},
    "loop": {"loop": True},
    "loop, replace": {"loop": True, "replace_mode": True},
}


def make_all(folder: Path, sources: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Clip i of the list carries i."""
    made = []
    for index, options in enumerate(sources):
        more = {name: value for name, value in options.items() if name != "suffix"}
        made.append(clip(folder / f"{index}{options.get('suffix', '.mp4')}", index, **more))
    return made


def copyable(clips: Sequence[Path], sources: Sequence[Mapping[str, Any]], rules: Mapping[str, Any]) -> Copied:
    """All frames but those before the first keyframe that is kept and those behind the last clean stop."""
    replace_mode, loop = rules.get("replace_mode", False), rules.get("loop", False)
    left, right = (GAP // 2, GAP - GAP // 2) if replace_mode else (0, 0)
    copied: Copied = set()
    for index, options in enumerate(sources):
        count, gop = options.get("frame_count", 40), options.get("gop_frames", 12)
        has_before, has_after = index > 0 or loop, index < len(sources) - 1 or loop
        start = -(-right // gop) * gop if has_before else 0
        stop = clean_stop(clips[index], count - left if has_after else count)
        copied |= run_of(index, start, stop) if start < stop else set()
    return copied


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("sources", ALIKE)
def test_copied_frames_are_the_sources_own(tmp_path: Path, sources: str, rules: str) -> None:
    options = ALIKE[sources]
    clips = make_all(tmp_path, options)
    codes = [numbered(index, each.get("frame_count", 40)) for index, each in enumerate(options)]
    copied = copyable(clips, options, RULES[rules])
    if "replace" not in rules:
        assert len(copied) == sum(map(len, codes))
    strategy = "parallel" if rules == "loop, replace" else "sequential"
    run = joined(clips, tmp_path / "run", strategy=strategy, **RULES[rules])
    check(run, clips, codes, copied, **RULES[rules])
    with av.open(str(run.output)) as container:
        shown = next(container.decode(video=0))
        assert shown.rotation % 360 == options[0].get("rotation", 0)


@pytest.mark.parametrize("sources", ["x264's settings", "hevc as hvc1 and hev1", "containers, uneven ticks"])
def test_debians_ffmpeg_sees_the_same_pictures(tmp_path: Path, sources: str) -> None:
    clips = make_all(tmp_path, ALIKE[sources])
    *whole, made = debian_pictures(*clips, joined(clips, tmp_path / "run").output)
    for index, own in enumerate(whole):
        start = sum(map(len, whole[:index])) + GAP * index
        assert made[start : start + len(own)] == own


@pytest.mark.parametrize("rules", ["replace", "loop, replace"])
@pytest.mark.parametrize("sources", ["x264's settings", "hevc as hvc1 and hev1"])
def test_both_strategies_give_the_same_video(tmp_path: Path, sources: str, rules: str) -> None:
    clips = make_all(tmp_path, ALIKE[sources])
    chain = joined(clips, tmp_path / "chain", **RULES[rules])
    stitch = joined(clips, tmp_path / "stitch", strategy="parallel", **RULES[rules])
    assert len(stitch.outputs) == 1 < len(chain.outputs)
    assert pictures(chain.output) == pictures(stitch.output)
    assert chain.report(chain.last, chain.output)["total"] == stitch.report(stitch.last, stitch.output)["total"]


def test_the_report_counts_what_was_copied(tmp_path: Path) -> None:
    """Worked out by hand: GOPs of 12, P B B from the front, 8 frames of each seam replaced, 4 on each side."""
    steady = {"encoder_options": {"x264-params": "b-adapt=0"}}
    clips = [clip(tmp_path / f"{index}.mp4", index, **steady) for index in range(3)]
    run = joined(clips, tmp_path / "run", replace_mode=True, gap_frame_count=6)
    copied = run_of(0, 0, 37) | run_of(1, 12, 37) | run_of(2, 12, 40)
    codes = [numbered(index, 40) for index in range(3)]
    check(run, clips, codes, copied, replace_mode=True)
    report = run.report(run.last, run.output)
    assert {action: report["total"][action]["why"] for action in report["total"]} == {
        "passthrough": {"fits as it is": 90},
        "encode": {"generated": 12, "before the first keyframe after the seam": 18},
    }
    assert {action: report["this_join"][action]["why"] for action in report["this_join"]} == {
        "passthrough": {"fits as it is": 28},
        "encode": {"generated": 6, "before the first keyframe after the seam": 9},
    }
    assert report["total"]["passthrough"]["seconds"] == 90 / 25
    assert report["this_join"]["encode"]["seconds"] == 15 / 25

    # One frame more on the left: 36 is decoded from 39, which is gone.
    run = joined(clips, tmp_path / "more", replace_mode=True, gap_frame_count=8)
    check(run, clips, codes, run_of(0, 0, 36) | run_of(1, 12, 36) | run_of(2, 12, 40), replace_mode=True, gap=8)
    run = joined(clips, tmp_path / "most", replace_mode=True, gap_frame_count=10)
    check(run, clips, codes, run_of(0, 0, 34) | run_of(1, 12, 34) | run_of(2, 12, 40), replace_mode=True, gap=10)
    trail = {"generated": 20, "before the first keyframe after the seam": 14, "decoded from frames beyond the seam": 2}
    assert run.report(run.last, run.output)["total"]["encode"]["why"] == trail


def test_the_bytes_of_every_frame_are_told(tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{index}.mp4", index, b_frames=index) for index in range(3)]
    run = joined(clips, tmp_path / "run", replace_mode=True, loop=True)
    for join, output, before in zip(run.timeline.joins, run.outputs, [None, *run.outputs], strict=False):
        assert write_join(run.timeline, join, run.folder, before).tolist() == packet_sizes(output)


# --- odd, but fit to be copied


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([FFMPEG, "-y", "-v", "error", *map(str, arguments)], check=True)


def remuxed(source: Path, target: Path, *options: str, before: Sequence[str] = ()) -> Path:
    ffmpeg(*before, "-i", source, "-c", "copy", *options, target)
    return target


PYRAMID = "b-pyramid=normal:ref=6:b-adapt=0"
ODD_STREAMS: dict[str, dict[str, Any]] = {
    "access unit delimiters": {"encoder_options": {"x264-params": "aud=1:repeat-headers=1"}},
    "several slices": {"encoder_options": {"x264-params": "slices=4"}},
    "two levels of B-frames": {"b_frames": 8, "encoder_options": {"x264-params": PYRAMID}},
    "intra refresh": {"b_frames": 0, "encoder_options": {"x264-params": "intra-refresh=1"}},
    "parameter sets of another number": {"encoder_options": {"x264-params": "sps-id=7"}},
    "headers in every GOP": {"encoder_options": {"x264-params": "repeat-headers=1:stitchable=1"}, "codec_tag": "avc3"},
    "filled up to a constant rate": {
        "encoder_options": {"b": "300k", "maxrate": "300k", "bufsize": "300k", "x264-params": "nal-hrd=cbr:filler=1"}
    },
    "nothing but keyframes": {"gop_frames": 1, "b_frames": 0},
    "sixteen references": {"encoder_options": {"x264-params": "ref=16"}, "b_frames": 16},
}
ODD_FILES: dict[str, tuple[str, Sequence[str]]] = {
    "fragmented": (".mp4", ["-movflags", "frag_keyframe+empty_moov"]),
    "a fragment a frame": (".mp4", ["-movflags", "frag_every_frame+empty_moov"]),
    "negative composition offsets": (".mp4", ["-movflags", "negative_cts_offsets"]),
    "without an edit list": (".mp4", ["-use_editlist", "0"]),
    "faststart mov": (".mov", ["-movflags", "faststart"]),
    "blu-ray": (".m2ts", []),
    "time stamps that wrap": (".ts", ["-output_ts_offset", str(2**33 / 90000 - 2.4)]),
}


def check_odd(tmp_path: Path, odd: Path, start: int = 0, stop: int = 40) -> None:
    """Clip 1 is ``odd``, of frames start .. stop; all of it must be copied between ordinary ones."""
    clips = [clip(tmp_path / "before.mp4", 0), odd, clip(tmp_path / "after.mp4", 2, b_frames=0)]
    codes = [numbered(0, 40), numbered(1, stop)[start:], numbered(2, 40)]
    copied = run_of(0, 0, 40) | run_of(1, 0, stop - start) | run_of(2, 0, 40)
    check(joined(clips, tmp_path / "run"), clips, codes, copied)


@pytest.mark.parametrize("name", ODD_STREAMS)
def test_odd_streams_are_copied(tmp_path: Path, name: str) -> None:
    check_odd(tmp_path, clip(tmp_path / "odd.mp4", 1, **ODD_STREAMS[name]))


@pytest.mark.parametrize(
    "options",
    [
        {"b_frames": 0, "encoder_options": {"x264-params": "intra-refresh=1"}},
        {"b_frames": 0, "open_gop": True, "codec": "hevc"},
    ],
    ids=["recovery points", "clean random access"],
)
def test_a_keyframe_that_is_no_idr_picture_begins_no_copy(tmp_path: Path, options: dict[str, Any]) -> None:
    clips = make_all(tmp_path, [{"codec": options.get("codec", "h264"), "b_frames": 0}, options])
    with av.open(str(clips[1])) as container:
        keys = [p.pts for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert len(keys) > 2
    codes = [numbered(0, 40), numbered(1, 40)]
    whole = joined(clips, tmp_path / "whole")
    check(whole, clips, codes, run_of(0, 0, 40) | run_of(1, 0, 40))
    check(joined(clips, tmp_path / "run", replace_mode=True), clips, codes, run_of(0, 0, 37), replace_mode=True)


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_are_copied(tmp_path: Path, name: str) -> None:
    suffix, options = ODD_FILES[name]
    source = clip(tmp_path / "source.mp4", 1, **ODD_STREAMS["two levels of B-frames"])
    check_odd(tmp_path, remuxed(source, tmp_path / f"odd{suffix}", *options))


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_what_was_cut_without_encoding_is_copied(tmp_path: Path, suffix: str) -> None:
    source = remuxed(clip(tmp_path / "source.mp4", 1), tmp_path / f"source{suffix}")
    cut = remuxed(source, tmp_path / f"odd{suffix}", before=["-ss", "1.3"])
    start = 40 - len(read_codes(cut))
    assert start in (12, 24, 36)
    check_odd(tmp_path, cut, start)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_lengths_of_two_bytes_are_copied(tmp_path: Path, suffix: str) -> None:
    source = clip(tmp_path / "source.mp4", 1, **ODD_STREAMS["two levels of B-frames"])
    odd = tmp_path / f"odd{suffix}"
    with av.open(str(source)) as reading, av.open(str(odd), "w") as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        header = bytearray(stream.codec_context.extradata or b"")
        header[4] = header[4] & 0xFC | 1
        copy.codec_context.extradata = bytes(header)
        for packet in reading.demux(stream):
            if packet.size:
                short = av.Packet(with_lengths(split_lengths(bytes(packet), 4), 2))
                short.stream, short.time_base, short.is_keyframe = copy, packet.time_base, packet.is_keyframe
                short.pts, short.dts, short.duration = packet.pts, packet.dts, packet.duration
                writing.mux_one(short)
    check_odd(tmp_path, odd)


@pytest.mark.parametrize("missing", [7, 8], ids=["SPS", "PPS"])
def test_keyframes_that_bring_only_some_of_their_parameter_sets_are_encoded(tmp_path: Path, missing: int) -> None:
    whole = clip(tmp_path / "whole.mp4", 2, gop_frames=10)
    partial = tmp_path / "partial.mp4"
    with av.open(str(whole)) as source, av.open(str(partial), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        framing = read_framing("h264", source.streams.video[0].codec_context.extradata or b"")
        kept = [unit for unit in framing.parameter_sets if unit[0] & 31 != missing]
        for packet in source.demux(video=0):
            if packet.size:
                units = framing.units(bytes(packet))
                units = with_parameter_sets("h264", units, kept) if packet.is_keyframe else units
                written: Any = av.Packet(join_by_length(units))
                written.pts, written.dts, written.time_base = packet.pts, packet.dts, packet.time_base
                written.duration, written.is_keyframe, written.stream = packet.duration, packet.is_keyframe, stream
                output.mux(written)
    assert read_codes(partial) == numbered(2, 40)
    assert "only some of their parameter sets" in probe_clip(0, "partial", str(partial)).uncut_reason

    neighbour = clip(tmp_path / "neighbour.mp4", 1, gop_frames=10)
    run = joined([neighbour, partial, neighbour], tmp_path / "run", gap_frame_count=5)
    assert read_codes(run.outputs[-1])[45:85] == numbered(2, 40)


def with_lengths(units: Sequence[bytes], size: int) -> bytes:
    return b"".join(len(unit).to_bytes(size, "big") + unit for unit in units)


def split_lengths(data: bytes, size: int) -> list[bytes]:
    units = []
    while data:
        stop = size + int.from_bytes(data[:size], "big")
        units.append(data[size:stop])
        data = data[stop:]
    return units


def test_coarse_time_stamps_lose_no_frame(tmp_path: Path) -> None:
    """An AVI counts half frames, and FFmpeg reads its last one half a frame early."""
    source = clip(tmp_path / "source.mp4", 1, b_frames=0)
    clips = [clip(tmp_path / "before.mp4", 0), remuxed(source, tmp_path / "odd.avi")]
    found = read_codes(joined(clips, tmp_path / "run").output)
    assert found[:40] + found[46:86] == numbered(0, 40) + numbered(1, 40)


def test_b_frames_in_an_avi_file_are_shown_in_their_order_from_its_start(tmp_path: Path) -> None:
    """It tells when pictures are decoded; FFmpeg makes times of showing of that, in the wrong order."""
    clips = [clip(tmp_path / "before.mp4", 0), clip(tmp_path / "odd.avi", 1, b_frames=3)]
    check(joined(clips, tmp_path / "run"), clips, [numbered(0, 40), numbered(1, 40)], run_of(0, 0, 40))
    assert probe_clip(1, "odd", str(clips[1])).start_seconds == 0


@pytest.mark.parametrize("ticks", [25, 50])
def test_a_frame_that_was_dropped_is_shown_longer(tmp_path: Path, ticks: int) -> None:
    """A time scale as coarse as the frames hides no jump: the rate varies, and the frame before it is shown twice."""
    times = [Fraction(n + (n >= 30), 25) for n in range(40)]
    odd = tmp_path / "odd.mp4"
    with av.open(str(clip(tmp_path / "source.mp4", 1, b_frames=0))) as reading:
        stream = reading.streams.video[0]
        with av.open(str(odd), "w", options={"video_track_timescale": str(ticks)}) as writing:
            copy = writing.add_stream_from_template(stream)
            for number, packet in enumerate(p for p in reading.demux(stream) if p.size):
                packet.stream, packet.time_base = copy, Fraction(1, ticks)
                packet.pts = packet.dts = int(times[number] * ticks)
                packet.duration = ticks // 25
                writing.mux_one(packet)
    clips = [clip(tmp_path / "before.mp4", 0), odd]
    found = read_codes(joined(clips, tmp_path / "run").output)
    assert found[:40] == numbered(0, 40)
    assert found[46:] == [*numbered(1, 30), (1, 29), *numbered(1, 40)[30:]]


@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "60000/1001", "24", "60"])
def test_short_clips_in_mkv_have_the_rate_that_they_have_in_mp4(tmp_path: Path, rate: str) -> None:
    source = clip(tmp_path / "0.mp4", 0, 17, rate=Fraction(rate))
    clips = [source, remuxed(source, tmp_path / "1.mkv")]
    run = joined(clips, tmp_path / "run")
    check(run, clips, [numbered(0, 17), numbered(0, 17)], run_of(0, 0, 17) | run_of(1, 0, 17))


# --- encoded, once, with a reason

VARYING = [Fraction(n // 2, 10) + (n % 2) * Fraction(1, 30) for n in range(40)]
ENCODED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # name: (options of the clip, of the clips around it, reason)
    "open GOPs of x264": ({"open_gop": True}, {}, "open GOPs"),
    "open GOPs of x265": ({"codec": "hevc", "open_gop": True}, {"codec": "hevc"}, "open GOPs"),
    "trimmed": ({"hidden_frames": 7}, {}, "an edit list that trims it"),
    "trimmed by an edit": ({"edits": [Edit(Fraction(1), Fraction(8, 25))]}, {}, "an edit list that trims it"),
    "trimmed at its end": ({"edits": [Edit(Fraction(1), Fraction(0))]}, {}, "an edit list that trims it"),
    "delayed": (
        {"edits": [Edit(Fraction(1, 2), None), Edit(Fraction(40, 25), Fraction(0))]},
        {},
        "an edit list that delays it",
    ),
    "repeated": (
        {"edits": [Edit(Fraction(1), Fraction(0)), Edit(Fraction(40, 25), Fraction(0))]},
        {},
        "an edit list of several pieces",
    ),
    "slowed down": (
        {"edits": [Edit(Fraction(80, 25), Fraction(0), Fraction(1, 2))]},
        {},
        "an edit list that changes its speed",
    ),
    "varying rate": ({"timestamps": VARYING}, {}, "conformed: rate varying -> 25"),
    "another rate": ({"rate": Fraction(50)}, {}, "conformed: rate 50 -> 25"),
    "another size": ({"size": (128, 96)}, {}, "conformed: size 128x96 -> 96x64"),
    "another codec": ({"codec": "hevc"}, {}, "codec hevc -> h264"),
    "a codec that is never copied": ({"codec": "mpeg2", "suffix": ".ts"}, {}, "codec mpeg2video -> h264"),
    "interlaced": ({"interlaced": True}, {}, "conformed: interlaced"),
    "full range": (
        {"full_range": True, "matrix": "bt601"},
        {"full_range": False, "matrix": "bt601"},
        "conformed: range full -> limited",
    ),
    "another matrix": (
        {"matrix": "bt709"},
        {"matrix": "bt601"},
        "conformed: matrix bt709 -> smpte170m, primaries bt709 -> smpte170m",
    ),
    "deeper": ({"pixel_format": "yuv420p10le"}, {}, "conformed: pixel format yuv420p10le -> yuv420p"),
    "finer colour": ({"pixel_format": "yuv444p"}, {}, "conformed: pixel format yuv444p -> yuv420p"),
    "turned": ({"rotation": 180}, {}, "conformed: rotation 180 -> 0"),
    "cut in mid-GOP": ({"cut": "1.2"}, {}, "an edit list that trims it"),
}


def make_odd(folder: Path, options: dict[str, Any]) -> Path:
    """Clip 1, of any of the kinds above."""
    special = {name: options[name] for name in ("edits", "cut", "suffix") if name in options}
    plain = {name: value for name, value in options.items() if name not in special}
    made = clip(folder / f"odd{special.get('suffix', '.mp4')}", 1, **plain)
    if "edits" in special:
        return rewrite_edit_list(made, folder / "edited.mp4", special["edits"])
    return remuxed(made, folder / "cut.mp4", before=["-ss", special["cut"]]) if "cut" in special else made


def sampled(path: Path, rate: Fraction, count: int) -> list[Code | None]:
    """Frame n shows the last picture whose time is <= n / rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [(frame.pts or 0) * (stream.time_base or 0) for frame in container.decode(stream)]
    codes = read_codes(path)
    # A tick of rounding is no time.
    shown = [
        max(k for k, time in enumerate(times) if time - times[0] <= n / rate + Fraction(1, 50000)) for n in range(count)
    ]
    return [codes[k] for k in shown]


@pytest.mark.parametrize(
    ("name", "rules"),
    [(name, "insert") for name in ENCODED]
    + [
        (name, "loop, replace")
        for name in ("open GOPs of x264", "trimmed", "repeated", "varying rate", "another codec")
    ],
)
def test_what_can_not_be_copied_is_encoded_and_the_report_says_why(tmp_path: Path, name: str, rules: str) -> None:
    options, around, reason = ENCODED[name]
    sources = [{"b_frames": 0, **around}, {}, {"b_frames": 0, "gop_frames": 250, **around}]
    clips = make_all(tmp_path, sources)
    clips[1] = make_odd(tmp_path, options)
    run = joined(clips, tmp_path / "run", **RULES[rules])
    codes = [numbered(0, 40), sampled(clips[1], Fraction(25), run.timeline.frame_counts[1]), numbered(2, 40)]
    whole = run_of(0, 0, 40) | run_of(2, 0, 40)
    check(run, clips, codes, whole if rules == "insert" else run_of(0, 12, 37), **RULES[rules])
    own = [unit for unit in run.last.output if isinstance(unit, Segment) and unit.clip == 1]
    removed = 6 if "replace" in rules else 0
    assert [(unit.action, unit.reason) for unit in own] == [("encode", reason)]
    assert own[0].frame_count == len(codes[1]) - removed
    assert run.report(run.last, run.output)["total"]["encode"]["why"][reason] == len(codes[1]) - removed


# --- a model that renders its context


def test_mixed_frames_are_encoded_and_everything_behind_the_next_keyframe_is_copied(tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{index}.mp4", index, b_frames=0) for index in range(3)]
    run = joined(clips, tmp_path / "run", model="painter", blend_frames=3)
    copied = run_of(0, 0, 37) | run_of(1, 12, 37) | run_of(2, 12, 40)
    check(run, clips, [numbered(index, 40) for index in range(3)], copied, blend=3)
    why = run.report(run.last, run.output)["total"]["encode"]["why"]
    assert why == {"generated": 2 * GAP + 4 * 3, "before the first keyframe after the seam": 9 + 9}


@pytest.mark.parametrize("rules", RULES)
def test_a_clip_of_one_gop_can_not_be_copied_behind_its_mixed_head(tmp_path: Path, rules: str) -> None:
    sources = [
        {"gop_frames": 250, "b_frames": 0},
        {"gop_frames": 250},
        {"encoder_options": {"x264-params": "b-adapt=0"}},
    ]
    clips = make_all(tmp_path, sources)
    run = joined(clips, tmp_path / "run", model="painter", blend_frames=3, gap_frame_count=4, **RULES[rules])
    codes = [numbered(index, 40) for index in range(3)]
    # 3 mixed, and in replace mode 2 removed, at every end that meets a seam; clip 2 is decoded 13 16 14 15 ...
    copied = {
        "insert": run_of(0, 0, 37) | run_of(2, 12, 40),
        "replace": run_of(0, 0, 35) | run_of(2, 12, 40),
        "loop": run_of(2, 12, 37),
        "loop, replace": run_of(2, 12, 34),
    }[rules]
    check(run, clips, codes, copied, blend=3, gap=4, **RULES[rules])
    middle = [unit for unit in run.last.output if isinstance(unit, Segment) and unit.clip == 1]
    assert [(unit.action, unit.reason) for unit in middle] == [
        ("encode", "no keyframe from which on it could be copied")
    ]


# --- outputs as input


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_frames_survive_three_joins_one_after_the_other_as_they_were(tmp_path: Path, codec: str) -> None:
    settings = X264_SETTINGS if codec == "h264" else [{"codec": "hevc", "b_frames": n} for n in (0, 2, 3, 0)]
    clips = [*make_all(tmp_path, settings), clip(tmp_path / "4.ts", 4, codec=codec)]
    first = joined(clips[:2], tmp_path / "first").output
    second = joined(clips[2:4], tmp_path / "second", strategy="parallel").output
    third = joined([first, second], tmp_path / "third").output
    run = joined([clips[4], third], tmp_path / "last")
    order, gap = [4, 0, 1, 2, 3], [None] * GAP
    expected = [code for index in order for code in (*gap, *numbered(index, 40))][GAP:]
    found = read_codes(run.output)
    assert [code if wanted else None for code, wanted in zip(found, expected, strict=True)] == expected
    originals = [pictures(path) for path in clips]
    made = pictures(run.output)
    differ = [
        wanted for md5, wanted in zip(made, expected, strict=True) if wanted and md5 != original(originals, wanted)
    ]
    assert differ == []
    check_report(run, 5 * 40 + 3 * GAP)
    assert list(map(len, debian_pictures(run.output))) == [len(expected)]


def test_a_copied_head_and_tail_can_be_cut_again(tmp_path: Path) -> None:
    clips = make_all(tmp_path, X264_SETTINGS)
    first = joined(clips[:2], tmp_path / "first", replace_mode=True)
    second = joined(clips[2:], tmp_path / "second", replace_mode=True, loop=True)
    inputs = [first.output, second.output]
    run = joined(inputs, tmp_path / "last", replace_mode=True, loop=True)
    own = [read_codes(path) for path in inputs]
    segments = [u for u in run.last.output if isinstance(u, Segment) and u.is_copied]
    copied = {(u.clip, n) for u in segments for n in range(u.frames.start, u.frames.stop)}
    assert {index for index, _ in copied} == {0, 1}
    check(run, inputs, own, copied, replace_mode=True, loop=True)


def test_names_of_the_same_colour_do_not_keep_an_output_from_being_copied(tmp_path: Path) -> None:
    """PAL's and NTSC's names of one matrix fit each other: what joins them is one kind of picture."""
    ntsc, pal = (tmp_path / "0.mp4", tmp_path / "1.mp4")
    for path, index, matrix in ((ntsc, 0, "smpte170m"), (pal, 1, "bt470bg")):
        same = f"colormatrix={matrix}:colorprim=bt709:transfer={'bt709' if index else 'smpte170m'}"
        clip(path, index, encoder_options={"x264-params": same})
    first = joined([ntsc, pal], tmp_path / "first")
    check(first, [ntsc, pal], [numbered(0, 40), numbered(1, 40)], run_of(0, 0, 40) | run_of(1, 0, 40))
    second = joined([first.output, pal], tmp_path / "second")
    check_report(second, 40 + GAP + 40 + 40)


# --- pictures that change in mid-stream


def two_in_one(folder: Path, second: Mapping[str, Any]) -> Path:
    """A transport stream of 40 frames, and of 40 more by another encoder."""
    first = remuxed(clip(folder / "first.mp4", 1, b_frames=0), folder / "first.ts")
    then = remuxed(clip(folder / "then.mp4", 2, **second), folder / "then.ts", "-output_ts_offset", "1.6")
    both = folder / "both.ts"
    both.write_bytes(first.read_bytes() + then.read_bytes())
    return both


@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
def test_a_clip_that_changes_its_size_is_refused(tmp_path: Path, suffix: str) -> None:
    both = two_in_one(tmp_path, {"size": (128, 96)})
    changing = both if suffix == ".ts" else remuxed(both, tmp_path / f"both{suffix}")
    probed = probe_clip(0, "changing", str(changing))
    assert (probed.cut_points, probed.uncut_reason) == (None, "pictures whose size or format changes in mid-stream")
    clips = [clip(tmp_path / "0.mp4", 0), changing]
    with pytest.raises(MediaError, match=r"change from 96x64 yuv420p to 128x96 yuv420p"):
        joined(clips, tmp_path / "run")
    assert list((tmp_path / "run").rglob("joined_output.mp4")) == []


@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
def test_a_clip_of_two_encoders_is_copied_with_the_headers_of_both(tmp_path: Path, suffix: str) -> None:
    both = two_in_one(tmp_path, ODD_STREAMS["two levels of B-frames"])
    mixed = both if suffix == ".ts" else remuxed(both, tmp_path / f"both{suffix}")
    clips = [clip(tmp_path / "0.mp4", 0), mixed]
    count = len(read_codes(mixed))
    assert count == 80
    codes = [numbered(0, 40), [*numbered(1, 40), *numbered(2, 40)]]
    check(joined(clips, tmp_path / "run"), clips, codes, run_of(0, 0, 40) | run_of(1, 0, 80))


# --- Debian's ffmpeg, from anywhere


SEEKING: dict[str, list[dict[str, Any]]] = {
    "h264": [X264_SETTINGS[1], X264_SETTINGS[2], X264_SETTINGS[3]],
    "hevc": ALIKE["hevc as hvc1 and hev1"][:3],
}


@pytest.mark.parametrize("rules", ["insert", "replace"])
@pytest.mark.parametrize("codec", SEEKING)
def test_debians_ffmpeg_seeks_to_the_right_frame(tmp_path: Path, codec: str, rules: str) -> None:
    clips = make_all(tmp_path, SEEKING[codec])
    run = joined(clips, tmp_path / "run", **RULES[rules])
    expected = laid([numbered(index, 40) for index in range(3)], 1, **RULES[rules])
    wanted = [0, 5, 30, 36, 46, 47, 59, 70, 85, 92, 93, 110, len(expected) - 1]
    wanted = [number for number in wanted if expected[number]]
    assert len(wanted) >= 8
    assert shown_from(run.output, wanted, tmp_path) == {number: expected[number] for number in wanted}


def test_pictures_that_are_refreshed_bit_by_bit_are_shown_whole_after_a_seek(tmp_path: Path) -> None:
    clips = make_all(tmp_path, [{}, {"b_frames": 0, "encoder_options": {"x264-params": "intra-refresh=1"}}])
    run = joined(clips, tmp_path / "run")
    original, made = (debian_pictures(path)[0] for path in (clips[1], run.output))
    assert made[46:] == original
    for number in (58, 59, 66, 85):
        command = [FFMPEG, "-v", "error", "-ss", f"{(number - 0.5) / 25:.3f}", "-i", str(run.output), "-frames:v", "1"]
        done = subprocess.run([*command, "-f", "framemd5", "-"], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1].rpartition(",")[2].strip() == made[number], f"frame {number}"


def shown_from(path: Path, numbers: Sequence[int], folder: Path) -> dict[int, Code | None]:
    """The first picture that ffmpeg shows from the time of each frame on, without a complaint."""
    inputs, outputs = [], []
    for index, number in enumerate(numbers):
        # Half a frame early, so that no rounding leads past it.
        inputs += ["-ss", f"{max(0, number - 0.5) / 25:.3f}", "-i", str(path)]
        outputs += [
            "-map",
            f"{index}:v:0",
            "-frames:v",
            "2",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            str(folder / f"{number}.raw"),
        ]
    done = subprocess.run([FFMPEG, "-v", "error", *inputs, *outputs], capture_output=True, check=True)
    assert done.stderr == b""
    width, height = SIZE
    first = {number: np.fromfile(folder / f"{number}.raw", np.uint8, width * height * 3) for number in numbers}
    return {number: read_code(picture.reshape(height, width, 3)) for number, picture in first.items()}


# --- timeline.otio


OTIO_SOURCES = [
    {"b_frames": 0},
    {"open_gop": True},
    {"size": (128, 96), "rate": Fraction(50)},
    {"codec": "hevc"},
    {"gop_frames": 250, "suffix": ".mkv"},
]


@pytest.mark.parametrize(
    ("rules", "strategy"),
    [*((rules, "sequential") for rules in RULES), ("insert", "parallel"), ("loop, replace", "parallel")],
)
def test_the_edit_list_for_other_editors_says_what_the_output_shows(tmp_path: Path, rules: str, strategy: str) -> None:
    clips = make_all(tmp_path, OTIO_SOURCES)
    run = joined(clips, tmp_path / "a run", strategy=strategy, model="painter", blend_frames=2, **RULES[rules])
    assert len(run.outputs) == (1 if strategy == "parallel" else 4 + ("loop" in rules))
    for join, output in zip(run.timeline.joins, run.outputs, strict=True):
        written = output.parent / "timeline.otio"
        written.write_text(join_timeline(run.timeline, join, run.folder).to_json_string())
        assert rendered(written) == read_codes(output)
    assert run.report(run.last, run.output)["total"]["passthrough"]["frames"] > 0


def rendered(path: Path) -> list[Code | None]:
    """What another editor would show: the frames of each range of each file, at 25 frames per second."""
    shown: list[Code | None] = []
    timeline = otio.adapters.read_from_file(str(path))
    for item in timeline.video_tracks()[0]:
        there = item.media_reference
        codes = read_codes(path.parent / unquote(there.target_url))
        first, length = item.source_range.start_time, item.source_range.duration
        assert first.rate == length.rate == 25
        assert there.available_range.start_time.value == 0
        assert there.available_range.duration.value == len(codes)
        start, stop = round(first.value), round(first.value + length.value)
        assert 0 <= start < stop <= len(codes)
        shown += codes[start:stop]
    return shown


# --- where a clip can be cut


@st.composite
def gop_orders(draw: st.DrawFn) -> list[list[int]]:
    """GOPs as lists of frame numbers in decode order: closed, each from its first frame on, B-frames at random."""
    orders, start = [], 0
    for size in draw(st.lists(st.integers(1, 7), min_size=1, max_size=6)):
        rest = draw(st.permutations(range(start + 1, start + size)))
        orders.append([start, *rest])
        start += size
    return orders


@given(gops=gop_orders(), data=st.data())
def test_cut_points_are_where_brute_force_finds_them(gops: list[list[int]], data: st.DataObject) -> None:
    idr = {gop[0]: number == 0 or data.draw(st.booleans()) for number, gop in enumerate(gops)}
    first, step = data.draw(st.integers(-5000, 5000)), data.draw(st.integers(1, 1001))
    order = [frame for gop in gops for frame in gop]
    found = find_cut_points([first + step * n for n in order], {first + step * n: is_idr for n, is_idr in idr.items()})
    assert isinstance(found, CutPoints)
    count = len(order)
    stops = [set(order[:n]) == set(range(n)) for n in range(count + 1)]
    assert list(found.stops) == stops
    assert list(found.starts) == [bool(idr.get(n)) and stops[n] and order[n] == n for n in range(count)]
    fits = [delay for delay in range(count + 1) if all(place - delay <= n for place, n in enumerate(order))]
    assert found.reorder_frames == fits[0]
    for frame in range(count + 1):
        later = [n for n in range(frame, count) if found.starts[n]]
        assert found.first_start(frame) == (later[0] if later else None)
        assert found.last_stop(frame) == max(n for n in range(frame + 1) if stops[n])


@given(gops=gop_orders().filter(lambda gops: len(gops) > 1), data=st.data())
def test_gops_that_refer_to_the_one_before_are_never_cut(gops: list[list[int]], data: st.DataObject) -> None:
    which = data.draw(st.integers(1, len(gops) - 1))
    leading = gops[which - 1][-1]
    order = [frame for gop in gops for frame in gop if frame != leading or leading == gops[0][0]]
    key = gops[which][0]
    if leading not in order:
        order.insert(order.index(key) + 1, leading)
        keyframes = {gop[0]: True for gop in gops if gop[0] != leading}
        assert find_cut_points(order, keyframes) == "open GOPs"


@pytest.mark.parametrize("keyframes", [{0: False, 3: True}, {3: True}])
def test_a_clip_that_does_not_begin_with_an_idr_picture_is_never_cut(keyframes: dict[int, bool]) -> None:
    assert find_cut_points([0, 2, 1, 3], keyframes) == "it does not begin with an IDR picture"


# --- NAL units

UNITS = st.lists(
    st.binary(min_size=1, max_size=200).map(escaped := lambda data: data.replace(b"\0", b"\1")), min_size=1
)


@given(units=UNITS, data=st.data())
def test_units_behind_start_codes_come_back(units: list[bytes], data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.sampled_from([b"\0\0\1", b"\0\0\0\1"]), min_size=len(units), max_size=len(units)))
    padding = data.draw(st.integers(0, 5)) * b"\0"
    stream = b"".join(code + unit for code, unit in zip(codes, units, strict=True)) + padding
    assert Framing("h264", 0, ()).units(stream) == units
    assert Framing("hevc", 0, ()).units(join_by_start_code(units)) == units


@given(units=UNITS, size=st.sampled_from([1, 2, 4]))
def test_units_behind_lengths_come_back(units: list[bytes], size: int) -> None:
    data = with_lengths(units, size)
    assert Framing("h264", size, ()).units(data) == units
    assert Framing("h264", 4, ()).units(join_by_length(units)) == units
    for cut in (data[:-1], data + b"\7" * size):
        with pytest.raises(ValueError, match="beyond the end"):
            Framing("h264", size, ()).units(cut)


@pytest.mark.timeout(10)
def test_a_long_run_of_zeros_is_skipped_at_once() -> None:
    unit = b"\x65picture"
    assert Framing("h264", 0, ()).units(b"\0\0\1" + unit + bytes(300_000) + b"\1" + unit + bytes(300_000)) == [unit] * 2


SETS: dict[NalCodec, tuple[bytes, bytes, bytes, bytes]] = {
    # delimiter, a parameter set, extra information, an IDR picture
    "h264": (b"\x09\x10", b"\x67sps", b"\x06sei", b"\x65idr"),
    "hevc": (b"\x46\x01\x10", b"\x42\x01sps", b"\x4e\x01sei", b"\x26\x01idr"),
}


@pytest.mark.parametrize("codec", SETS)
def test_parameter_sets_stand_behind_the_delimiter_and_only_once(codec: NalCodec) -> None:
    delimiter, old, information, picture = SETS[codec]
    new = [old + b"1", old + b"2"]
    assert with_parameter_sets(codec, [delimiter, old, information, picture], new) == [
        delimiter,
        *new,
        information,
        picture,
    ]
    assert with_parameter_sets(codec, [information, old, picture], new) == [*new, information, picture]
    assert with_parameter_sets(codec, [picture], new) == [*new, picture]
    assert parameter_sets(codec, [delimiter, old, information, picture]) == (old,)
    assert is_idr(codec, [delimiter, old, information, picture])
    other = {"h264": b"\x41p", "hevc": b"\x02\x01p"}[codec]
    recovery_point = {"h264": b"\x06sei", "hevc": b"\x2a\x01cra"}[codec]
    assert not is_idr(codec, [old, recovery_point, other])
    assert not is_idr(codec, [delimiter, old])


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_headers_tell_lengths_and_sets_and_damaged_ones_are_refused(tmp_path: Path, codec: NalCodec) -> None:
    with av.open(str(clip(tmp_path / "0.mp4", 0, 3, codec=codec))) as container:
        record = container.streams.video[0].codec_context.extradata or b""
    framing = read_framing(codec, record)
    assert (framing.codec, framing.length_size) == (codec, 4)
    assert len(framing.parameter_sets) == {"h264": 2, "hevc": 3}[codec]
    assert all(unit in record for unit in framing.parameter_sets)
    assert read_framing(codec, join_by_start_code(framing.parameter_sets)) == Framing(codec, 0, framing.parameter_sets)
    for length in range(1, record.index(framing.parameter_sets[-1]) + 1):
        with pytest.raises(ValueError, match="ends too early"):
            read_framing(codec, record[:length])
