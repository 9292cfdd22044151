"""Joining without decoding: packets are copied, one run after the other, into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from splice.errors import MediaError
from splice.media.ahead import ahead
from splice.media.atomic import atomic_output
from splice.media.container import open_own, open_packets, video_stream
from splice.media.encode import UNIT_REORDER_FRAMES, mux_options, timescale
from splice.media.nal import (
    Framing,
    NalCodec,
    join_by_length,
    parameter_sets,
    read_framing,
    refreshes_gradually,
    with_parameter_sets,
)
from splice.types import Clip, FrameRange

Watch = Callable[[Iterator[Any]], Iterator[Any]]
"""Gives on what it is given, one by one; it may count, or raise to end the work."""

AddSound = Callable[[OutputContainer], Iterator[Any]]
"""Adds a sound track to a file in the making, and gives its packets, in order."""


@dataclass(frozen=True)
class Part:
    """Frames of one file. The range begins at a keyframe and ends where the packets before it hold no later frame.

    clip: whose own file it is; None for one of ours, whose first frame is shown at 0.
    """

    path: Path
    frames: FrameRange
    clip: Clip | None = None


def clip_part(clip: Clip, frames: FrameRange) -> Part:
    """Frames of a clip, between two of its cut points."""
    return Part(Path(clip.path), frames, clip)


SOUND_BATCH = 64
"""Packets of sound that are handed over at once: a second or two of AAC."""


def join_parts(
    parts: Sequence[Part],
    path: Path,
    rate: Fraction,
    in_band: bool = False,
    reorder_frames: int = UNIT_REORDER_FRAMES,
    add_sound: AddSound | None = None,
    is_durable: bool = False,
    watch: Watch = iter,
) -> npt.NDArray[np.int64]:
    """Copy the packets of ``parts``, in order, into one mp4 at ``path``: complete or absent, ready to stream.

    Frame n of the result is shown at n / rate exactly. Nothing is decoded, and memory is constant.
    in_band: the parts come from several encoders, so that every keyframe gets its own parameter sets.
    reorder_frames: by how many frames decoding runs ahead of showing, at most, in any part.
    is_durable: as of ``atomic_output``. watch: sees every frame's packet.
    Returns the size in bytes of every frame, in display order.
    Raises MediaError: a part holds other frames than its range says, or was encoded otherwise.
    """
    runs = _merged(parts)
    sizes = np.zeros(sum(len(run.frames) for run in runs), np.int64)
    if not in_band:
        _require_same_headers(runs)
    options = mux_options(rate) | {"moov_size": str(_index_bytes(len(sizes), rate))}
    with atomic_output(path, is_durable) as partial:
        with _open(_template(runs)) as template, av.open(str(partial), "w", options=options) as output:
            stream = _add_video(output, template, rate, in_band)
            pictures = watch(_stamped(runs, stream, rate, in_band, reorder_frames, sizes))
            if add_sound:
                sound = add_sound(output)
                # Writing the header opens the encoder: not while the thread makes use of it.
                output.start_encoding()
                tracks = _interleaved(pictures, ahead(sound, SOUND_BATCH))
            else:
                tracks = pictures
            for packet in tracks:
                output.mux_one(packet)
        if (written := count_frames(partial)) != len(sizes):
            raise MediaError(f"{path.name}: {written} frames were written, needed are {len(sizes)}")
    return sizes


def count_frames(path: Path) -> int:
    """Frames of one of our own files, as its index counts them."""
    with _open(Part(path, FrameRange(0, 0))) as container:
        return container.streams.video[0].frames


def _merged(parts: Sequence[Part]) -> list[Part]:
    """The same frames; what follows on in the same file becomes one run, since it need not begin at a keyframe."""
    runs: list[Part] = []
    for part in parts:
        last = runs[-1] if runs else None
        if last and last.path == part.path and last.frames.stop == part.frames.start:
            runs[-1] = replace(last, frames=FrameRange(last.frames.start, part.frames.stop))
        else:
            runs.append(part)
    return runs


def _template(runs: Sequence[Part]) -> Part:
    """One of our own files, so that the track says nothing that holds for the pictures of one camera only."""
    return next((run for run in runs if run.clip is None), runs[0])


def _add_video(output: OutputContainer, template: InputContainer, rate: Fraction, in_band: bool) -> VideoStream:
    source = template.streams.video[0]
    stream = output.add_stream_from_template(source)
    stream.time_base = Fraction(1, timescale(rate))
    is_hevc = source.codec_context.codec.canonical_name == "hevc"
    # By default hevc is tagged hev1, which Apple's players refuse; but only hev1 may bring parameter sets in band.
    stream.codec_context.codec_tag = "hev1" if is_hevc and in_band else source.codec_context.codec_tag
    return stream


def _index_bytes(frame_count: int, rate: Fraction) -> int:
    """Room for the index at the front, so that it need not be moved there: 40 bytes a packet of picture or sound."""
    sound_packets = int(frame_count / rate * 100) + 1000
    return 16_384 + 40 * (frame_count + sound_packets)


def _stamped(
    runs: Sequence[Part],
    stream: VideoStream,
    rate: Fraction,
    in_band: bool,
    reorder_frames: int,
    sizes: npt.NDArray[np.int64],
) -> Iterator[Packet[VideoStream]]:
    """Every packet with its time in the result; its size is noted in ``sizes``."""
    scale = timescale(rate)
    time_base, tick = Fraction(1, scale), int(scale / rate)
    decode_number = offset = 0
    for run in runs:
        for number, packet in _packets(run, rate, in_band):
            shown = offset + number - run.frames.start
            sizes[shown] = packet.size
            packet.stream, packet.time_base = stream, time_base
            packet.pts, packet.dts, packet.duration = shown * tick, (decode_number - reorder_frames) * tick, tick
            decode_number += 1
            yield packet
        offset += len(run.frames)


def _interleaved(pictures: Iterator[Packet[Any]], sound: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    """The packets of both tracks, each of one time base, in the order of their decoding times."""
    waiting = next(sound, None)
    ratio: Fraction | None = None
    for picture in pictures:
        if waiting is not None and ratio is None:
            # Once, and then in integers: PyAV makes a fraction anew each time that it is asked.
            ratio = waiting.time_base / picture.time_base
            whole, part = ratio.numerator, ratio.denominator
        while waiting is not None and (waiting.dts or 0) * whole < (picture.dts or 0) * part:
            yield waiting
            waiting = next(sound, None)
        yield picture
    if waiting is not None:
        yield waiting
    yield from sound


def _packets(run: Part, rate: Fraction, in_band: bool) -> Iterator[tuple[int, Packet[VideoStream]]]:
    """(frame number in its file, packet) of every packet of a run, in decode order."""
    is_due = bytearray([1]) * len(run.frames)
    first_pts = run.clip.first_pts or 0 if run.clip else 0
    is_begun = False
    with _open(run) as container:
        stream = video_stream(container, str(run.path))
        frames_per_tick = _require_time_base(stream, run) * rate
        # In integers: a product of fractions for every packet takes longer than copying it.
        whole, part = frames_per_tick.numerator, frames_per_tick.denominator
        framed = _Framed.of(stream)
        for position, packet in enumerate(_filled(container, stream)):
            if position == run.frames.stop:
                break
            written = _rewritten(framed, packet, in_band, run)
            if position < run.frames.start:
                continue
            number = (2 * ((packet.pts or 0) - first_pts) * whole + part) // (2 * part)
            if not is_begun and not packet.is_keyframe:
                raise MediaError(f"{run.path}: frame {number} is no keyframe, so that no part can begin there")
            place = number - run.frames.start
            if not (0 <= place < len(is_due) and is_due[place]):
                raise MediaError(f"{run.path}: frame {number} came where {run.frames} was due")
            is_begun = True
            is_due[place] = 0
            yield number, written
    if missing := sum(is_due):
        raise MediaError(f"{run.path}: {missing} of {len(run.frames)} frames are missing")


@dataclass
class _Framed:
    """Brings packets into the form that an mp4 wants: lengths of 4 bytes, parameter sets where they are needed.

    in_force: the sets that a decoder would have seen last.
    """

    framing: Framing
    in_force: tuple[bytes, ...]

    @classmethod
    def of(cls, stream: VideoStream) -> _Framed:
        codec = cast(NalCodec, stream.codec_context.codec.canonical_name)
        framing = read_framing(codec, stream.codec_context.extradata or b"")
        return cls(framing, framing.parameter_sets)

    def rewritten(self, packet: Packet[VideoStream], in_band: bool) -> Packet[VideoStream]:
        needs_sets = in_band and packet.is_keyframe
        if not needs_sets and self.framing.length_size == 4:
            return packet
        units = self.framing.units(bytes(packet))
        if needs_sets:
            self.in_force = parameter_sets(self.framing.codec, units) or self.in_force
            units = with_parameter_sets(self.framing.codec, units, self.in_force)
        written = cast("Packet[VideoStream]", Packet(join_by_length(units)))
        # A player would seek to it, and show a picture that is not whole.
        written.is_keyframe = packet.is_keyframe and not refreshes_gradually(self.framing.codec, units)
        return written


def _rewritten(framed: _Framed, packet: Packet[VideoStream], in_band: bool, run: Part) -> Packet[VideoStream]:
    try:
        return framed.rewritten(packet, in_band)
    except ValueError as error:
        raise MediaError(f"{run.path}: a packet at pts {packet.pts} is damaged ({error}); export it again") from error


def _open(part: Part) -> AbstractContextManager[InputContainer]:
    if part.clip is not None:
        return open_packets(part.clip)
    reason: str | None = "no video in it"
    try:
        container = open_own(part.path)
        if container.streams.video:
            return container
        container.close()
    except av.FFmpegError as error:
        reason = error.strerror
    raise MediaError(
        f"{part.path}: one of our own files can't be read ({reason}); delete it and run the same command with the same "
        f"run_id: it is made again"
    )


def _require_time_base(stream: VideoStream, part: Part) -> Fraction:
    if stream.time_base is None:
        raise MediaError(f"{part.path}: its video stream has no time base; remux it to mp4")
    return stream.time_base


def _filled(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Packets that hold data: a demuxer ends with an empty one."""
    return (packet for packet in container.demux(stream) if packet.size)


def _require_same_headers(runs: Sequence[Part]) -> None:
    headers = {}
    for run in runs:
        with _open(run) as container:
            headers[container.streams.video[0].codec_context.extradata] = run.path
    if len(headers) > 1:
        raise MediaError(f"{' and '.join(map(str, headers.values()))} were encoded with different settings")
