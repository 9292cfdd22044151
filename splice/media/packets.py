"""Joining without decoding: packets of units are copied, one after the other, into one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from splice.errors import MediaError
from splice.media.atomic import atomic_output
from splice.media.encode import mux_options, timescale
from splice.types import FrameRange


@dataclass(frozen=True)
class Part:
    """Frames of one of our own files. The range begins at a keyframe and ends where a closed GOP ends."""

    path: Path
    frames: FrameRange


def join_parts(parts: Sequence[Part], path: Path, rate: Fraction) -> None:
    """Copy the packets of ``parts``, in order, into one mp4 at ``path``: complete or absent, ready to stream.

    Frame n of the result is shown at n / rate exactly. Nothing is decoded, and memory is constant.
    Raises MediaError: a part holds other frames than its range says, or was encoded otherwise.
    """
    scale = timescale(rate)
    tick = int(scale / rate)
    delay = max(_reorder_delay(part.path, rate) for part in parts)
    with atomic_output(path) as partial:
        with (
            _open(parts[0].path) as template,
            av.open(str(partial), "w", options=mux_options(rate, faststart=True)) as output,
        ):
            stream = output.add_stream_from_template(template.streams.video[0])
            stream.time_base = Fraction(1, scale)
            # By default hevc is tagged hev1, which Apple's players refuse.
            stream.codec_context.codec_tag = template.streams.video[0].codec_context.codec_tag
            _require_same_headers(parts)
            for decode_number, (frame_number, packet) in enumerate(_packets(parts, rate)):
                packet.stream = stream
                packet.time_base = Fraction(1, scale)
                packet.pts, packet.dts = frame_number * tick, (decode_number - delay) * tick
                packet.duration = tick
                output.mux(packet)
        expected = sum(len(part.frames) for part in parts)
        if (written := count_frames(partial)) != expected:
            raise MediaError(f"{path.name}: {written} frames were written, needed are {expected}")


def count_frames(path: Path) -> int:
    """Frames of one of our own files, by packet."""
    with _open(path) as container:
        return sum(1 for _ in _filled(container))


def _packets(parts: Sequence[Part], rate: Fraction) -> Iterator[tuple[int, Packet[VideoStream]]]:
    """(display number in the result, packet) of every part, in decode order."""
    offset = 0
    for part in parts:
        expected = set(range(part.frames.start, part.frames.stop))
        with _open(part.path) as container:
            for packet in islice(_filled(container), part.frames.start, part.frames.stop):
                number = round((packet.pts or 0) * packet.time_base * rate)
                if len(expected) == len(part.frames) and not packet.is_keyframe:
                    raise MediaError(f"{part.path}: frame {number} is no keyframe, so that no part can begin there")
                if number not in expected:
                    raise MediaError(f"{part.path}: frame {number} came where {part.frames} was due")
                expected.discard(number)
                yield offset + number - part.frames.start, packet
        if expected:
            raise MediaError(f"{part.path}: {len(expected)} of {len(part.frames)} frames are missing")
        offset += len(part.frames)


def _open(path: Path) -> InputContainer:
    reason: str | None = "no video in it"
    try:
        container = av.open(str(path))
        if container.streams.video:
            return container
        container.close()
    except av.FFmpegError as error:
        reason = error.strerror
    raise MediaError(
        f"{path}: one of our own files can't be read ({reason}); delete it and run the same command with the same "
        f"run_id: it is made again"
    )


def _filled(container: InputContainer) -> Iterator[Packet[VideoStream]]:
    """Packets that hold data: a demuxer ends with an empty one."""
    return (packet for packet in container.demux(video=0) if packet.size)


def _reorder_delay(path: Path, rate: Fraction) -> int:
    """By how many frames decoding runs ahead of showing in one of our own files."""
    with _open(path) as container:
        first = next(_filled(container), None)
        if first is None or first.dts is None:
            raise MediaError(f"{path}: its first packet is missing or has no decoding time")
        return max(0, round(-first.dts * first.time_base * rate))


def _require_same_headers(parts: Sequence[Part]) -> None:
    headers = {}
    for part in parts:
        with _open(part.path) as container:
            headers[container.streams.video[0].codec_context.extradata] = part.path
    if len(headers) > 1:
        raise MediaError(f"{' and '.join(map(str, headers.values()))} were encoded with different settings")
