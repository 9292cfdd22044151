"""Footage that says which frame it is: clip id and frame number stand in every picture as black and white blocks.

    make_clip(path, clip_id=3, frame_count=50)      writes a file
    read_codes(path)                                [(3, 0), (3, 1), ... (3, 49)]

Whatever happens to a picture on its way (lossy coding, scaling, centre crops, colour conversion), `read_code` tells
which source frame it was, or None where it is none of them. Nothing here uses the project's own media code, so that
it can be its judge.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import av
import av.container
import av.filter
import cv2
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream

Image: TypeAlias = npt.NDArray[np.uint8]
Code: TypeAlias = tuple[int, int]
CodecName: TypeAlias = Literal["h264", "hevc", "vp9", "mpeg2", "ffv1"]
Matrix: TypeAlias = Literal["bt601", "bt709", "bt2020"]

DATA_CELLS = 6
# The white ring around the data is half a cell wide, so the whole code measures one cell more than its data.
CODE_CELLS = DATA_CELLS + 1
# 7 cells of 7.5% are 52% of the shorter side: what a 9:16 picture keeps of it when cropped to 16:9 is 56%.
CELL_SHARE = 0.075
MIN_CELL_PIXELS = 4
# Frame numbers are small, which would make the code mostly black; any constant with as many ones as zeros would do.
WHITENING = 0x9A6_35C9_A56C & (1 << DATA_CELLS**2) - 1
# The background stays below half of white, so that only the ring and the data reach this share of the contrast.
RING_LEVEL = 0.72
# A blend of 25%, the mildest that the default of 3 blend frames makes, must not be read as a source frame.
MAX_CELL_ERROR = 0.2
MIN_CONTRAST = 90.0
# swscale's default rounds down, by one level in the mean of a picture.
ACCURATE = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def draw_frame(clip_id: int, frame: int, size: tuple[int, int]) -> Image:
    """Draw frame `frame` (0..65535) of clip `clip_id` (0..15): H x W x 3 RGB for size (W, H), at least 48 each."""
    width, height = size
    speed = max(1, width // 192)
    shift_y, shift_x = (-1) ** clip_id * speed * frame // 2, speed * frame
    picture: Image = np.roll(_background(clip_id, size), (shift_y, shift_x), axis=(0, 1))
    blocks = _code_blocks(clip_id, frame, max(MIN_CELL_PIXELS, round(CELL_SHARE * min(size))))
    side = blocks.shape[0]
    top, left = (height - side) // 2, (width - side) // 2
    picture[top : top + side, left : left + side] = blocks[:, :, None]
    return picture


@lru_cache(maxsize=32)
def _background(clip_id: int, size: tuple[int, int]) -> Image:
    """Cloudy texture in the clip's own hue, H x W x 3, luma 45..135; periodic, so that it can roll without a seam."""
    width, height = size
    noise = np.random.default_rng(clip_id).standard_normal((2, height, width))
    # Frequencies per picture, not per pixel: the same texture at every size.
    radius = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None, :] * height)
    spectrum = np.exp(-((radius / 12) ** 2)) / (1 + radius)
    texture = np.fft.ifft2(np.fft.fft2(noise) * spectrum).real
    texture = np.clip(texture / (2.5 * texture.std(axis=(1, 2), keepdims=True)), -1, 1)
    angle = 2 * np.pi * clip_id / 16 + 0.5 * texture[1]
    tint = np.stack([np.cos(angle), np.cos(angle - 2 * np.pi / 3), np.cos(angle + 2 * np.pi / 3)], axis=2)
    tint -= (tint @ LUMA_WEIGHTS)[:, :, None]
    rgb = 90 + 45 * texture[0][:, :, None] + 25 * tint
    return np.asarray(np.clip(rgb, 0, 255).round(), dtype=np.uint8)


def _code_blocks(clip_id: int, frame: int, cell: int) -> Image:
    """The code as a square grey image of about 7 cells of `cell` pixels a side, ring included."""
    value = _with_checksum(clip_id, frame) ^ WHITENING
    bits = np.array([value >> n & 1 for n in range(DATA_CELLS**2)], dtype=np.uint8).reshape(DATA_CELLS, DATA_CELLS)
    data = np.kron(bits * np.uint8(255), np.ones((cell, cell), dtype=np.uint8))
    return np.pad(data, (cell + 1) // 2, constant_values=255)


def _with_checksum(clip_id: int, frame: int) -> int:
    """36 bits: clip id, frame number and a CRC-16 of both."""
    if not (0 <= clip_id < 16 and 0 <= frame < 65536):
        raise ValueError(f"clip {clip_id}, frame {frame}: a code holds clips 0..15 and frames 0..65535")
    payload = clip_id << 16 | frame
    return payload << 16 | binascii.crc_hqx(payload.to_bytes(3, "big"), 0xFFFF)


def read_code(rgb: Image) -> Code | None:
    """(clip id, frame number) of an upright H x W x 3 RGB picture, or None where it shows no source frame.

    Mixing in up to about 15% of another frame still reads as the stronger of the two; 25% and more gives None.
    """
    luma = rgb.astype(np.float32) @ LUMA_WEIGHTS
    levels = _normalised(luma)
    if levels is None:
        return None
    height, width = levels.shape
    reach = max(1, round(0.15 * min(height, width)))
    rows = levels[height // 2 - reach : height // 2 + reach]
    columns = levels[:, width // 2 - reach : width // 2 + reach]
    across, down = _white_span(rows.mean(axis=0)), _white_span(columns.mean(axis=1))
    if across is None or down is None:
        return None
    return _decode(_sample_cells(levels, across, down))


def read_codes(path: Path) -> list[Code | None]:
    """What every displayed frame of a file says, in order: sequential decode, turned upright, nothing skipped."""
    return [read_code(picture) for picture in read_pictures(path)]


def read_pictures(path: Path) -> Iterator[Image]:
    """Every displayed frame of a file in order, H x W x 3 RGB, upright as its display matrix demands."""
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            quarter_turns = round(frame.rotation / 90) % 4
            rgb = frame.to_ndarray(format="rgb24", interpolation=ACCURATE)
            yield np.ascontiguousarray(np.rot90(rgb, quarter_turns), dtype=np.uint8)


def _normalised(luma: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """H x W luma scaled so that the code's black is 0 and its white 1; None without contrast in the middle."""
    height, width = luma.shape
    top, left = max(0, height - width) // 2, max(0, width - height) // 2
    middle = luma[top : height - top, left : width - left]
    # The code covers a quarter of this square or more: its ring alone 7%, the 6 black cells of the whitest 3%.
    black, white = np.percentile(middle, (1, 95))
    if white - black < MIN_CONTRAST:
        return None
    return np.asarray((luma - black) / (white - black), dtype=np.float32)


def _white_span(profile: npt.NDArray[np.float32]) -> tuple[float, float] | None:
    """Outer edges (pixels, sub-pixel, 0 = left edge of the first pixel) of the white ring in a mean profile."""
    white = np.flatnonzero(profile > RING_LEVEL)
    if white.size < 2:
        return None
    first, last = int(white[0]), int(white[-1])
    start, stop = float(first), float(last + 1)
    if first > 0:
        start = first + 0.5 - float((profile[first] - RING_LEVEL) / (profile[first] - profile[first - 1]))
    if last + 1 < profile.size:
        stop = last + 0.5 + float((profile[last] - RING_LEVEL) / (profile[last] - profile[last + 1]))
    return start, stop


def _sample_cells(
    levels: npt.NDArray[np.float32], across: tuple[float, float], down: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Mean level (0 black, 1 white) at the heart of each of the 6 x 6 data cells."""
    samples = 8
    step_x = (across[1] - across[0]) / (CODE_CELLS * samples)
    step_y = (down[1] - down[0]) / (CODE_CELLS * samples)
    half_ring = samples // 2
    to_source = np.array(
        [
            [step_x, 0, across[0] + (half_ring + 0.5) * step_x - 0.5],
            [0, step_y, down[0] + (half_ring + 0.5) * step_y - 0.5],
        ]
    )
    side = DATA_CELLS * samples
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    square = cv2.warpAffine(levels, to_source, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    cells = square.reshape(DATA_CELLS, samples, DATA_CELLS, samples)
    heart = slice(samples // 2 - 1, samples // 2 + 1)
    return np.asarray(cells[:, heart, :, heart].mean(axis=(1, 3)), dtype=np.float32)


def _decode(cells: npt.NDArray[np.float32]) -> Code | None:
    """The code in 6 x 6 cell levels; None where a cell is grey or the checksum is wrong."""
    bits = cells > 0.5
    if np.abs(cells - bits).max() > MAX_CELL_ERROR:
        return None
    value = sum(1 << n for n in np.flatnonzero(bits.ravel()).tolist()) ^ WHITENING
    clip_id, frame = value >> 32, value >> 16 & 0xFFFF
    return (clip_id, frame) if value == _with_checksum(clip_id, frame) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Footage:
    """What to make: the pictures, how they are coded, and what the container says about them.

    `size` is (W, H) as shown, after `rotation`; the coded picture of a quarter turn is H x W.
    """

    clip_id: int
    frame_count: int
    codec: CodecName = "h264"
    rate: Fraction = Fraction(25)
    size: tuple[int, int] = (192, 108)
    pixel_format: str = "yuv420p"
    gop_frames: int = 48
    b_frames: int = 2
    open_gop: bool = False
    #: Display time of each frame in seconds, rising; None: frame n at n / rate.
    timestamps: Sequence[Fraction] | None = None
    #: How long the last frame is shown when `timestamps` are given; None: one frame of `rate`.
    last_duration: Fraction | None = None
    #: Degrees counterclockwise that a player must turn the coded picture by: 0, 90, 180 or 270.
    rotation: int = 0
    sample_aspect: Fraction | None = None
    #: Frames at the start that an edit list hides (mp4 and mov only); they are frames 0.. of the numbering.
    hidden_frames: int = 0
    #: Matrix and primaries, and the transfer that goes with them; None: BT.601, untagged.
    matrix: Matrix | None = None
    #: Tag the transfer as PQ or HLG; the pictures are the same, only what they claim to be is HDR.
    hdr: Literal["pq", "hlg"] | None = None
    #: True: 0..255, tagged; False: 16..235, tagged; None: 16..235, untagged.
    full_range: bool | None = None
    interlaced: bool = False
    #: A sine of this pitch as sound track as long as the shown picture; None: no sound track.
    tone_hz: float | None = None
    sample_rate: int = 48000
    channels: Literal[1, 2] = 2
    codec_tag: str | None = None
    faststart: bool = False
    #: FFmpeg's options of the encoder, over those chosen here; x264-params and x265-params are added to them.
    encoder_options: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse what would silently make a file that says something else."""
        width, height = self.size
        if self.codec == "mpeg2" and self.sample_aspect is not None:
            # MPEG-2 stores the aspect of the whole picture, from a short list, and FFmpeg takes the nearest.
            shown = self.sample_aspect * Fraction(*self.coded_size)
            if shown not in (Fraction(4, 3), Fraction(16, 9)):
                raise ValueError(f"mpeg2 shows pictures as 4:3 or 16:9, not {shown}: choose another size")
        if self.codec in ("h264", "hevc") and self.pixel_format.startswith("yuv420") and (width % 2 or height % 2):
            raise ValueError(f"{self.codec} has no odd sizes in 4:2:0: use yuv444p, vp9, mpeg2 or ffv1 for {self.size}")
        if self.timestamps is not None and len(self.timestamps) != self.frame_count:
            raise ValueError(f"{len(self.timestamps)} timestamps for {self.frame_count} frames")

    @property
    def coded_size(self) -> tuple[int, int]:
        """(W, H) of the pictures in the stream."""
        return self.size if self.rotation % 180 == 0 else (self.size[1], self.size[0])

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the encoder: one frame, or 1/90000 where the rate varies."""
        return 1 / self.rate if self.timestamps is None else Fraction(1, 90000)

    def shown_at(self, frame: int) -> Fraction:
        """Display time of a frame in seconds; hidden frames come before 0. frame_count gives the end of the last."""
        if self.timestamps is None:
            return (frame - self.hidden_frames) / self.rate
        last = self.timestamps[-1]
        end = last + (self.last_duration or 1 / self.rate)
        return (end if frame == self.frame_count else self.timestamps[frame]) - self.timestamps[self.hidden_frames]


def make_clip(path: Path, **options: Any) -> Path:
    """Write a clip as `Footage(**options)` describes it; the container follows from the suffix. Returns the path."""
    return write_footage(path, Footage(**options))


def write_footage(path: Path, footage: Footage) -> Path:
    """Write a clip whose frames carry (clip_id, 0), (clip_id, 1) ... Returns the path."""
    if footage.hidden_frames and path.suffix not in (".mp4", ".mov"):
        raise ValueError(f"{path.name}: only mp4 and mov have edit lists to hide frames with")
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = {"movflags": "faststart"} if footage.faststart else {}
    with av.open(str(path), "w", format=_muxer(path), options=flags) as container:
        video = _add_video(container, footage)
        audio = _add_tone(container, path, footage) if footage.tone_hz is not None else None
        encoded = [packet for frame in _coded_frames(footage) for packet in video.encode(frame)]
        packets = _timed([*encoded, *video.encode(None)], footage)
        if path.suffix in (".mp4", ".mov"):
            _fill_track(packets)
        if audio is not None:
            packets += _tone_packets(audio, footage)
        # In order of time, or the muxer would have to hold one whole stream back.
        for packet in sorted(packets, key=_decode_seconds):
            container.mux_one(packet)
    return path


def _muxer(path: Path) -> str | None:
    # FFmpeg takes .mpg for MPEG-1 systems; MPEG-2 programme streams are what its vob muxer writes.
    return "vob" if path.suffix == ".mpg" else None


def _add_video(container: av.container.OutputContainer, footage: Footage) -> VideoStream:
    encoder, options = _encoder(footage)
    stream = container.add_stream(encoder, rate=footage.rate, options=options)
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    context.width, context.height = footage.coded_size
    context.pix_fmt = footage.pixel_format
    context.time_base = stream.time_base = footage.time_base
    # Other thread counts give other bits; and small pictures are slower with more.
    context.thread_count = 1
    if footage.sample_aspect is not None:
        context.sample_aspect_ratio = footage.sample_aspect
    if footage.codec_tag is not None:
        context.codec_tag = footage.codec_tag
    if footage.rotation:
        stream.set_display_rotation(footage.rotation)
    _tag_colour(context, footage)
    return stream


def _encoder(footage: Footage) -> tuple[str, dict[str, str]]:
    """FFmpeg's name of the encoder, and its options."""
    encoder, options = _usual_encoder(footage)
    for name, value in (footage.encoder_options or {}).items():
        # Of what is said twice x264 and x265 take the last.
        adds = name.endswith("-params") and name in options
        options[name] = f"{options[name]}:{value}" if adds else value
    return encoder, options


def _usual_encoder(footage: Footage) -> tuple[str, dict[str, str]]:
    gop, open_gop = footage.gop_frames, int(footage.open_gop)
    # Of fewer frames than it reorders, x265 stamps the packets with a dts from uninitialised memory.
    b_frames = footage.b_frames if footage.frame_count > 2 else 0
    structure = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:open-gop={open_gop}"
    match footage.codec:
        case "h264":
            fields = ":tff=1" if footage.interlaced else ""
            return "libx264", {"preset": "veryfast", "crf": "20", "x264-params": structure + fields}
        case "hevc":
            quiet = ":log-level=none:pools=none:frame-threads=1"
            return "libx265", {"preset": "ultrafast", "crf": "20", "x265-params": structure + quiet}
        case "vp9":
            quality = {"crf": "20", "b": "0", "deadline": "realtime", "cpu-used": "8"}
            return "libvpx-vp9", {"g": str(gop), "keyint_min": str(gop), **quality}
        case "mpeg2":
            # Scene cuts would put in keyframes of their own; and mpeg2video refuses closed GOPs while it may.
            flags = ("" if footage.open_gop else "+cgop") + ("+ildct+ilme" if footage.interlaced else "")
            rate = {"qmin": "2", "qmax": "4", "b": "4M", "maxrate": "8M", "bufsize": "1835k"}
            structure_options = {"g": str(gop), "bf": str(footage.b_frames), "sc_threshold": "1000000000"}
            return "mpeg2video", structure_options | rate | ({"flags": flags} if flags else {})
        case "ffv1":
            return "ffv1", {"g": "1"}


def _tag_colour(target: av.VideoCodecContext | VideoFrame, footage: Footage) -> None:
    """Write matrix, primaries, transfer and range, or nothing, into an encoder or a frame."""
    if footage.full_range is not None:
        target.color_range = ColorRange.JPEG if footage.full_range else ColorRange.MPEG
    # H.273 numbers: 1 is BT.709 and 6 BT.601 with 525 lines in all three tables, 2 is unspecified.
    number = {"bt709": 1, "bt601": 6, "bt2020": 9, None: 2}[footage.matrix]
    target.colorspace = number
    target.color_primaries = ColorPrimaries(number)
    # BT.2020 has a transfer of its own, numbered by depth; its curve is that of the others.
    transfer = ColorTrc.BT2020_10 if footage.matrix == "bt2020" else ColorTrc(number)
    target.color_trc = {"pq": ColorTrc.SMPTE2084, "hlg": ColorTrc.ARIB_STD_B67, None: transfer}[footage.hdr]


def _coded_frames(footage: Footage) -> Iterator[VideoFrame]:
    """The frames as the encoder wants them: turned, converted, tagged and timed."""
    matrices = {"bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
    matrix = matrices.get(footage.matrix or "", Colorspace.ITU601)
    value_range = ColorRange.JPEG if footage.full_range else ColorRange.MPEG
    for n in range(footage.frame_count):
        upright = draw_frame(footage.clip_id, n, footage.size)
        coded = np.ascontiguousarray(np.rot90(upright, -footage.rotation // 90))
        rgb = VideoFrame.from_ndarray(coded, format="rgb24")
        frame = rgb.reformat(
            format=footage.pixel_format,
            interpolation=ACCURATE,
            src_color_range=ColorRange.JPEG,
            dst_color_range=value_range,
            dst_colorspace=matrix,
        )
        if footage.interlaced:
            frame = _flag_top_field_first(frame)
        _tag_colour(frame, footage)
        frame.time_base = footage.time_base
        # Encoders want times from 0; _timed moves the packets of hidden frames to before 0.
        frame.pts = _ticks(footage.shown_at(n) - footage.shown_at(0), footage)
        yield frame


def _flag_top_field_first(frame: VideoFrame) -> VideoFrame:
    # PyAV can't set the flags of a frame, the filter can.
    graph = av.filter.Graph()
    pixels = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/25"
    graph.link_nodes(graph.add("buffer", pixels), graph.add("setfield", "tff"), graph.add("buffersink")).configure()
    graph.push(frame)
    flagged = graph.pull()
    assert isinstance(flagged, VideoFrame)
    return flagged


def _ticks(seconds: Fraction, footage: Footage) -> int:
    return round(seconds / footage.time_base)


def _timed(packets: list[av.Packet[VideoStream]], footage: Footage) -> list[av.Packet[Any]]:
    """Give packets their true duration, and put hidden frames before 0, which makes the muxer write an edit list."""
    starts = [footage.shown_at(n) for n in range(footage.frame_count + 1)]
    durations = {_ticks(a - starts[0], footage): _ticks(b - a, footage) for a, b in pairwise(starts)}
    timed: list[av.Packet[Any]] = []
    for packet in packets:
        assert packet.pts is not None and packet.dts is not None
        # VP9 packets may hold no shown frame of their own; those keep what the encoder says.
        packet.duration = durations.get(packet.pts, packet.duration)
        packet.pts += _ticks(starts[0], footage)
        packet.dts += _ticks(starts[0], footage)
        timed.append(packet)
    return timed


def _fill_track(packets: list[av.Packet[Any]]) -> None:
    """Make the last packet as long as it takes for an mp4 track to last as long as its pictures.

    An mp4 holds differences of dts; where the rate varies, the packet that is decoded last need not be the one that
    is shown last.
    """
    begins = [packet.pts or 0 for packet in packets]
    ends = [(packet.pts or 0) + (packet.duration or 0) for packet in packets]
    decoding = (packets[-1].dts or 0) - (packets[0].dts or 0)
    packets[-1].duration = max(1, max(ends) - min(begins) - decoding)


def _decode_seconds(packet: av.Packet[Any]) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base


def _add_tone(container: av.container.OutputContainer, path: Path, footage: Footage) -> AudioStream:
    encoder = {".webm": "libopus", ".mpg": "mp2"}.get(path.suffix, "aac")
    layout = "stereo" if footage.channels == 2 else "mono"
    stream = container.add_stream(encoder, rate=footage.sample_rate, layout=layout)
    assert isinstance(stream, AudioStream)
    stream.codec_context.bit_rate = 128000
    return stream


def _tone_packets(stream: AudioStream, footage: Footage) -> list[av.Packet[Any]]:
    """The sine, its phase 0 at time 0, from the first coded to the end of the last shown frame; amplitude 0.25."""
    start, stop = (round(footage.shown_at(n) * footage.sample_rate) for n in (0, footage.frame_count))
    seconds = np.arange(start, stop) / footage.sample_rate
    wave = 0.25 * np.sin(2 * np.pi * (footage.tone_hz or 0) * seconds).astype(np.float32)
    samples = np.tile(wave, (footage.channels, 1))
    sound = AudioFrame.from_ndarray(samples, format="fltp", layout=stream.layout.name)
    sound.sample_rate = footage.sample_rate
    sound.time_base = Fraction(1, footage.sample_rate)
    sound.pts = 0
    packets = [*stream.encode(sound), *stream.encode(None)]
    for packet in packets:
        assert packet.pts is not None and packet.dts is not None
        packet.pts += start
        packet.dts += start
    return list(packets)


@dataclass(frozen=True, slots=True)
class Edit:
    """One entry of an edit list: show the track from `start_seconds` on (None: nothing) for `seconds`, at `rate`."""

    seconds: Fraction
    start_seconds: Fraction | None
    rate: Fraction = Fraction(1)


def rewrite_edit_list(source: Path, target: Path, edits: Sequence[Edit]) -> Path:
    """Copy an mp4 whose moov comes last, with another edit list for its picture; its sound keeps its own."""
    data = bytearray(source.read_bytes())
    moov = _box(data, (0, len(data)), b"moov")
    if moov[1] != len(data):
        raise ValueError(f"{source}: moov must be the last box, so that no chunk offset moves")
    trak = next(span for name, span in _boxes(data, moov) if name == b"trak" and b"vide" in data[slice(*span)])
    tkhd, mdhd = _box(data, trak, b"tkhd"), _box(data, _box(data, trak, b"mdia"), b"mdhd")
    mvhd = _box(data, moov, b"mvhd")
    (movie_scale,) = struct.unpack_from(">I", data, mvhd[0] + 20)
    (media_scale,) = struct.unpack_from(">I", data, mdhd[0] + 20)
    old = next((span for name, span in _boxes(data, trak) if name == b"edts"), (tkhd[1], tkhd[1]))
    # What FFmpeg writes begins at the first shown frame, past the delay that B-frames make.
    origin = struct.unpack_from(">i", data, old[0] + 28)[0] if old[0] < old[1] else 0
    total = sum(round(edit.seconds * movie_scale) for edit in edits)
    struct.pack_into(">I", data, tkhd[0] + 28, total)
    struct.pack_into(">I", data, mvhd[0] + 24, total)
    edts = _edit_list_box(edits, movie_scale, media_scale, origin)
    for start, stop in (trak, moov):
        struct.pack_into(">I", data, start, stop - start + len(edts) - (old[1] - old[0]))
    data[old[0] : old[1]] = edts
    target.write_bytes(data)
    return target


def _edit_list_box(edits: Sequence[Edit], movie_scale: int, media_scale: int, origin: int) -> bytes:
    """An edts box; times in ticks per second of the movie and of the media, `origin` where the media begins."""
    entries = b""
    for edit in edits:
        media_time = -1 if edit.start_seconds is None else origin + round(edit.start_seconds * media_scale)
        entries += struct.pack(">Iii", round(edit.seconds * movie_scale), media_time, round(edit.rate * 65536))
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    return struct.pack(">I4s", 8 + len(elst), b"edts") + elst


def _boxes(data: bytes | bytearray, parent: tuple[int, int]) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Name and (start, stop) byte offsets of each box inside a box; the whole file has no header of its own."""
    start, stop = parent
    position = start if stop - start == len(data) else start + 8
    while position < stop:
        size, name = struct.unpack_from(">I4s", data, position)
        yield name, (position, position + size)
        position += size


def _box(data: bytes | bytearray, parent: tuple[int, int], name: bytes) -> tuple[int, int]:
    """(start, stop) of the first box of that name; KeyError where there is none."""
    return dict(reversed(list(_boxes(data, parent))))[name]


def write_text_as_video(path: Path) -> Path:
    """A text file under a video's name."""
    path.write_text("This is no video, whatever its name says.\n" * 20)
    return path


def write_playlist_as_video(path: Path, target: Path, kind: Literal["m3u8", "ffconcat"]) -> Path:
    """A playlist that points to `target`, a clip in the same folder: to be refused, or a clip could name any file."""
    # FFmpeg itself refuses absolute names in ffconcat; the name alone is what it would follow.
    lines = {
        "m3u8": ["#EXTM3U", "#EXT-X-TARGETDURATION:10", "#EXTINF:2.0,", target.name, "#EXT-X-ENDLIST"],
        "ffconcat": ["ffconcat version 1.0", f"file '{target.name}'"],
    }[kind]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_without_index(path: Path) -> Path:
    """An mp4 cut off before its moov, as an interrupted recording leaves it: nothing can be read."""
    make_clip(path, clip_id=15, frame_count=50)
    data = path.read_bytes()
    path.write_bytes(data[: _box(data, (0, len(data)), b"moov")[0]])
    return path


def write_cut_short(path: Path, keep_share: Fraction = Fraction(1, 2)) -> Path:
    """A faststart mp4 of 50 frames whose index is whole and of whose data only a share (0..1) is there."""
    make_clip(path, clip_id=15, frame_count=50, gop_frames=12, faststart=True)
    data = path.read_bytes()
    start, stop = _box(data, (0, len(data)), b"mdat")
    path.write_bytes(data[: start + 8 + int((stop - start - 8) * keep_share)])
    return path


def write_sound_only(path: Path) -> Path:
    """An mp4 with one second of sound and no picture."""
    footage = Footage(clip_id=0, frame_count=25, tone_hz=440.0)
    with av.open(str(path), "w") as container:
        for packet in _tone_packets(_add_tone(container, path, footage), footage):
            container.mux_one(packet)
    return path


def write_empty(path: Path) -> Path:
    """A file of no bytes."""
    path.write_bytes(b"")
    return path


def write_without_frames(path: Path) -> Path:
    """A valid mp4 with a picture track and not one frame in it."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        _add_video(container, Footage(clip_id=0, frame_count=0))
        container.start_encoding()
    return path
