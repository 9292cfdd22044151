"""Probe, read, conform, encode and join, on footage that says which frame it is, judged by code that is not ours."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from splice.errors import MediaError, RequestError
from splice.format import choose_format, conform_reasons, conformed_frame_count
from splice.media import (
    PARTIAL_PREFIX,
    Part,
    atomic_output,
    clip_part,
    count_frames,
    encode_frames,
    join_parts,
    mix_frames,
    probe_clip,
    read_frames,
    read_output,
    to_rgb,
    to_yuv,
)
from splice.request import parse_request
from splice.types import Clip, ColorTags, FrameRange, Sound, VideoFormat
from tests import footage
from tests.footage import Edit, Footage, draw_frame, make_clip, read_code, read_codes

FFMPEG, FFPROBE = shutil.which("ffmpeg", path="/usr/bin"), shutil.which("ffprobe", path="/usr/bin")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None or FFPROBE is None, reason="needs Debian's ffmpeg as judge")

FRAMES = 40
NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
ALTERNATING = [Fraction(n // 2, 10) + Fraction(n % 2, 30) for n in range(FRAMES)]
VFR: dict[str, Any] = {"timestamps": ALTERNATING, "rate": Fraction(20), "last_duration": Fraction(1, 15)}
VFR_FACTS: dict[str, Any] = {"is_constant_rate": False, "duration_seconds": Fraction(2)}
HEVC_10: dict[str, Any] = {"codec": "hevc", "pixel_format": "yuv420p10le"}

# name: how the clip is made, and what the probe must find where that is not the plain case (see `_plain_facts`).
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "closed-12.mp4": ({"gop_frames": 12}, {}),
    "closed-48.mov": ({}, {}),
    "closed-12.mkv": ({"gop_frames": 12}, {}),
    "closed-12.ts": ({"gop_frames": 12}, {}),
    "no-b.mp4": ({"b_frames": 0, "gop_frames": 12}, {}),
    "open.mp4": ({"open_gop": True, "gop_frames": 12, "b_frames": 3}, {}),
    "open.mkv": ({"open_gop": True, "gop_frames": 12, "b_frames": 3}, {}),
    "open.ts": ({"open_gop": True, "gop_frames": 12, "b_frames": 3}, {}),
    "hevc.mp4": ({"codec": "hevc", "gop_frames": 12, "codec_tag": "hvc1"}, {}),
    "hevc-open.mp4": ({"codec": "hevc", "gop_frames": 12, "open_gop": True, "b_frames": 3}, {}),
    "hevc-open.mkv": ({"codec": "hevc", "gop_frames": 12, "open_gop": True, "b_frames": 3}, {}),
    "vp9.webm": ({"codec": "vp9", "gop_frames": 12}, {}),
    "vp9.mkv": ({"codec": "vp9"}, {}),
    "ffv1.mkv": ({"codec": "ffv1"}, {}),
    "mpeg2.mpg": ({"codec": "mpeg2", "gop_frames": 12}, {"codec": "mpeg2video"}),
    "mpeg2.ts": ({"codec": "mpeg2", "gop_frames": 12}, {"codec": "mpeg2video"}),
    "mpeg2-open.mkv": ({"codec": "mpeg2", "gop_frames": 12, "open_gop": True}, {"codec": "mpeg2video"}),
    "24.mp4": ({"rate": Fraction(24), "gop_frames": 12}, {}),
    "29.97.mp4": ({"rate": NTSC, "gop_frames": 12}, {}),
    "29.97.mkv": ({"rate": NTSC, "gop_frames": 12}, {}),
    "29.97.ts": ({"rate": NTSC, "gop_frames": 12}, {}),
    "23.976.ts": ({"rate": FILM, "gop_frames": 12}, {}),
    "30.mkv": ({"rate": Fraction(30), "gop_frames": 12}, {}),
    "vfr.mp4": (VFR, VFR_FACTS | {"rate": 39 / (Fraction(59, 30) - Fraction(1, 30))}),
    # Matroska counts in milliseconds.
    "vfr.mkv": (VFR, VFR_FACTS | {"rate": Fraction(39 * 1000, 1933)}),
    "turned-90.mp4": ({"rotation": 90}, {"rotation": 270, "width": 108, "height": 192}),
    "turned-180.mkv": ({"rotation": 180}, {"rotation": 180}),
    "turned-270.mov": ({"rotation": 270}, {"rotation": 90, "width": 108, "height": 192}),
    "anamorphic.mp4": ({"sample_aspect": Fraction(4, 3)}, {"sample_aspect_ratio": Fraction(4, 3)}),
    "anamorphic.mkv": ({"sample_aspect": Fraction(4, 3)}, {"sample_aspect_ratio": Fraction(4, 3)}),
    "anamorphic.mpg": (
        {"codec": "mpeg2", "size": (192, 144), "sample_aspect": Fraction(4, 3)},
        {"codec": "mpeg2video", "sample_aspect_ratio": Fraction(4, 3)},
    ),
    "trimmed.mp4": ({"hidden_frames": 5, "gop_frames": 12}, {"frame_count": 35}),
    "trimmed.mov": (
        {"hidden_frames": 13, "gop_frames": 12, "tone_hz": 440.0},
        {"frame_count": 27, "sound": Sound("aac", 48000, "stereo")},
    ),
    "odd-444.mp4": ({"size": (193, 109), "pixel_format": "yuv444p"}, {"pixel_format": "yuv444p"}),
    "odd.webm": ({"size": (193, 109), "codec": "vp9"}, {}),
    "odd.ts": ({"size": (193, 109), "codec": "mpeg2"}, {"codec": "mpeg2video"}),
    "ten-bit.mp4": ({"pixel_format": "yuv420p10le"}, {"bit_depth": 10, "pixel_format": "yuv420p10le"}),
    "ten-bit-hevc.mp4": (HEVC_10, {"bit_depth": 10, "pixel_format": "yuv420p10le"}),
    "full.mp4": (
        {"full_range": True, "matrix": "bt709"},
        {"pixel_format": "yuvj420p", "color": ColorTags("bt709", "bt709", "bt709", True)},
    ),
    "601.mp4": (
        {"full_range": False, "matrix": "bt601"},
        {"color": ColorTags("smpte170m", "smpte170m", "smpte170m", False)},
    ),
    "709.webm": (
        {"full_range": False, "matrix": "bt709", "codec": "vp9"},
        {"color": ColorTags("bt709", "bt709", "bt709", False)},
    ),
    "hdr.mp4": (
        {"full_range": False, "matrix": "bt2020", "hdr": "pq", **HEVC_10},
        {
            "bit_depth": 10,
            "pixel_format": "yuv420p10le",
            "color": ColorTags("bt2020nc", "bt2020", "smpte2084", False),
        },
    ),
    "interlaced.mp4": ({"interlaced": True}, {"is_interlaced": True}),
    "interlaced.mpg": ({"interlaced": True, "codec": "mpeg2"}, {"codec": "mpeg2video", "is_interlaced": True}),
    "sound.mp4": ({"tone_hz": 440.0}, {"sound": Sound("aac", 48000, "stereo")}),
    "sound.mkv": ({"tone_hz": 440.0, "channels": 1, "sample_rate": 44100}, {"sound": Sound("aac", 44100, "mono")}),
    "sound.ts": ({"tone_hz": 440.0}, {"sound": Sound("aac", 48000, "stereo")}),
}

RANGES = [(0, 1), (0, 6), (10, 12), (11, 13), (12, 13), (13, 27), (22, 26), (-2, -1), (-1, 0), (-9, 0), (0, 0)]
"""Starts and stops of reads; from the end where not above 0 (a stop of 0 is the end)."""


def _probe(path: Path, index: int = 0) -> Clip:
    return probe_clip(index, path.name, str(path))


def _format(*clips: Clip, **parameters: Any) -> VideoFormat:
    """The timeline's format for these clips."""
    sources = [{"url": clip.path} for clip in (*clips, *clips)]
    return choose_format(parse_request({"clip_list": sources, "run_id": "test", **parameters}), clips)


def _plain_facts(made: Footage) -> dict[str, Any]:
    """What the probe must find unless a variant says otherwise."""
    untagged = ColorTags("smpte170m", "smpte170m", "smpte170m", False, ("matrix", "primaries", "transfer"))
    return {
        "codec": made.codec,
        "width": made.coded_size[0],
        "height": made.coded_size[1],
        "rotation": 0,
        "sample_aspect_ratio": Fraction(1),
        "pixel_format": "yuv420p",
        "bit_depth": 8,
        "color": untagged,
        "is_interlaced": False,
        "rate": made.rate,
        "is_constant_rate": True,
        "frame_count": made.frame_count,
        "sound": None,
    }


def _eight_bit(rgb: np.ndarray[Any, Any]) -> footage.Image:
    return np.asarray(rgb if rgb.dtype == np.uint8 else rgb >> 8, dtype=np.uint8)


def _upright(rgb: np.ndarray[Any, Any], video_format: VideoFormat) -> footage.Image:
    return np.ascontiguousarray(np.rot90(_eight_bit(rgb), -video_format.rotation // 90))


def _codes(frames: Iterator[av.VideoFrame], video_format: VideoFormat) -> list[footage.Code | None]:
    return [read_code(_upright(to_rgb(frame, video_format), video_format)) for frame in frames]


def _pixels(frames: Iterator[av.VideoFrame]) -> list[bytes]:
    return [frame.to_ndarray().tobytes() for frame in frames]


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Clip, Footage]]:
    """Makes and probes a variant, once."""
    folder = tmp_path_factory.mktemp("variants")
    found: dict[str, tuple[Clip, Footage]] = {}

    def make(name: str) -> tuple[Clip, Footage]:
        if name not in found:
            made = Footage(clip_id=7, frame_count=FRAMES, **VARIANTS[name][0])
            found[name] = _probe(footage.write_footage(folder / name, made)), made
        return found[name]

    return make


# --- probe


@pytest.mark.parametrize("name", VARIANTS)
def test_probe_tells_what_was_made(variant: Callable[[str], tuple[Clip, Footage]], name: str) -> None:
    clip, made = variant(name)
    expected = _plain_facts(made) | VARIANTS[name][1]
    assert {fact: getattr(clip, fact) for fact in expected} == expected
    assert clip.duration_seconds == VARIANTS[name][1].get("duration_seconds", clip.frame_count / clip.rate)


@pytest.mark.parametrize("height", [718, 720])
def test_untagged_colour_is_assumed_by_the_pictures_size(tmp_path: Path, height: int) -> None:
    clip = _probe(make_clip(tmp_path / "a.mp4", clip_id=1, frame_count=1, size=(1280, height)))
    assert clip.color.matrix == ("bt709" if height >= 720 else "smpte170m")
    assert clip.color.assumed == ("matrix", "primaries", "transfer")


def test_frame_count_and_rate_are_measured_where_the_header_lies(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", clip_id=1, frame_count=30, gop_frames=12)
    data = path.read_bytes()
    # Matroska's DefaultDuration (0x23E383, 4 bytes of ns): claims 50 frames per second.
    at = data.index(bytes.fromhex("23e383")) + 4
    path.write_bytes(data[:at] + (20_000_000).to_bytes(4, "big") + data[at + 4 :])
    clip = _probe(path)
    assert (clip.frame_count, clip.rate, clip.is_constant_rate) == (30, 25, True)


@pytest.mark.parametrize(
    ("name", "frames"), [("a.mp4", 1), ("a.mkv", 1), *((f"a.{end}", n) for end in ("mp4", "mkv", "ts") for n in (2, 3))]
)
def test_very_short_clips_are_probed_and_read(tmp_path: Path, name: str, frames: int) -> None:
    clip = _probe(make_clip(tmp_path / name, clip_id=2, frame_count=frames))
    assert (clip.frame_count, clip.rate, clip.is_constant_rate) == (frames, 25, True)
    wanted = _format(clip)
    assert _codes(read_frames(clip, wanted, FrameRange(0, frames)), wanted) == [(2, n) for n in range(frames)]


# --- read


def _expected_sources(clip: Clip, made: Footage, rate: Fraction) -> list[int]:
    """docs/frames.md by the times in the file, as a sequential decode by bare PyAV gives them."""
    if clip.is_constant_rate:
        times = [n / made.rate for n in range(clip.frame_count)]
    else:
        with av.open(clip.path) as container:
            times = [Fraction(frame.pts or 0) * (frame.time_base or 1) for frame in container.decode(video=0)]
        times = [time - times[0] for time in times]
    length = int(made.shown_at(made.frame_count) * rate + Fraction(1, 2))
    shown = [max(i for i, time in enumerate(times) if time <= n / rate) for n in range(length)]
    return [made.hidden_frames + i for i in shown]


@pytest.mark.parametrize("name", VARIANTS)
def test_any_range_gives_exactly_its_frames(variant: Callable[[str], tuple[Clip, Footage]], name: str) -> None:
    clip, made = variant(name)
    wanted = _format(clip)
    sources = _expected_sources(clip, made, wanted.rate)
    total = conformed_frame_count(clip, wanted)
    assert total == len(sources)
    whole = list(read_frames(clip, wanted, FrameRange(0, total)))
    assert _codes(iter(whole), wanted) == [(7, n) for n in sources]
    sequential = _pixels(iter(whole))
    for start, stop in RANGES:
        frames = FrameRange(start % total, stop if stop > 0 else total + stop)
        assert _pixels(read_frames(clip, wanted, frames)) == sequential[frames.start : frames.stop], frames


@pytest.mark.parametrize("name", ["closed-12.mp4", "open.mp4", "open.mkv", "hevc-open.mp4", "vp9.webm", "odd-444.mp4"])
def test_every_single_frame_can_be_read_alone(variant: Callable[[str], tuple[Clip, Footage]], name: str) -> None:
    clip, _ = variant(name)
    wanted = _format(clip)
    sequential = _pixels(read_frames(clip, wanted, FrameRange(0, FRAMES)))
    assert [_pixels(read_frames(clip, wanted, FrameRange(n, n + 1))) for n in range(FRAMES)] == [
        [pixels] for pixels in sequential
    ]


@pytest.mark.parametrize("rate", [24, 25, 29.97, 30, 60])
@pytest.mark.parametrize("name", ["24.mp4", "open.mp4", "29.97.mkv", "30.mkv", "vfr.mp4", "vfr.mkv", "trimmed.mp4"])
def test_another_rate_shows_the_last_picture_due(
    variant: Callable[[str], tuple[Clip, Footage]], name: str, rate: float
) -> None:
    clip, made = variant(name)
    wanted = _format(clip, fps=rate)
    sources = [(7, n) for n in _expected_sources(clip, made, wanted.rate)]
    assert conformed_frame_count(clip, wanted) == len(sources)
    assert _codes(read_frames(clip, wanted, FrameRange(0, len(sources))), wanted) == sources
    for start, stop in [(11, 14), (20, 21), (len(sources) - 4, len(sources))]:
        assert _codes(read_frames(clip, wanted, FrameRange(start, stop)), wanted) == sources[start:stop]


def test_a_varying_rate_becomes_the_nearest_standard_one(variant: Callable[[str], tuple[Clip, Footage]]) -> None:
    clip, _ = variant("vfr.mp4")
    # Its mean is 20.2 frames per second.
    assert _format(clip).rate == FILM
    assert any(reason.startswith("rate varying") for reason in conform_reasons(clip, _format(clip)))


@pytest.mark.parametrize(
    ("edits", "numbers"),
    [
        ([Edit(Fraction(1), Fraction(0))], [*range(25)]),
        ([Edit(Fraction(1), Fraction(8, 25))], [*range(8, 33)]),
        ([Edit(Fraction(1, 2), None), Edit(Fraction(2), Fraction(0))], [*range(50)]),
        ([Edit(Fraction(1), Fraction(0)), Edit(Fraction(2), Fraction(0))], [*range(25), *range(50)]),
        ([Edit(Fraction(1), Fraction(1)), Edit(Fraction(1), Fraction(0))], [*range(25, 50), *range(25)]),
    ],
    ids=["end trimmed", "both ends trimmed", "delayed", "repeated", "swapped"],
)
@pytest.mark.parametrize("b_frames", [0, 2])
def test_an_edit_list_is_played_as_it_says(
    tmp_path: Path, edits: list[Edit], numbers: list[int], b_frames: int
) -> None:
    plain = make_clip(tmp_path / "plain.mp4", clip_id=4, frame_count=50, gop_frames=12, b_frames=b_frames)
    clip = _probe(footage.rewrite_edit_list(plain, tmp_path / "edited.mp4", edits))
    wanted = _format(clip)
    assert (clip.frame_count, clip.rate, clip.is_constant_rate) == (len(numbers), 25, True)
    expected = [(4, n) for n in numbers]
    assert _codes(read_frames(clip, wanted, FrameRange(0, len(numbers))), wanted) == expected
    for start, stop in [(3, 5), (13, 16), (len(numbers) - 2, len(numbers))]:
        assert _codes(read_frames(clip, wanted, FrameRange(start, stop)), wanted) == expected[start:stop]


def test_a_file_without_an_index_is_read_alike(tmp_path: Path) -> None:
    with_index = make_clip(tmp_path / "a.mkv", clip_id=2, frame_count=FRAMES, gop_frames=12)
    path = tmp_path / "live.mkv"
    with av.open(str(with_index)) as source, av.open(str(path), "w", options={"live": "1"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    clip = _probe(path)
    wanted = _format(clip)
    assert clip.frame_count == FRAMES
    assert _codes(read_frames(clip, wanted, FrameRange(30, 34)), wanted) == [(2, n) for n in range(30, 34)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_intra_refresh_is_read_alike_from_anywhere(tmp_path: Path, name: str) -> None:
    made = tmp_path / name
    with av.open(str(made), "w") as container:
        options = {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=15:bframes=0:scenecut=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        for n in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_frame(4, n, (192, 108)), format="rgb24")))
        container.mux(stream.encode(None))
    clip = _probe(made)
    wanted = _format(clip)
    sequential = _pixels(read_frames(clip, wanted, FrameRange(0, FRAMES)))
    for start in range(1, FRAMES, 3):
        assert _pixels(read_frames(clip, wanted, FrameRange(start, start + 1))) == [sequential[start]]


def test_a_stream_that_begins_between_keyframes_is_counted_by_decoding(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.ts", clip_id=3, frame_count=FRAMES, gop_frames=12)
    data = whole.read_bytes()
    path = tmp_path / "cut.ts"
    # 188 bytes a packet; the first three are tables.
    path.write_bytes(data[: 188 * 3] + data[len(data) // 188 // 3 * 188 :])
    clip = _probe(path)
    seen = read_codes(path)
    wanted = _format(clip)
    assert 0 < len(seen) < FRAMES
    assert _codes(read_frames(clip, wanted, FrameRange(0, clip.frame_count)), wanted) == seen


def test_a_clip_whose_pictures_change_their_size_is_an_error(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.ts", clip_id=1, frame_count=10)
    large = make_clip(tmp_path / "large.ts", clip_id=2, frame_count=10, size=(320, 240))
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    clip = _probe(path)
    for wanted in (_format(clip), replace(_format(clip), width=160, height=90)):
        frames = read_frames(clip, wanted, FrameRange(0, clip.frame_count))
        with pytest.raises(MediaError, match=r"clip 0 \(both\.ts\).* 192x108 yuv420p to 320x240 yuv420p; cut"):
            list(frames)


def test_a_clip_that_lost_frames_since_it_was_probed_is_an_error(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", clip_id=2, frame_count=FRAMES, gop_frames=12)
    clip = _probe(path)
    wanted = _format(clip)
    os.utime(path)
    assert len(list(read_frames(clip, wanted, FrameRange(0, FRAMES)))) == FRAMES, "only touched"
    make_clip(path, clip_id=2, frame_count=FRAMES - 10, gop_frames=12)
    with pytest.raises(MediaError, match=r"a\.mp4: has changed since this run began"):
        list(read_frames(clip, wanted, FrameRange(0, 1)))
    # Of a fetched one nothing but its frames would tell.
    fetched = replace(clip, identity=replace(clip.identity, mtime_ns=0))
    for start in (0, 20):
        with pytest.raises(MediaError, match=r"clip 0 \(a\.mp4\).*29|30 frames.*40"):
            list(read_frames(fetched, wanted, FrameRange(start, FRAMES)))
    path.unlink()
    with pytest.raises(MediaError, match=r"a\.mp4"):
        list(read_frames(clip, wanted, FrameRange(0, 1)))


# --- conform


def _target(width: int, height: int, **changes: Any) -> VideoFormat:
    plain = ColorTags("smpte170m", "smpte170m", "smpte170m", False)
    return replace(VideoFormat("h264", width, height, Fraction(25), 8, plain), **changes)


def _covering(picture: footage.Image, shown: tuple[int, int], target: tuple[int, int]) -> footage.Image:
    """The picture at `shown` size, scaled to cover `target` and cropped to its centre, by OpenCV."""
    factor = max(target[0] / shown[0], target[1] / shown[1])
    matrix = np.array(
        [
            [picture.shape[1] / (shown[0] * factor), 0, 0],
            [0, picture.shape[0] / (shown[1] * factor), 0],
        ]
    )
    for row, (have, need) in enumerate(zip(shown, target, strict=True)):
        scale = matrix[row, row]
        matrix[row, 2] = scale * ((have * factor - need) / 2 + 0.5) - 0.5
    # Four samples a pixel: warpAffine alone does not average where it makes smaller.
    fine = matrix.copy()
    fine[:, :2] /= 4
    fine[:, 2] += (np.diag(matrix[:, :2]) / 4 - np.diag(matrix[:, :2])) / 2
    size = (target[0] * 4, target[1] * 4)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    big = cv2.warpAffine(picture, fine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(big, target, interpolation=cv2.INTER_AREA), dtype=np.uint8)


SHAPES: dict[str, tuple[dict[str, Any], tuple[int, int], tuple[int, int]]] = {
    # what is made, its size as shown, the target
    "smaller": ({"size": (320, 180)}, (320, 180), (192, 108)),
    "larger": ({}, (192, 108), (320, 180)),
    "4:3 to 16:9": ({"size": (192, 144)}, (192, 144), (192, 108)),
    "16:9 to 1:1": ({}, (192, 108), (108, 108)),
    "16:9 to 9:16": ({"size": (384, 216)}, (384, 216), (108, 192)),
    "odd to even": ({"size": (193, 109), "codec": "vp9"}, (193, 109), (192, 108)),
    "odd 4:4:4": ({"size": (193, 109), "pixel_format": "yuv444p"}, (193, 109), (192, 108)),
    "turned 90": ({"rotation": 90}, (192, 108), (192, 108)),
    "turned 180": ({"rotation": 180}, (192, 108), (192, 108)),
    "turned 270": ({"rotation": 270}, (192, 108), (192, 108)),
    "turned 90 and cropped": ({"rotation": 90, "size": (108, 192)}, (108, 192), (192, 108)),
    "anamorphic": ({"sample_aspect": Fraction(4, 3)}, (256, 108), (256, 108)),
    "anamorphic to 16:9": ({"sample_aspect": Fraction(4, 3)}, (256, 108), (192, 108)),
    # The aspect is that of the stored pixels: it lies on its side once the picture is upright.
    "anamorphic and turned": ({"sample_aspect": Fraction(4, 3), "rotation": 90}, (192, 144), (192, 108)),
}


def _with_display_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """An mp4 of which a point (x, y) of the stored picture is to be shown at (ax + cy, bx + dy)."""
    data = path.read_bytes()
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    fixed = [round(each * (1 << 16)) for each in (a, b, c, d)]
    # The movie has one as well, before that of its only track.
    at = data.rindex(plain)
    path.write_bytes(data[:at] + struct.pack(">9i", *fixed[:2], 0, *fixed[2:], 0, 0, 0, 1 << 30) + data[at + 36 :])
    return path


MIRRORED: dict[str, tuple[tuple[int, int, int, int], Callable[[footage.Image], footage.Image]]] = {
    "left to right": ((-1, 0, 0, 1), lambda shown: shown[:, ::-1]),
    "top to bottom": ((1, 0, 0, -1), lambda shown: shown[::-1]),
    "rows for columns": ((0, 1, 1, 0), lambda shown: shown.swapaxes(0, 1)),
    "turned to the other side": ((0, -1, -1, 0), lambda shown: shown[::-1, ::-1].swapaxes(0, 1)),
}


@pytest.mark.parametrize("how", MIRRORED)
def test_mirrored_pictures_are_shown_as_they_should_be(tmp_path: Path, how: str) -> None:
    matrix, unmirrored = MIRRORED[how]
    clip = _probe(_with_display_matrix(make_clip(tmp_path / "a.mp4", clip_id=5, frame_count=4), *matrix))
    size = (108, 192) if matrix[0] == 0 else (192, 108)
    wanted = _target(*size, color=clip.color)
    shown = [to_rgb(frame, wanted) for frame in read_frames(clip, wanted, FrameRange(0, 4))]
    assert [read_code(np.ascontiguousarray(unmirrored(each))) for each in shown] == [(5, n) for n in range(4)]


def test_pictures_that_are_to_be_turned_otherwise_than_by_quarters_are_refused(tmp_path: Path) -> None:
    half = math.sqrt(0.5)
    path = _with_display_matrix(make_clip(tmp_path / "a.mp4", clip_id=5, frame_count=4), half, half, -half, half)
    with pytest.raises(RequestError, match=r"a\.mp4: is to be shown turned by 45 degrees"):
        _probe(path)


@pytest.mark.parametrize("shape", SHAPES)
def test_pictures_fill_the_format_upright_and_undistorted(tmp_path: Path, shape: str) -> None:
    options, shown, target = SHAPES[shape]
    suffix = ".webm" if options.get("codec") == "vp9" else ".mp4"
    clip = _probe(make_clip(tmp_path / f"a{suffix}", clip_id=5, frame_count=4, **options))
    wanted = _target(*target)
    stored = options.get("size", (192, 108))
    for n, frame in enumerate(read_frames(clip, wanted, FrameRange(0, 4))):
        rgb = _eight_bit(to_rgb(frame, wanted))
        assert read_code(rgb) == (5, n)
        expected = _covering(draw_frame(5, n, stored), shown, target)
        difference = rgb.astype(float) - expected
        # A crop begins at an even pixel, since chroma has half as many; an odd one is cropped at one side.
        cropped = shown[0] * target[1] != shown[1] * target[0]
        for axis in (0, 1):
            shift_pixels, stretch = _displacement(difference, expected.astype(float), axis)
            assert abs(shift_pixels) < (1.1 if cropped else 0.1)
            assert abs(stretch) < (0.01 if cropped else 0.006)


def _displacement(difference: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], axis: int) -> tuple[float, float]:
    """(shift in pixels, relative stretch) along an axis that explain the difference best."""
    slope = np.gradient(truth, axis=axis)
    position = np.arange(truth.shape[axis]) - (truth.shape[axis] - 1) / 2
    lever = slope * np.expand_dims(position, [i for i in range(truth.ndim) if i != axis])
    found, *_ = np.linalg.lstsq(np.stack([slope.ravel(), lever.ravel()], axis=1), difference.ravel())
    return float(found[0]), float(found[1])


@pytest.mark.parametrize("size", [(193, 109), (193, 108), (192, 109)])
def test_a_surplus_pixel_is_cropped_and_nothing_rescaled(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = _probe(make_clip(tmp_path / "a.mkv", clip_id=5, frame_count=2, size=size, codec="ffv1"))
    wanted = _format(clip)
    assert (wanted.width, wanted.height) == (192, 108)
    with av.open(clip.path) as container:
        stored = [_planes(frame) for frame in container.decode(video=0)]
    for planes, frame in zip(stored, read_frames(clip, wanted, FrameRange(0, 2)), strict=True):
        for before, after in zip(planes, _planes(frame), strict=True):
            assert np.array_equal(before[: after.shape[0], : after.shape[1]], after)


@pytest.mark.parametrize("name", ["closed-12.mp4", "full.mp4", "ten-bit.mp4", "turned-90.mp4", "anamorphic.mkv"])
def test_a_clip_that_fits_is_not_touched(variant: Callable[[str], tuple[Clip, Footage]], name: str) -> None:
    clip, _ = variant(name)
    with av.open(clip.path) as container:
        stored = [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]
    assert conform_reasons(clip, _format(clip)) == ()
    assert _pixels(read_frames(clip, _format(clip), FrameRange(0, FRAMES))) == stored


def test_interlaced_pictures_become_whole_ones_one_for_one(tmp_path: Path) -> None:
    """Two fields of two moments, a bar that moves between them: deinterlaced, no comb is left."""
    path = tmp_path / "fields.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4", "x264-params": "tff=1"})
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        for n in range(12):
            luma = np.full((108, 192), 40, np.uint8)
            for field in (0, 1):
                left = 20 + 8 * (2 * n + field) // 2
                luma[field::2, left : left + 30] = 200
            planes = np.concatenate([luma.ravel(), np.full(108 * 192 // 2, 128, np.uint8)]).reshape(162, 192)
            frame = footage._flag_top_field_first(av.VideoFrame.from_ndarray(planes, format="yuv420p"))
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = _probe(path)
    wanted = _format(clip)
    assert conform_reasons(clip, wanted) == ("interlaced",)
    with av.open(str(path)) as container:
        woven = [_comb(_planes(frame)[0]) for frame in container.decode(video=0)]
    whole = [_comb(_planes(frame)[0]) for frame in read_frames(clip, wanted, FrameRange(0, 12))]
    assert len(whole) == 12
    assert min(woven[1:-1]) > 4 * max(whole[1:-1])


def _comb(luma: np.ndarray[Any, Any]) -> float:
    """How much lines differ from both neighbours, where those agree."""
    rows = luma.astype(float)
    return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())


def _planes(frame: av.VideoFrame) -> list[np.ndarray[Any, Any]]:
    """Luma and both chroma planes of a planar frame, by the strides of its buffers."""
    kind: Any = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    planes = []
    for plane in frame.planes:
        row = plane.line_size // np.dtype(kind).itemsize
        planes.append(np.frombuffer(plane, kind).reshape(-1, row)[: plane.height, : plane.width])
    return [plane.copy() for plane in planes]


# --- colour: the truth, by ITU-R BT.601, 709 and 2020 and by H.273, in floating point

LUMA_OF = {"smpte170m": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020nc": (0.2627, 0.0593)}
CHROMATICITIES = {
    "smpte170m": ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
}
WHITE = (0.3127, 0.3290)
H273 = {
    "gbr": 0,
    "bt709": 1,
    "smpte170m": 6,
    "bt2020": 9,
    "bt2020nc": 9,
    "iec61966-2-1": 13,
    "bt2020-10": 14,
    "smpte2084": 16,
}
PATCHES = np.array(
    [[0.5, 0.5, 0.5], [0.7, 0.4, 0.35], [0.35, 0.6, 0.4], [0.4, 0.4, 0.65], [0.75, 0.7, 0.4], [0.3, 0.25, 0.3]]
)


def _matrix_of(name: str) -> np.ndarray[Any, Any]:
    """R'G'B' (0..1) -> Y' (0..1), Cb, Cr (-0.5..0.5)."""
    red, blue = LUMA_OF[name]
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, ([0, 0, 1] - luma) / (2 * (1 - blue)), ([1, 0, 0] - luma) / (2 * (1 - red))])


def _to_levels(rgb: np.ndarray[Any, Any], color: ColorTags, bits: int) -> np.ndarray[Any, Any]:
    """R'G'B' (0..1) -> levels of Y', Cb and Cr, unrounded; of G, B and R where the colour is RGB."""
    if color.matrix == "gbr":
        return rgb[..., [1, 2, 0]] * (2**bits - 1)
    yuv, step = rgb @ _matrix_of(color.matrix).T, 2 ** (bits - 8)
    if color.full_range:
        return yuv * (2**bits - 1) + np.array([0, 128, 128]) * step
    return (yuv * np.array([219, 224, 224]) + np.array([16, 128, 128])) * step


def _from_levels(levels: np.ndarray[Any, Any], color: ColorTags, bits: int) -> np.ndarray[Any, Any]:
    if color.matrix == "gbr":
        return levels[..., [2, 0, 1]] / (2**bits - 1)
    step = 2 ** (bits - 8)
    if color.full_range:
        yuv = (levels - np.array([0, 128, 128]) * step) / (2**bits - 1)
    else:
        yuv = (levels / step - np.array([16, 128, 128])) / np.array([219, 224, 224])
    return np.asarray(yuv @ np.linalg.inv(_matrix_of(color.matrix)).T)


def _to_light(coded: np.ndarray[Any, Any], transfer: str) -> np.ndarray[Any, Any]:
    if transfer == "iec61966-2-1":
        return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return np.where(coded < 0.081, coded / 4.5, ((coded + 0.099) / 1.099) ** (1 / 0.45))


def _from_light(light: np.ndarray[Any, Any], transfer: str) -> np.ndarray[Any, Any]:
    if transfer == "iec61966-2-1":
        return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)
    return np.where(light < 0.018, light * 4.5, 1.099 * np.maximum(light, 0) ** 0.45 - 0.099)


def _light_to_xyz(primaries: str) -> np.ndarray[Any, Any]:
    corners = np.array([[x / y, 1, (1 - x - y) / y] for x, y in CHROMATICITIES[primaries]]).T
    white = np.array([WHITE[0] / WHITE[1], 1, (1 - WHITE[0] - WHITE[1]) / WHITE[1]])
    return np.asarray(corners * np.linalg.solve(corners, white))


def _converted(rgb: np.ndarray[Any, Any], source: ColorTags, target: ColorTags) -> np.ndarray[Any, Any]:
    """R'G'B' of one colour space in another."""
    curve = {"smpte170m": "bt709", "bt2020-10": "bt709"}
    same_curve = curve.get(source.transfer, source.transfer) == curve.get(target.transfer, target.transfer)
    if source.primaries == target.primaries and same_curve:
        return rgb
    assert source.transfer != "smpte2084", "its curve is not here"
    through = np.linalg.inv(_light_to_xyz(target.primaries)) @ _light_to_xyz(source.primaries)
    return _from_light(_to_light(rgb, source.transfer) @ through.T, target.transfer)


SD, HD = ColorTags("smpte170m", "smpte170m", "smpte170m", False), ColorTags("bt709", "bt709", "bt709", False)
UHD = ColorTags("bt2020nc", "bt2020", "bt2020-10", False)
SD_FULL, HD_FULL = replace(SD, full_range=True), replace(HD, full_range=True)
PQ = replace(UHD, transfer="smpte2084")
PQ_FULL = replace(PQ, full_range=True)
RGB = ColorTags("gbr", "bt709", "iec61966-2-1", True)
RGB_TARGET = ColorTags("bt709", "bt709", "iec61966-2-1", False)

CONVERSIONS = {
    "601 to 709": (SD, 8, HD, 8),
    "709 to 601": (HD, 8, SD, 8),
    "full to limited": (HD_FULL, 8, HD, 8),
    "limited to full": (HD, 8, HD_FULL, 8),
    "full 601 to limited 709": (SD_FULL, 8, HD, 8),
    "limited 601 to full 709": (SD, 8, HD_FULL, 8),
    "10 bit to 8": (HD, 10, HD, 8),
    "8 bit to 10": (HD, 8, HD, 10),
    "10 bit full to 8 limited": (HD_FULL, 10, HD, 8),
    "8 bit full to 10 full": (HD_FULL, 8, HD_FULL, 10),
    "10 bit 2020 to 8 bit 709": (UHD, 10, HD, 8),
    "8 bit 601 to 10 bit 2020": (SD, 8, UHD, 10),
    "hdr, full to limited": (PQ_FULL, 10, PQ, 10),
    "matrix alone": (ColorTags("smpte170m", "bt709", "bt709", False), 8, HD, 8),
    "rgb to limited 709": (RGB, 8, RGB_TARGET, 8),
    "rgb to limited 709 with its curve": (RGB, 8, HD, 8),
    "rgb to limited 601": (RGB, 8, SD, 8),
    "rgb to 10 bit full 709": (RGB, 10, HD_FULL, 10),
}


@pytest.mark.parametrize("size", [(192, 108), (96, 54)], ids=["same size", "smaller"])
@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_colour_is_converted_as_the_standards_say(tmp_path: Path, conversion: str, size: tuple[int, int]) -> None:
    source, source_bits, target, bits = CONVERSIONS[conversion]
    levels = _to_levels(PATCHES, source, source_bits).round()
    clip = _probe(_write_patches(tmp_path / "patches.mkv", levels, source, source_bits))
    assert replace(clip.color, assumed=()) == source
    wanted = _target(*size, color=target, bit_depth=bits)
    truth = _to_levels(_converted(_from_levels(levels, source, source_bits), source, target), target, bits)
    (frame,) = read_frames(clip, wanted, FrameRange(0, 1))
    assert frame.format.name == wanted.pixel_format
    seen = np.array([_patch_means(plane, len(PATCHES)) for plane in _planes(frame)]).T
    error = np.abs(seen - truth).max() / 2 ** (bits - 8)
    # Two roundings, the source's to its levels excepted, are one level.
    assert error < 1.0, (error, seen, truth)


@pytest.mark.parametrize(("height", "matrix"), [(360, "smpte170m"), (720, "bt709")])
def test_untagged_colour_is_scaled_without_another_matrix(tmp_path: Path, height: int, matrix: str) -> None:
    levels = _to_levels(PATCHES, replace(HD, matrix=matrix), 8).round()
    path = _write_patches(tmp_path / "patches.mkv", levels, None, 8, (height * 16 // 9, height))
    clip = _probe(path)
    assert (clip.color.matrix, clip.color.assumed) == (matrix, ("matrix", "primaries", "transfer"))
    (frame,) = read_frames(clip, _target(192, 108, color=replace(clip.color, assumed=())), FrameRange(0, 1))
    seen = np.array([_patch_means(plane, len(PATCHES)) for plane in _planes(frame)]).T
    assert np.abs(seen - levels).max() < 1.0


def _write_patches(
    path: Path, levels: np.ndarray[Any, Any], color: ColorTags | None, bits: int, size: tuple[int, int] = (192, 108)
) -> Path:
    """One picture with a column for each patch (P x 3 levels), losslessly, tagged unless the colour is None."""
    width, height = size
    is_rgb = color is not None and color.matrix == "gbr"
    kind: Any = np.uint8 if bits == 8 else np.uint16
    if is_rgb and bits == 8:
        # FFV1 has RGB of 8 bits in this order only.
        columns = np.repeat(levels[:, [2, 0, 1]], width // len(levels), axis=0).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(np.tile(columns, (height, 1, 1)), format="rgb24").reformat(format="bgr0")
    else:
        frame = av.VideoFrame(width, height, ("gbrp" if is_rgb else "yuv420p") + ("10le" if bits == 10 else ""))
        for plane, values in zip(frame.planes, levels.T, strict=True):
            padded = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
            columns = np.repeat(values, -(-plane.width // len(values)))
            padded[:, : plane.width] = columns[: plane.width]
            plane.update(padded.tobytes())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, frame.format.name
        for tagged in (stream.codec_context, frame) if color is not None else ():
            tagged.colorspace, tagged.color_range = H273[color.matrix], 2 if color.full_range else 1
            tagged.color_primaries, tagged.color_trc = H273[color.primaries], H273[color.transfer]
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _patch_means(plane: np.ndarray[Any, Any], patches: int) -> list[float]:
    """Mean of the middle half of each column."""
    width = plane.shape[1] // patches
    return [float(plane[:, i * width + width // 4 : (i + 1) * width - width // 4].mean()) for i in range(patches)]


# --- RGB and back


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("color", [SD, HD, UHD], ids=["601", "709", "2020"])
def test_rgb_and_back_six_times_shifts_nothing(color: ColorTags, full_range: bool, bits: Literal[8, 10]) -> None:
    wanted = _target(192, 108, color=replace(color, full_range=full_range), bit_depth=bits)
    rgb = draw_frame(5, 0, (384, 216)).astype(float) / 255
    # Means of four pixels put the chroma between them; what matters is that it stays where it is.
    levels = _to_levels(cv2.GaussianBlur(rgb, (0, 0), 3), wanted.color, bits)
    planes = [cv2.resize(levels[..., 0], (192, 108), interpolation=cv2.INTER_AREA)]
    planes += [cv2.resize(levels[..., c], (96, 54), interpolation=cv2.INTER_AREA) for c in (1, 2)]
    kind: Any = np.uint8 if bits == 8 else np.uint16
    packed = np.concatenate([plane.round().ravel() for plane in planes]).astype(kind).reshape(162, 192)
    first = frame = av.VideoFrame.from_ndarray(packed, format=wanted.pixel_format)
    for _ in range(6):
        frame = to_yuv(to_rgb(frame, wanted), wanted)
    assert frame.format.name == wanted.pixel_format
    for before, after in zip(_planes(first), _planes(frame), strict=True):
        change = (after.astype(float) - before) / 2 ** (bits - 8)
        assert abs(change.mean()) < 0.1
        for axis in (0, 1):
            shift_pixels, stretch = _displacement(change, before / 2 ** (bits - 8), axis)
            assert abs(shift_pixels) < 0.03
            assert abs(stretch) < 0.002


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("color", [SD, HD, UHD, SD_FULL, HD_FULL], ids=["601", "709", "2020", "601 full", "709 full"])
def test_rgb_is_what_the_standards_say(color: ColorTags, bits: Literal[8, 10]) -> None:
    wanted = _target(192, 108, color=color, bit_depth=bits)
    levels = _to_levels(PATCHES, color, bits).round().astype(np.uint8 if bits == 8 else np.uint16)
    planes = [
        np.tile(np.repeat(values, 192 // scale // 6), (108 // scale, 1))
        for values, scale in zip(levels.T, (1, 2, 2), strict=True)
    ]
    packed = np.concatenate([plane.ravel() for plane in planes]).reshape(162, 192)
    rgb = to_rgb(av.VideoFrame.from_ndarray(packed, format=wanted.pixel_format), wanted)
    truth = np.clip(_from_levels(levels.astype(float), color, bits), 0, 1) * np.iinfo(rgb.dtype).max
    seen = np.array([_patch_means(rgb[..., c], len(PATCHES)) for c in range(3)]).T
    # In levels of 8 bits, whatever the depth.
    assert np.abs(seen - truth).max() * 255 / np.iinfo(rgb.dtype).max < 1.0


# --- encode and join

H264 = _target(192, 108)
FORMATS: dict[str, VideoFormat] = {
    "h264": H264,
    "h264 10 bit": replace(H264, bit_depth=10, color=UHD),
    "hevc": replace(H264, codec="hevc", color=HD),
    "hevc 10 bit": replace(H264, codec="hevc", bit_depth=10, color=PQ, rate=Fraction(24)),
    "23.976": replace(H264, rate=FILM, color=HD_FULL),
    "29.97": replace(H264, rate=NTSC),
    "anamorphic": replace(H264, sample_aspect_ratio=Fraction(4, 3)),
    "turned": replace(H264, width=108, height=192, rotation=90),
    "upside down": replace(H264, rotation=180, codec="hevc"),
}


def _drawn(video_format: VideoFormat, numbers: range, clip_id: int = 6) -> Iterator[av.VideoFrame]:
    """Frames of a timeline that say which they are."""
    size = (video_format.width, video_format.height)
    upright = size if video_format.rotation % 180 == 0 else size[::-1]
    for n in numbers:
        rgb: Any = np.rot90(draw_frame(clip_id, n, upright), video_format.rotation // 90)
        yield to_yuv(rgb if video_format.bit_depth == 8 else rgb.astype(np.uint16) * 257, video_format)


def _unit(path: Path, video_format: VideoFormat, numbers: range, clip_id: int = 6) -> Part:
    encode_frames(_drawn(video_format, numbers, clip_id), path, video_format, len(numbers))
    return Part(path, FrameRange(0, len(numbers)))


def _ffprobe(path: Path, *wanted: str) -> dict[str, Any]:
    command = [str(FFPROBE), "-v", "error", "-select_streams", "v", *wanted, "-of", "json", str(path)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return answer


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_units_of_every_length_are_joined_frame_by_frame(tmp_path: Path, name: str) -> None:
    video_format = FORMATS[name]
    lengths = [1, 2, 3, 14, 1, 1, 5]
    starts = np.cumsum([0, *lengths]).tolist()
    parts = [_unit(tmp_path / f"{i}.mp4", video_format, range(starts[i], starts[i + 1])) for i in range(len(lengths))]
    joined = tmp_path / "joined.mp4"
    join_parts(parts, joined, video_format.rate)
    assert read_codes(joined) == [(6, n) for n in range(sum(lengths))]
    assert count_frames(joined) == sum(lengths)
    for path, count in ((parts[3].path, 14), (joined, sum(lengths))):
        with av.open(str(path)) as container:
            times = [(frame.pts or 0) * frame.time_base for frame in container.decode(video=0)]
        assert times == [n / video_format.rate for n in range(count)]
    again = read_output(joined, video_format, sum(lengths), FrameRange(5, 9))
    assert _codes(again, video_format) == [(6, n) for n in range(5, 9)]


@needs_ffmpeg
@pytest.mark.parametrize("name", FORMATS)
def test_other_players_find_nothing_wrong_and_every_tag(tmp_path: Path, name: str) -> None:
    wanted = FORMATS[name]
    parts = [_unit(tmp_path / f"{n}.mp4", wanted, range(n, n + length)) for n, length in ((0, 1), (1, 7), (8, 3))]
    joined = tmp_path / "joined.mp4"
    join_parts(parts, joined, wanted.rate)
    for path, count in ((parts[1].path, 7), (joined, 11)):
        complaints = subprocess.run(
            [str(FFMPEG), "-v", "error", "-i", str(path), "-f", "null", "-"], capture_output=True, check=True
        )
        assert complaints.stderr == b""
        found = _ffprobe(path, "-show_streams", "-show_packets")
        stream, packets = found["streams"][0], found["packets"]
        tick = Fraction(stream["time_base"])
        assert sorted(packet["pts"] * tick for packet in packets) == [n / wanted.rate for n in range(count)]
        decoding = [packet["dts"] for packet in packets]
        assert all(a < b for a, b in pairwise(decoding))
        assert all(packet["dts"] <= packet["pts"] for packet in packets)
        assert Fraction(stream["r_frame_rate"]) == Fraction(stream["avg_frame_rate"]) == wanted.rate
        assert int(stream["nb_frames"]) == count
        ratio = wanted.sample_aspect_ratio
        expected = {
            "codec_tag_string": "avc1" if wanted.codec == "h264" else "hvc1",
            "color_space": wanted.color.matrix,
            "color_primaries": wanted.color.primaries,
            "color_transfer": wanted.color.transfer,
            "color_range": "pc" if wanted.color.full_range else "tv",
            "sample_aspect_ratio": f"{ratio.numerator}:{ratio.denominator}",
        }
        assert {key: stream.get(key) for key in expected} == expected
        assert stream["pix_fmt"] in (wanted.pixel_format, wanted.pixel_format.replace("yuv420p", "yuvj420p"))
        # ffprobe counts counterclockwise.
        turned = [int(side.get("rotation", 0)) for side in stream.get("side_data_list", [])]
        assert -sum(turned) % 360 == wanted.rotation


def test_our_own_outputs_are_probed_as_what_they_are(tmp_path: Path) -> None:
    for name, wanted in FORMATS.items():
        clip = _probe(_unit(tmp_path / f"{name}.mp4", wanted, range(7)).path)
        assert (clip.frame_count, clip.rate, clip.is_constant_rate) == (7, wanted.rate, True)
        assert conform_reasons(clip, wanted) == ()


def test_a_joined_video_streams_from_its_first_byte(tmp_path: Path) -> None:
    joined = tmp_path / "joined.mp4"
    join_parts([_unit(tmp_path / "a.mp4", H264, range(5))], joined, H264.rate)
    data = joined.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_parts_may_leave_out_the_ends_of_a_predecessor(tmp_path: Path) -> None:
    head, body, tail = (
        _unit(tmp_path / f"{name}.mp4", H264, frames)
        for name, frames in (("head", range(3)), ("body", range(3, 20)), ("tail", range(20, 26)))
    )
    first = tmp_path / "first.mp4"
    join_parts([head, body, tail], first, H264.rate)
    other = _unit(tmp_path / "other.mp4", H264, range(9), clip_id=2)
    second = tmp_path / "second.mp4"
    join_parts([Part(other.path, FrameRange(0, 9)), Part(first, FrameRange(3, 20)), other], second, H264.rate)
    rest = [(2, n) for n in range(9)]
    assert read_codes(second) == [*rest, *((6, n) for n in range(3, 20)), *rest]


def test_joining_copies_packets_bit_by_bit(tmp_path: Path) -> None:
    parts = [_unit(tmp_path / f"{n}.mp4", H264, range(n, n + 8)) for n in (0, 8)]
    joined = tmp_path / "joined.mp4"
    join_parts(parts, joined, H264.rate)
    assert _packet_bytes(joined) == [packet for part in parts for packet in _packet_bytes(part.path)]


def _packet_bytes(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (FrameRange(0, 13), r"a\.mp4.*1 of 13 frames are missing"),
        (FrameRange(5, 12), r"a\.mp4.*keyframe"),
        (FrameRange(12, 14), r"a\.mp4.*missing"),
    ],
    ids=["too long", "not from a keyframe", "beyond the end"],
)
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_part_with_a_wrong_range_is_refused(tmp_path: Path, codec: Any, frames: FrameRange, message: str) -> None:
    good = _unit(tmp_path / "a.mp4", replace(H264, codec=codec), range(12))
    with pytest.raises(MediaError, match=message):
        join_parts([good, Part(good.path, frames)], tmp_path / "joined.mp4", H264.rate)
    assert _files(tmp_path) == ["a.mp4"]


def test_a_part_that_ends_between_b_frames_is_refused(tmp_path: Path) -> None:
    good = _unit(tmp_path / "a.mp4", H264, range(12))
    with av.open(str(good.path)) as container:
        numbers = [round(p.pts * p.time_base * 25) for p in container.demux(video=0) if p.pts is not None]
    stop = next(n for n in range(2, 12) if set(numbers[:n]) != set(range(n)))
    with pytest.raises(MediaError, match=r"a\.mp4.*frame \d+ came where"):
        join_parts([Part(good.path, FrameRange(0, stop))], tmp_path / "joined.mp4", H264.rate)
    assert _files(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    "other",
    [
        replace(H264, width=160),
        replace(H264, color=HD),
        replace(H264, codec="hevc"),
        replace(H264, bit_depth=10),
        replace(H264, sample_aspect_ratio=Fraction(4, 3)),
    ],
    ids=["size", "colour", "codec", "depth", "aspect"],
)
def test_parts_of_different_kinds_are_refused(tmp_path: Path, other: VideoFormat) -> None:
    parts = [_unit(tmp_path / "a.mp4", H264, range(3)), _unit(tmp_path / "b.mp4", other, range(3))]
    with pytest.raises(MediaError, match=r"a\.mp4 and .*b\.mp4 were encoded with different settings"):
        join_parts(parts, tmp_path / "joined.mp4", H264.rate)
    assert _files(tmp_path) == ["a.mp4", "b.mp4"]


def test_a_part_of_another_rate_is_refused(tmp_path: Path) -> None:
    other = _unit(tmp_path / "b.mp4", replace(H264, rate=Fraction(50)), range(8))
    with pytest.raises(MediaError, match=r"b\.mp4"):
        join_parts([other], tmp_path / "joined.mp4", H264.rate)
    assert _files(tmp_path) == ["b.mp4"]


@pytest.mark.parametrize("damage", ["missing", "text", "empty", "cut"])
def test_a_part_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    good = _unit(tmp_path / "good.mp4", H264, range(3))
    broken = tmp_path / "broken.mp4"
    if damage == "text":
        footage.write_text_as_video(broken)
    elif damage == "empty":
        footage.write_empty(broken)
    elif damage == "cut":
        broken.write_bytes(good.path.read_bytes()[:-600])
    with pytest.raises(MediaError, match=r"broken\.mp4.*same run_id"):
        join_parts([good, Part(broken, FrameRange(0, 3))], tmp_path / "joined.mp4", H264.rate)
    assert not (tmp_path / "joined.mp4").exists()
    assert not [name for name in _files(tmp_path) if name.startswith(PARTIAL_PREFIX)]


def test_the_number_of_frames_must_be_the_planned_one(tmp_path: Path) -> None:
    for came in (4, 6, 0):
        with pytest.raises(MediaError, match=rf"a\.mp4: {came} frames came to be encoded, needed are 5"):
            encode_frames(_drawn(H264, range(came)), tmp_path / "a.mp4", H264, 5)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("other", [replace(H264, width=160), replace(H264, bit_depth=10)])
def test_a_frame_of_another_kind_is_refused(tmp_path: Path, other: VideoFormat) -> None:
    with pytest.raises(MediaError, match=r"a frame of yuv420p.* came to be encoded as yuv420p 192x108"):
        encode_frames(_drawn(other, range(2)), tmp_path / "a.mp4", H264, 2)
    assert _files(tmp_path) == []


def test_an_error_of_the_frames_leaves_no_file_and_the_old_one_alone(tmp_path: Path) -> None:
    path = _unit(tmp_path / "a.mp4", H264, range(4)).path
    before = path.read_bytes()

    def stumbling() -> Iterator[av.VideoFrame]:
        yield from _drawn(H264, range(2))
        raise MediaError("the clip broke")

    with pytest.raises(MediaError, match="the clip broke"):
        encode_frames(stumbling(), path, H264, 4)
    assert _files(tmp_path) == ["a.mp4"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["h264", "h264 10 bit", "hevc"])
def test_the_same_frames_make_the_same_bytes(tmp_path: Path, name: str) -> None:
    one, other = (_unit(tmp_path / f"{n}.mp4", FORMATS[name], range(30)) for n in (1, 2))
    assert one.path.read_bytes() == other.path.read_bytes()
    for target in ("j1.mp4", "j2.mp4"):
        join_parts([one, other], tmp_path / target, FORMATS[name].rate)
    assert (tmp_path / "j1.mp4").read_bytes() == (tmp_path / "j2.mp4").read_bytes()


@pytest.mark.parametrize("name", ["h264", "hevc"])
def test_what_a_frame_was_does_not_tell_the_encoder_what_to_do(tmp_path: Path, name: str) -> None:
    """The same pixels, decoded from a file where each is a keyframe, and drawn."""
    lossless = tmp_path / "intra.mkv"
    with av.open(str(lossless), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        for frame in _drawn(FORMATS[name], range(12)):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    drawn = _unit(tmp_path / "drawn.mp4", FORMATS[name], range(12))
    with av.open(str(lossless)) as container:
        encode_frames(container.decode(video=0), tmp_path / "decoded.mp4", FORMATS[name], 12)
    assert (tmp_path / "decoded.mp4").read_bytes() == drawn.path.read_bytes()


# --- files that are complete or absent


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a file system of 64 kB; without the right to mount one, flushing says that it is full."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() == 0 and shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    yield folder


def _noise(video_format: VideoFormat, count: int) -> Iterator[av.VideoFrame]:
    random = np.random.default_rng(1)
    for _ in range(count):
        yield to_yuv(random.integers(0, 256, (video_format.height, video_format.width, 3), np.uint8), video_format)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_full_disk_is_said_and_leaves_nothing(full_disk: Path, codec: Any) -> None:
    video_format = replace(H264, codec=codec)
    path = full_disk / "a.mp4"
    with pytest.raises(MediaError, match=r"no space left for .*a\.mp4; free some .* run_id"):
        encode_frames(_noise(video_format, 30), path, video_format, 30)
    assert _files(full_disk) == []


def test_a_disk_that_fills_up_while_joining_leaves_nothing(full_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "whole.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "14"})
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        for frame in _noise(H264, 30):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert source.stat().st_size > 100_000
    with pytest.raises(MediaError, match=r"no space left for .*a\.mp4"):
        join_parts([Part(source, FrameRange(0, 30))], full_disk / "a.mp4", H264.rate)
    assert _files(full_disk) == []


def test_a_join_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "source.mp4", clip_id=0, frame_count=30, gop_frames=12)

    def interrupted(packets: Iterator[Any]) -> Iterator[Any]:
        yield from islice(packets, 5)
        raise InterruptedError("interrupted")

    parts = [clip_part(_probe(source), FrameRange(0, 30))]
    with pytest.raises(InterruptedError):
        join_parts(parts, tmp_path / "out" / "a.mp4", Fraction(25), watch=interrupted)
    assert _files(tmp_path / "out") == []


def test_outputs_get_the_rights_that_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = _unit(tmp_path / "a.mp4", H264, range(2)).path
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_atomic_output_shows_nothing_before_its_end(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "a.txt"
    with atomic_output(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        assert partial.name.startswith(PARTIAL_PREFIX)
        assert partial.parent == target.parent
    assert target.read_text() == "half"
    with pytest.raises(KeyboardInterrupt), atomic_output(target) as partial:
        partial.write_text("other")
        raise KeyboardInterrupt
    assert target.read_text() == "half"
    assert _files(target.parent) == ["a.txt"]


# --- what comes from outside


def _write_cover(path: Path) -> Path:
    """Sound with a cover picture."""
    made = Footage(clip_id=0, frame_count=25, tone_hz=440.0)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=25)
        picture.width, picture.height, picture.pix_fmt = 192, 108, "yuvj420p"
        picture.disposition = Disposition.attached_pic
        sound = footage._add_tone(container, path, made)
        cover = av.VideoFrame.from_ndarray(draw_frame(1, 1, (192, 108)), format="rgb24").reformat(format="yuvj420p")
        container.mux([*picture.encode(cover), *picture.encode(None)])
        for packet in footage._tone_packets(sound, made):
            container.mux_one(packet)
    return path


def _write_relative_concat(path: Path) -> Path:
    make_clip(path.parent / "other.mp4", clip_id=1, frame_count=5)
    return footage.write_playlist_as_video(path, path.parent / "other.mp4", "ffconcat")


def _write_playlist(path: Path) -> Path:
    make_clip(path.parent / "other.ts", clip_id=1, frame_count=5)
    return footage.write_playlist_as_video(path, path.parent / "other.ts", "m3u8")


def _write_folder(path: Path) -> Path:
    path.mkdir()
    return path


UNTRUSTED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "text": (footage.write_text_as_video, "can't be read as a video"),
    "m3u8": (_write_playlist, "can't be read as a video"),
    "ffconcat": (_write_relative_concat, "can't be read as a video"),
    "no index": (footage.write_without_index, "can't be read as a video"),
    "cut short": (footage.write_cut_short, "truncated: the file has"),
    "sound only": (footage.write_sound_only, "has no video stream"),
    "cover": (_write_cover, "has no video stream"),
    "empty": (footage.write_empty, "can't be read as a video"),
    "no frames": (footage.write_without_frames, "no frames"),
    "folder": (_write_folder, "not a file"),
    "missing": (lambda path: path, "no such file"),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".m3u8"])
@pytest.mark.parametrize("kind", ["text", "m3u8", "ffconcat", "empty", "folder", "missing"])
def test_no_video_under_any_name_is_refused_by_name(tmp_path: Path, kind: str, suffix: str) -> None:
    write, message = UNTRUSTED[kind]
    path = write(tmp_path / f"a{suffix}")
    with pytest.raises(RequestError, match=rf"a\{suffix}.*{message}"):
        _probe(path)


@pytest.mark.parametrize("kind", UNTRUSTED)
def test_what_is_no_whole_video_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    write, message = UNTRUSTED[kind]
    path = write(tmp_path / "a.mp4")
    with pytest.raises(RequestError, match=rf"a\.mp4.*{message}"):
        _probe(path)


def test_a_file_whose_sound_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", clip_id=1, frame_count=50, tone_hz=440.0, faststart=True)
    with av.open(str(path)) as container:
        end_of_pictures = max(entry.pos + entry.size for entry in container.streams.video[0].index_entries)
    assert end_of_pictures < path.stat().st_size
    path.write_bytes(path.read_bytes()[:end_of_pictures])
    with pytest.raises(RequestError, match=r"a\.mp4: truncated: the file has"):
        _probe(path)


def test_a_cut_matroska_file_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", clip_id=1, frame_count=100, gop_frames=12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RequestError, match=r"a\.mkv: truncated"):
        _probe(path)


def test_a_changed_file_is_probed_anew(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", clip_id=1, frame_count=10)
    before = _probe(path)
    make_clip(path, clip_id=1, frame_count=12)
    after = _probe(path)
    assert (before.frame_count, after.frame_count) == (10, 12)
    assert before.identity.sha256 != after.identity.sha256


def test_names_that_look_like_protocols_or_patterns_are_files(tmp_path: Path) -> None:
    for name in ("concat:a|b.mp4", "frame%03d.mp4", "http:x.mp4", "ä ö.mp4", "-a.mp4"):
        made = make_clip(tmp_path / "plain.mp4", clip_id=1, frame_count=3)
        assert _probe(made.rename(tmp_path / name)).frame_count == 3


# --- blending


@pytest.mark.parametrize(("bits", "top"), [(8, 255), (10, 1023)])
def test_mixing_is_rounded_to_the_nearest_level(bits: Literal[8, 10], top: int) -> None:
    kind: Any = np.uint8 if bits == 8 else np.uint16
    random = np.random.default_rng(2)
    one, other = (random.integers(0, top + 1, (162, 192)).astype(kind) for _ in range(2))
    name = _target(192, 108, bit_depth=bits).pixel_format
    first, second = (av.VideoFrame.from_ndarray(values, format=name) for values in (one, other))
    for share in (Fraction(0), Fraction(1, 4), Fraction(1, 3), Fraction(8, 9), Fraction(1)):
        mixed = mix_frames(first, second, share).to_ndarray()
        assert np.abs(mixed - (one * (1 - float(share)) + other * float(share))).max() <= 0.5 + 1e-6


def test_frames_of_different_kinds_are_not_mixed() -> None:
    with pytest.raises(MediaError, match=r"can't be mixed"):
        mix_frames(av.VideoFrame(192, 108, "yuv420p"), av.VideoFrame(192, 108, "yuv420p10le"), Fraction(1, 2))


# --- many at once, and long


def test_many_threads_at_once_make_the_same_as_one(tmp_path: Path) -> None:
    clips = [
        _probe(make_clip(tmp_path / f"{n}.mp4", clip_id=n, frame_count=30, matrix=matrix, full_range=n % 2 == 0))
        for n, matrix in enumerate(("bt601", "bt709", "bt601", "bt709"))
    ]
    wanted = _target(160, 90, color=HD)
    started = threading.Barrier(4)

    def work(n: int, folder: str) -> bytes:
        if folder == "together":
            started.wait()
        path = tmp_path / folder / f"{n}.mp4"
        frames = (to_yuv(to_rgb(frame, wanted), wanted) for frame in read_frames(clips[n], wanted, FrameRange(3, 30)))
        encode_frames(frames, path, wanted, 27)
        join_parts([Part(path, FrameRange(0, 27))] * 2, path, wanted.rate)
        return path.read_bytes()

    alone = [work(n, "alone") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(4), ["together"] * 4))
    assert together == alone
    assert [path.name for path in (tmp_path / "together").iterdir() if path.name.startswith(PARTIAL_PREFIX)] == []


GROWTH = """
import resource, sys
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
import numpy as np
from splice.format import choose_format
from splice.media import Part, encode_frames, join_parts, probe_clip, read_frames, to_rgb, to_yuv
from splice.request import parse_request
from splice.types import FrameRange

folder, count = Path(sys.argv[1]), int(sys.argv[2])
clip = probe_clip(0, "clip", str(folder / f"{count}.mp4"))
request = parse_request({"clip_list": [{"url": "a"}, {"url": "b"}], "run_id": "r", "resolution": [480, 270]})
wanted = choose_format(request, [clip])
whole = FrameRange(0, count)
frames = (to_yuv(to_rgb(frame, wanted), wanted) for frame in read_frames(clip, wanted, whole))
encode_frames(frames, folder / "unit.mp4", wanted, count)
join_parts([Part(folder / "unit.mp4", whole)] * 2, folder / "joined.mp4", wanted.rate)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    peak_kilobytes = []
    for count in (80, 240):
        make_clip(tmp_path / f"{count}.mp4", clip_id=1, frame_count=count, gop_frames=250)
        command = [sys.executable, "-c", GROWTH, str(tmp_path), str(count)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        peak_kilobytes.append(int(answer.stdout))
    # 160 frames of 480 x 270 are 31 MB, as RGB twice that.
    assert peak_kilobytes[1] - peak_kilobytes[0] < 12_000, peak_kilobytes
