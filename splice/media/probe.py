"""Clips as they are: every fact read off the packets and the first picture, never trusted from the header."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream

from splice.errors import RequestError
from splice.media.container import open_video, video_stream
from splice.media.cut_points import PacketScan, find_cut_points
from splice.media.edit_list import edit_list_obstacle
from splice.media.identity import identify_clip
from splice.media.sound import sound_stream
from splice.media.tags import read_color_tags
from splice.request import STANDARD_RATES
from splice.types import UNKNOWN_SOUND, Clip, ClipIdentity, CutPoints, Sound

ONE_PICTURE_A_PACKET = frozenset({"h264", "hevc", "vp9", "av1", "mpeg2video", "prores", "mjpeg"})
"""Codecs whose pictures can be counted by packet; of others (VP8 has hidden frames, DivX packs several) by decoding."""

DEFAULT_RATE = Fraction(25)
"""Of a single picture in a file that names no rate, frames per second."""


@dataclass(frozen=True)
class _Timing:
    rate: Fraction
    is_constant_rate: bool
    frame_count: int
    duration_seconds: Fraction
    first_pts: int | None
    start_seconds: Fraction


@dataclass(frozen=True)
class _Counted:
    """What the packets of a stream tell. pts: in display order; last_duration: ticks that the last frame is shown."""

    pts: list[int]
    last_duration: int
    cut_points: CutPoints | str


def probe_clip(index: int, name: str, path: str, identity: ClipIdentity | None = None) -> Clip:
    """Everything that the plan needs to know of a clip. Reads its packets once, decodes a picture or two.

    identity: where it is known already; else the file is hashed.

    Raises RequestError: missing, not a video of a listed format, truncated, without pictures, or in a
    colour that can't be converted.
    """
    return _probe(index, name, str(Path(path).resolve()), identity or identify_clip(path))


# The command line probes before it starts Prefect, and the flow once more: the same file is read once.
@lru_cache(maxsize=1024)
def _probe(index: int, name: str, path: str, identity: ClipIdentity) -> Clip:
    with open_video(path) as container:
        stream = video_stream(container, path)
        sound = _read_sound(container)
        _refuse_missing_data((stream, sound_stream(container)), path, identity.size_bytes)
        timing, cut_points = _measure_timing(container, stream, path)
    with open_video(path) as container:
        stream = video_stream(container, path)
        frame = _first_picture(container, stream, path)
        rotation, is_mirrored = _orientation(frame, path)
        return Clip(
            index=index,
            name=name,
            path=path,
            identity=identity,
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            width=frame.width,
            height=frame.height,
            rotation=rotation,
            is_mirrored=is_mirrored,
            sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
            pixel_format=frame.format.name,
            bit_depth=frame.format.components[0].bits,
            color=read_color_tags(frame, path),
            # AVFieldOrder: 0 unknown, 1 progressive, then the interlaced orders.
            is_interlaced=frame.interlaced_frame or stream.codec_context.field_order > 1,
            time_base=stream.time_base or Fraction(1),
            sound=sound,
            rate=timing.rate,
            is_constant_rate=timing.is_constant_rate,
            frame_count=timing.frame_count,
            duration_seconds=timing.duration_seconds,
            first_pts=timing.first_pts,
            start_seconds=timing.start_seconds,
            cut_points=cut_points if isinstance(cut_points, CutPoints) else None,
            uncut_reason=cut_points if isinstance(cut_points, str) else "",
        )


def _read_sound(container: InputContainer) -> Sound | None:
    stream = sound_stream(container)
    if stream is None:
        return UNKNOWN_SOUND if container.streams.audio else None
    context = stream.codec_context
    return Sound(context.codec.canonical_name, context.sample_rate, context.layout.name)


def _refuse_missing_data(streams: Iterable[VideoStream | AudioStream | None], path: str, size_bytes: int) -> None:
    """An index that points beyond the end of the file tells a download that broke off."""
    # The last entry alone: what is shown last is stored last, and to look at all takes longer than to copy a long clip.
    last = [stream.index_entries[-1] for stream in streams if stream is not None and len(stream.index_entries)]
    stop = max((entry.pos + entry.size for entry in last), default=0)
    if stop > size_bytes:
        raise RequestError(
            f"{path}: truncated: the file has {size_bytes} bytes, its index speaks of {stop}; fetch or export it again"
        )


def _measure_timing(container: InputContainer, stream: VideoStream, path: str) -> tuple[_Timing, CutPoints | str]:
    # An AVI file says when pictures are decoded, not when they are shown; FFmpeg guesses, and errs.
    counted = None if container.format.name == "avi" else _count_packets(container, stream, path)
    if counted is None:
        timing = _decode_timing(path)
        obstacle = _edit_list_obstacle(container, stream, path, timing.frame_count)
        return timing, obstacle or "packets that don't tell its frames"
    if not counted.pts:
        raise RequestError(f"{path}: its video stream holds no frames; export it again")
    timing = _time(counted.pts, counted.last_duration, stream, seekable=True)
    if timing.is_constant_rate and timing.first_pts is None:
        return timing, "time stamps too coarse to tell its frames"
    return timing, counted.cut_points


def _count_packets(container: InputContainer, stream: VideoStream, path: str) -> _Counted | None:
    """Everything that the packets tell; None where they can't tell the frames.

    Frames that an edit list hides are flagged ``is_discard``. A stream that does not begin with its
    earliest frame as a keyframe begins with pictures that can't be decoded.
    """
    packets = []
    scan = PacketScan(stream)
    ends: dict[Fraction, int] = {}
    # Of Matroska alone the end of every stream is asked for.
    streams = list(container.streams) if "matroska" in container.format.name else [stream]
    try:
        for packet in container.demux(streams):
            if packet.size == 0 or packet.pts is None:
                if packet.size and packet.stream is stream:
                    return None
                continue
            end = packet.pts + (packet.duration or 0)
            ends[packet.time_base] = max(end, ends.get(packet.time_base, end))
            if packet.stream is stream and not packet.is_discard:
                packets.append((packet.pts, packet.duration or 0, packet.is_keyframe))
                scan.add(cast("Packet[VideoStream]", packet))
    except av.FFmpegError as error:
        raise RequestError(f"{path}: damaged ({error.strerror}); fetch or export it again") from error
    _refuse_early_end(container, path, max((base * ticks for base, ticks in ends.items()), default=Fraction(0)))
    if stream.codec_context.codec.canonical_name not in ONE_PICTURE_A_PACKET:
        return None
    ordered = sorted(packets)
    if packets and (not packets[0][2] or packets[0] != ordered[0] or len({p[0] for p in packets}) < len(packets)):
        return None
    last_duration = _last_duration(container, ordered) if ordered else 0
    obstacle = scan.obstacle or _edit_list_obstacle(container, stream, path, len(packets))
    cut_points = obstacle or find_cut_points([p[0] for p in packets], scan.keyframes)
    return _Counted([p[0] for p in ordered], last_duration, cut_points)


def _edit_list_obstacle(container: InputContainer, stream: VideoStream, path: str, shown: int) -> str | None:
    if "mp4" not in container.format.name:
        return None
    if stream.frames > shown:
        return "an edit list that trims it"
    try:
        return edit_list_obstacle(path, stream.id)
    except (ValueError, struct.error) as error:
        return f"an index that can't be read ({error})"


def _last_duration(container: InputContainer, ordered: Sequence[tuple[int, int, bool]]) -> int:
    """Ticks that the frame shown last is shown for.

    The durations in an mp4 are steps of decoding time; only their sum is also the time that all frames are shown.
    """
    remaining = sum(duration for _, duration, _ in ordered) - (ordered[-1][0] - ordered[0][0])
    return remaining if "mp4" in container.format.name and remaining > 0 else ordered[-1][1]


def _refuse_early_end(container: InputContainer, path: str, end_seconds: Fraction) -> None:
    """Matroska has no index to check, but its header says how long it should last."""
    if "matroska" in container.format.name and container.duration:
        missing_seconds = (
            Fraction(container.duration, av.time_base) - end_seconds + Fraction(container.start_time or 0, av.time_base)
        )
        if missing_seconds > 1:
            raise RequestError(
                f"{path}: truncated: its header speaks of {float(missing_seconds):.1f} more seconds than there are; "
                f"fetch or export it again"
            )


def _decode_timing(path: str) -> _Timing:
    """Count by decoding everything, in a container opened anew."""
    with open_video(path) as container:
        stream = video_stream(container, path)
        try:
            found = [(frame.pts, frame.duration or 0) for frame in container.decode(stream)]
        except av.FFmpegError as error:
            raise RequestError(f"{path}: damaged ({error.strerror}); fetch or export it again") from error
        if not found:
            raise RequestError(f"{path}: no frame of its video stream can be decoded; export it again")
        pts = [each for each, _ in found if each is not None]
        if len(pts) == len(found) and all(a < b for a, b in pairwise(pts)):
            timing = _time(pts, found[-1][1], stream, seekable=False)
            return replace(timing, start_seconds=_header_start(stream)) if container.format.name == "avi" else timing
        rate = stream.guessed_rate or DEFAULT_RATE
        return _Timing(rate, True, len(found), len(found) / rate, None, Fraction(0))


def _header_start(stream: VideoStream) -> Fraction:
    return (stream.start_time or 0) * (stream.time_base or Fraction(1))


def _time(pts: Sequence[int], last_duration: int, stream: VideoStream, seekable: bool) -> _Timing:
    time_base = stream.time_base or Fraction(1)
    span_seconds = (pts[-1] - pts[0]) * time_base
    mean = (len(pts) - 1) / span_seconds if span_seconds else (stream.guessed_rate or DEFAULT_RATE)
    candidates = (
        *_named_rate(stream.guessed_rate),
        stream.guessed_rate,
        stream.average_rate,
        min(STANDARD_RATES, key=lambda rate: abs(rate - mean)),
        mean.limit_denominator(1001),
    )
    first_pts, start_seconds = (pts[0] if seekable else None), pts[0] * time_base
    for rate in _distinct(candidates):
        if _is_constant(pts, time_base, rate):
            # Where a tick is half a frame, frames can be told by their order alone.
            exact = 2 * _worst_drift(pts, time_base, rate) < 1
            return _Timing(rate, True, len(pts), len(pts) / rate, first_pts if exact else None, start_seconds)
    last_seconds = last_duration * time_base or 1 / mean
    return _Timing(mean, False, len(pts), span_seconds + last_seconds, first_pts, start_seconds)


def _named_rate(guessed: Fraction | None) -> list[Fraction]:
    """The standard rate that a guess stands for: of Matroska's nanoseconds a frame FFmpeg makes 19001/317."""
    return [rate for rate in STANDARD_RATES if guessed and abs(guessed / rate - 1) < Fraction(1, 10_000)]


def _distinct(rates: Iterable[Fraction | None]) -> list[Fraction]:
    return list(dict.fromkeys(rate for rate in rates if rate))


def _is_constant(pts: Sequence[int], time_base: Fraction, rate: Fraction) -> bool:
    """Whether every frame stands within one tick, and within half a frame, of first + n / rate."""
    worst = _worst_drift(pts, time_base, rate)
    return worst <= time_base * rate and 2 * worst <= 1


def _worst_drift(pts: Sequence[int], time_base: Fraction, rate: Fraction) -> Fraction:
    """How far a frame stands from first + n / rate, in frames; in exact integers."""
    frame = rate.denominator * time_base.denominator
    ticks = np.asarray(pts, dtype=np.int64) - pts[0]
    drift = ticks * (time_base.numerator * rate.numerator) - np.arange(len(pts)) * frame
    return Fraction(int(np.abs(drift).max()), frame)


def _first_picture(container: InputContainer, stream: VideoStream, path: str) -> av.VideoFrame:
    try:
        for frame in container.decode(stream):
            return frame
    except av.FFmpegError as error:
        raise RequestError(f"{path}: its first picture can't be decoded ({error.strerror}); export it again") from error
    raise RequestError(f"{path}: no frame of its video stream can be decoded; export it again")


def _orientation(frame: av.VideoFrame, path: str) -> tuple[int, bool]:
    """How a display matrix (ISO/IEC 14496-12:2022, 8.3.2) wants a picture: degrees clockwise, after it is mirrored."""
    kind = SideDataType.DISPLAYMATRIX
    matrix = bytes(frame.side_data[kind]) if kind in frame.side_data else bytes(36)
    # A point (1, 0) of the stored picture is shown at (a, b), (0, 1) at (c, d); y points down.
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    is_mirrored = a * d < b * c
    degrees = round(math.degrees(math.atan2(-b, -a) if is_mirrored else math.atan2(b, a))) % 360
    if degrees % 90:
        raise RequestError(
            f"{path}: is to be shown turned by {degrees} degrees; needed: 0, 90, 180 or 270; turn its pictures first"
        )
    return degrees, is_mirrored
