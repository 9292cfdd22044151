"""The footage generator against itself, and against Debian's ffprobe and ffmpeg, which know nothing of PyAV."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests import footage
from tests.footage import Edit, Image, draw_frame, make_clip, read_code, read_codes, read_pictures

FFMPEG, FFPROBE = shutil.which("ffmpeg", path="/usr/bin"), shutil.which("ffprobe", path="/usr/bin")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None or FFPROBE is None, reason="needs Debian's ffmpeg as judge")

FRAMES = 40
ALTERNATING = [Fraction(n // 2, 10) + Fraction(n % 2, 30) for n in range(FRAMES)]
VFR: dict[str, Any] = {"timestamps": ALTERNATING, "rate": Fraction(20), "last_duration": Fraction(1, 15)}

# name: options, and what ffprobe must say of the picture.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "closed-12.mp4": ({"gop_frames": 12}, {"codec_name": "h264", "has_b_frames": 2, "r_frame_rate": "25/1"}),
    "closed-48.mov": ({}, {"codec_tag_string": "avc1", "field_order": "progressive"}),
    "closed-250.mkv": ({"gop_frames": 250}, {"codec_name": "h264"}),
    "closed.ts": ({"gop_frames": 12}, {"codec_name": "h264", "time_base": "1/90000"}),
    "no-b.mp4": ({"b_frames": 0}, {"has_b_frames": 0}),
    "open.mp4": ({"open_gop": True, "gop_frames": 12, "b_frames": 3}, {"has_b_frames": 2}),
    "hevc.mp4": ({"codec": "hevc", "gop_frames": 12, "codec_tag": "hvc1"}, {"codec_tag_string": "hvc1"}),
    "hevc-open.mp4": ({"codec": "hevc", "gop_frames": 12, "open_gop": True}, {"codec_tag_string": "hev1"}),
    "vp9.webm": ({"codec": "vp9"}, {"codec_name": "vp9"}),
    "vp9.mkv": ({"codec": "vp9", "gop_frames": 12}, {"codec_name": "vp9"}),
    "mpeg2.mpg": ({"codec": "mpeg2", "gop_frames": 12}, {"codec_name": "mpeg2video", "has_b_frames": 1}),
    "mpeg2.ts": ({"codec": "mpeg2", "gop_frames": 12}, {"codec_name": "mpeg2video"}),
    "24.mp4": ({"rate": Fraction(24)}, {"r_frame_rate": "24/1", "avg_frame_rate": "24/1"}),
    "29.97.mp4": ({"rate": Fraction(30000, 1001)}, {"r_frame_rate": "30000/1001", "avg_frame_rate": "30000/1001"}),
    "30.mkv": ({"rate": Fraction(30)}, {"avg_frame_rate": "30/1"}),
    "23.976.ts": ({"rate": Fraction(24000, 1001)}, {"avg_frame_rate": "24000/1001"}),
    "vfr.mp4": (VFR, {"avg_frame_rate": "20/1", "duration": "2.000000"}),
    "vfr.mkv": (VFR, {}),
    "turned-90.mp4": ({"rotation": 90}, {"width": 108, "height": 192}),
    "turned-180.mkv": ({"rotation": 180}, {"width": 192, "height": 108}),
    "turned-270.mov": ({"rotation": 270}, {"width": 108, "height": 192}),
    "anamorphic.mp4": ({"sample_aspect": Fraction(4, 3)}, {"sample_aspect_ratio": "4:3"}),
    "anamorphic.mkv": ({"sample_aspect": Fraction(4, 3)}, {"sample_aspect_ratio": "4:3"}),
    "anamorphic.mpg": (
        {"codec": "mpeg2", "size": (192, 144), "sample_aspect": Fraction(4, 3)},
        {"sample_aspect_ratio": "4:3", "display_aspect_ratio": "16:9"},
    ),
    "odd-444.mp4": ({"size": (193, 109), "pixel_format": "yuv444p"}, {"width": 193, "height": 109}),
    "odd.webm": ({"size": (193, 109), "codec": "vp9"}, {"width": 193, "height": 109}),
    "odd.ts": ({"size": (193, 109), "codec": "mpeg2"}, {"width": 193, "height": 109}),
    "odd.mkv": ({"size": (193, 109), "codec": "ffv1"}, {"width": 193, "height": 109}),
    "ten-bit.mp4": ({"pixel_format": "yuv420p10le"}, {"codec_name": "h264", "pix_fmt": "yuv420p10le"}),
    "ten-bit-hevc.mp4": ({"codec": "hevc", "pixel_format": "yuv420p10le"}, {"pix_fmt": "yuv420p10le"}),
    "full.mp4": ({"full_range": True, "matrix": "bt709"}, {"color_range": "pc", "color_space": "bt709"}),
    "full-hevc.mp4": ({"full_range": True, "codec": "hevc"}, {"color_range": "pc", "color_space": None}),
    "601.mp4": (
        {"full_range": False, "matrix": "bt601"},
        dict.fromkeys(("color_space", "color_transfer", "color_primaries"), "smpte170m") | {"color_range": "tv"},
    ),
    "709.webm": (
        {"full_range": False, "matrix": "bt709", "codec": "vp9"},
        dict.fromkeys(("color_space", "color_transfer", "color_primaries"), "bt709") | {"color_range": "tv"},
    ),
    "hdr.mp4": (
        {"full_range": False, "matrix": "bt2020", "hdr": "pq", "codec": "hevc", "pixel_format": "yuv420p10le"},
        {"color_space": "bt2020nc", "color_transfer": "smpte2084", "color_primaries": "bt2020", "color_range": "tv"},
    ),
    "untagged.mp4": (
        {},
        dict.fromkeys(("color_space", "color_transfer", "color_primaries", "color_range")),
    ),
    "interlaced.mp4": ({"interlaced": True, "matrix": "bt709"}, {"field_order": "tt", "color_space": "bt709"}),
    "interlaced.mpg": ({"interlaced": True, "codec": "mpeg2"}, {"field_order": "tt"}),
    "small.mp4": ({"size": (96, 64)}, {"width": 96, "height": 64}),
    "portrait.mp4": ({"size": (108, 192)}, {"width": 108, "height": 192}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_reads_back_in_order_and_is_tagged(tmp_path: Path, name: str) -> None:
    options, expected = VARIANTS[name]
    path = make_clip(tmp_path / name, clip_id=7, frame_count=FRAMES, **options)
    assert read_codes(path) == [(7, n) for n in range(FRAMES)]
    if FFPROBE:
        stream = _probe(path)
        assert {key: stream.get(key) for key in expected} == expected
        assert int(stream["nb_read_packets"]) == FRAMES


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "mpeg2"])
def test_code_survives_lossy_coding_and_scaling(tmp_path: Path, codec: str) -> None:
    path = make_clip(tmp_path / "a.mkv", clip_id=6, frame_count=FRAMES, codec=codec)
    for scale, kind in [(0.5, cv2.INTER_AREA), (0.5, cv2.INTER_CUBIC), (2, cv2.INTER_CUBIC), (1.37, cv2.INTER_LINEAR)]:
        scaled = [cv2.resize(seen, None, fx=scale, fy=scale, interpolation=kind) for seen in read_pictures(path)]
        codes = [read_code(np.asarray(seen, dtype=np.uint8)) for seen in scaled]
        assert codes == [(6, n) for n in range(FRAMES)]


@needs_ffmpeg
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_other_players_turn_it_upright(tmp_path: Path, degrees: int) -> None:
    path = make_clip(tmp_path / "turned.mp4", clip_id=2, frame_count=3, rotation=degrees)
    assert _ffmpeg_codes(path, (192, 108)) == [(2, 0), (2, 1), (2, 2)]


@needs_ffmpeg
@pytest.mark.parametrize("name", ["full.mp4", "full-hevc.mp4", "601.mp4", "709.webm", "hdr.mp4", "untagged.mp4"])
def test_pictures_are_coded_as_they_are_tagged(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / name, clip_id=7, frame_count=1, **VARIANTS[name][0])
    seen, drawn = _ffmpeg_pictures(path, (192, 108))[0].astype(int), draw_frame(7, 0, (192, 108)).astype(int)
    # Measured for clip 7: 0.8 at most when right, 1.7 or more with another matrix, 5 or more with the other range.
    assert np.abs((seen - drawn).mean(axis=(0, 1))).max() < 1.0


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "h264"), ("a.mpg", "mpeg2")])
def test_interlaced_frames_say_so(tmp_path: Path, name: str, codec: str) -> None:
    path = make_clip(tmp_path / name, clip_id=7, frame_count=5, codec=codec, interlaced=True)
    with av.open(str(path)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_varying_rate_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    path = make_clip(tmp_path / f"vfr.{suffix}", clip_id=1, frame_count=FRAMES, **VFR)
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    # Matroska counts in milliseconds.
    assert times == pytest.approx([float(seconds) for seconds in ALTERNATING], abs=0.0006)


@pytest.mark.parametrize(
    ("name", "options", "leading"),
    [
        ("h264.mp4", {}, False),
        ("h264-open.mp4", {"open_gop": True, "b_frames": 3}, True),
        ("hevc.mp4", {"codec": "hevc"}, False),
        ("hevc-open.mp4", {"codec": "hevc", "open_gop": True}, True),
        ("mpeg2.mpg", {"codec": "mpeg2"}, False),
        ("mpeg2-open.mpg", {"codec": "mpeg2", "open_gop": True}, True),
    ],
)
def test_only_open_gops_have_leading_pictures(
    tmp_path: Path, name: str, options: dict[str, Any], leading: bool
) -> None:
    path = make_clip(tmp_path / name, clip_id=7, frame_count=FRAMES, gop_frames=12, **options)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [n for n, packet in enumerate(packets) if packet.is_keyframe]
    assert len(keys) == 4
    followers = [(packets[k].pts, packet.pts) for k in keys for packet in packets[k + 1 : k + 4]]
    assert any(b < a for a, b in followers if a is not None and b is not None) is leading


@pytest.mark.parametrize("hidden", [1, 12, 17])
def test_hidden_frames_are_not_shown(tmp_path: Path, hidden: int) -> None:
    path = make_clip(
        tmp_path / "trimmed.mp4", clip_id=3, frame_count=FRAMES, gop_frames=12, hidden_frames=hidden, tone_hz=440.0
    )
    assert read_codes(path) == [(3, n) for n in range(hidden, FRAMES)]
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == FRAMES
        first = next(container.decode(video=0))
        assert first.pts == 0
    if FFMPEG:
        assert _ffmpeg_codes(path, (192, 108)) == [(3, n) for n in range(hidden, FRAMES)]


@pytest.mark.parametrize(
    ("edits", "start", "frames"),
    [
        ([Edit(Fraction(1), Fraction(0))], 0, range(25)),
        ([Edit(Fraction(1), Fraction(8, 25))], 0, range(8, 33)),
        ([Edit(Fraction(1, 2), None), Edit(Fraction(2), Fraction(0))], Fraction(1, 2), range(50)),
        ([Edit(Fraction(1), Fraction(0)), Edit(Fraction(2), Fraction(0))], 0, [*range(25), *range(50)]),
    ],
    ids=["end trimmed", "both ends trimmed", "delayed", "repeated"],
)
def test_rewritten_edit_lists(tmp_path: Path, edits: list[Edit], start: Fraction, frames: list[int]) -> None:
    plain = make_clip(tmp_path / "plain.mp4", clip_id=4, frame_count=50)
    path = footage.rewrite_edit_list(plain, tmp_path / "edited.mp4", edits)
    assert read_codes(path) == [(4, n) for n in frames]
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time == start


def test_an_edit_of_another_speed_is_written(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mp4", clip_id=4, frame_count=50)
    edits = [Edit(Fraction(1), Fraction(0), rate=Fraction(2))]
    data = footage.rewrite_edit_list(plain, tmp_path / "fast.mp4", edits).read_bytes()
    # FFmpeg reads the rate and ignores it, so only the bytes can tell: one entry, its last 32 bits 2.0.
    assert data[data.index(b"elst") + 20 :][:4] == bytes([0, 2, 0, 0])


@pytest.mark.parametrize(
    ("name", "codec", "early"),
    [
        ("a.mp4", "h264", 0),
        ("a.mov", "h264", 0),
        ("a.mkv", "h264", 0),
        ("a.ts", "h264", 1024),
        ("a.webm", "vp9", 0),
        ("a.mpg", "mpeg2", 481),
    ],
)
def test_sound_begins_with_the_picture(tmp_path: Path, name: str, codec: str, early: int) -> None:
    path = make_clip(tmp_path / name, clip_id=1, frame_count=50, codec=codec, tone_hz=100.0)
    sound, lead_samples = _sound(path)
    # ts and mpg have no way to hide what the sound encoder puts in front; it is stamped before the picture.
    expected = 0.25 * np.sin(2 * np.pi * 100 * (np.arange(sound.size) - lead_samples) / 48000)
    # One tick of 1/90000 is half a sample.
    assert lead_samples == pytest.approx(early, abs=1)
    assert np.abs(sound - expected)[early + 2400 : 90000].max() < 0.02
    assert sound.size - lead_samples >= 2 * 48000 - 1


def test_sound_is_trimmed_with_the_picture(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", clip_id=1, frame_count=50, hidden_frames=7, tone_hz=100.0)
    sound, lead_samples = _sound(path)
    expected = 0.25 * np.sin(2 * np.pi * 100 * (np.arange(sound.size) - lead_samples) / 48000)
    assert np.abs(sound - expected)[2400:80000].max() < 0.02


@pytest.mark.parametrize("size", [(96, 64), (192, 108), (193, 109), (108, 192), (320, 240), (640, 360)])
def test_code_survives_what_a_conform_does(size: tuple[int, int]) -> None:
    width, height = size
    for clip_id, frame in [(0, 0), (1, 1), (5, 300), (9, 5327), (15, 65535)]:
        picture = draw_frame(clip_id, frame, size)
        half = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        double = cv2.resize(picture, (width * 2, height * 2), interpolation=cv2.INTER_CUBIC)
        narrow = cv2.resize(picture, (width * 3 // 4, height), interpolation=cv2.INTER_AREA)
        dark = np.asarray(picture * (219 / 255) + 16, dtype=np.uint8)
        for seen in (picture, half, double, narrow, dark, *_crops(picture)):
            assert read_code(np.asarray(seen, dtype=np.uint8)) == (clip_id, frame)


def test_mixed_turned_and_foreign_pictures_have_no_code() -> None:
    one, other = draw_frame(3, 10, (192, 108)), draw_frame(3, 11, (192, 108))
    for share in (0.25, 0.5, 0.75):
        assert read_code(_mix(one, other, share)) is None
    assert read_code(_mix(one, other, 0.1)) == (3, 10)
    assert read_code(np.rot90(one)) is None
    assert read_code(np.rot90(one, 2)) is None
    assert read_code(one[:, ::-1]) is None
    noise = np.random.default_rng(1).integers(0, 256, (200, 108, 192, 3), dtype=np.uint8)
    assert [read_code(picture) for picture in noise] == [None] * 200
    for level in (0, 128, 255):
        assert read_code(np.full((108, 192, 3), level, dtype=np.uint8)) is None


def test_footage_refuses_what_no_file_could_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no odd sizes"):
        footage.Footage(clip_id=0, frame_count=1, size=(193, 109))
    with pytest.raises(ValueError, match="4:3 or 16:9"):
        footage.Footage(clip_id=0, frame_count=1, codec="mpeg2", sample_aspect=Fraction(4, 3))
    with pytest.raises(ValueError, match="timestamps"):
        footage.Footage(clip_id=0, frame_count=3, timestamps=[Fraction(0)])
    with pytest.raises(ValueError, match="edit lists"):
        make_clip(tmp_path / "a.mkv", clip_id=0, frame_count=3, hidden_frames=1)
    with pytest.raises(TypeError, match="frames_count"):
        make_clip(tmp_path / "a.mp4", clip_id=0, frames_count=3)


def test_same_options_give_the_same_bytes(tmp_path: Path) -> None:
    first = make_clip(tmp_path / "1.mp4", clip_id=0, frame_count=30, tone_hz=440.0).read_bytes()
    assert make_clip(tmp_path / "2.mp4", clip_id=0, frame_count=30, tone_hz=440.0).read_bytes() == first


def test_broken_files_are_broken_as_promised(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", clip_id=0, frame_count=50)
    unreadable = [
        footage.write_text_as_video(tmp_path / "text.mp4"),
        footage.write_without_index(tmp_path / "no-index.mp4"),
        footage.write_empty(tmp_path / "empty.mp4"),
    ]
    for path in unreadable:
        with pytest.raises(av.InvalidDataError):
            av.open(str(path))
    with av.open(str(footage.write_sound_only(tmp_path / "sound.mp4"))) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
    assert read_codes(footage.write_without_frames(tmp_path / "no-frames.mp4")) == []
    short = footage.write_cut_short(tmp_path / "short.mp4")
    with av.open(str(short)) as container:
        assert container.streams.video[0].frames == 50
        assert 0 < sum(packet.size > 0 for packet in container.demux(video=0)) < 50
    # What makes playlists dangerous: FFmpeg follows them, whatever the file is called.
    assert len(read_codes(footage.write_playlist_as_video(tmp_path / "list.mp4", clip, "ffconcat"))) == 50
    if FFPROBE:
        assert _probe(footage.write_playlist_as_video(tmp_path / "hls.mp4", clip, "m3u8"))["codec_name"] == "h264"


def _crops(picture: Image) -> list[Image]:
    """The largest centred 1:1, 4:3 and 16:9 parts."""
    height, width = picture.shape[:2]
    parts = []
    for aspect in (Fraction(1), Fraction(4, 3), Fraction(16, 9)):
        across, down = min(width, int(height * aspect)), min(height, int(width / aspect))
        left, top = (width - across) // 2, (height - down) // 2
        parts.append(picture[top : top + down, left : left + across])
    return parts


def _mix(one: Image, other: Image, share: float) -> Image:
    return (one * (1 - share) + other * share).astype(np.uint8)


def _sound(path: Path) -> tuple[np.ndarray[Any, Any], int]:
    """First channel of the sound as decoded, and how many of its samples come before the first picture."""
    with av.open(str(path)) as container:
        picture_seconds = next(container.decode(video=0)).time or 0.0
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=48000)
    parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    return np.concatenate(parts), round((picture_seconds - (frames[0].time or 0.0)) * 48000)


def _probe(path: Path) -> dict[str, Any]:
    """Debian's ffprobe on the picture stream."""
    command = [str(FFPROBE), "-v", "error", "-select_streams", "v", "-count_packets", "-show_streams", "-of", "json"]
    answer = subprocess.run([*command, str(path)], capture_output=True, check=True, text=True)
    stream: dict[str, Any] = json.loads(answer.stdout)["streams"][0]
    return stream


def _ffmpeg_codes(path: Path, size: tuple[int, int]) -> list[footage.Code | None]:
    """What Debian's ffmpeg shows of a file, turned as it sees fit."""
    return [read_code(picture) for picture in _ffmpeg_pictures(path, size)]


def _ffmpeg_pictures(path: Path, size: tuple[int, int]) -> Image:
    """N x H x W x 3 RGB by Debian's ffmpeg, for pictures of (W, H) as shown."""
    output = [
        "-fps_mode",
        "passthrough",
        "-sws_flags",
        "accurate_rnd+full_chroma_int+bicubic",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    command = [str(FFMPEG), "-v", "error", "-i", str(path), *output]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, size[1], size[0], 3)
