"""A clip's sound, in the timeline's format, from the moment when its first frame is shown.

FFmpeg hides what encoders put in front (edit lists, skipped samples, codec delay); the first decoded sample is placed
by its time stamp, and from there on samples are counted.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, groupby
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard

from splice.errors import MediaError
from splice.media.container import open_packets
from splice.sound import Samples
from splice.types import Clip, SoundFormat

JITTER_SECONDS = 0.01
"""Time stamps that differ by less from the count of the samples are only inexact: Matroska's stand in milliseconds."""

BLOCK_SECONDS = Fraction(1, 2)
"""Of sound that is decoded at once, about."""

BROKEN_PACKETS_AT_START = 10
"""So many may be passed over before the first that can be decoded; a fifth of a second or so."""

FLUSH_SECONDS = Fraction(1, 10)
"""Silence that pushes the last samples out of a resampler, longer than its filter is at any rate."""


@dataclass(frozen=True)
class Decoded:
    """Some sound as a file holds it. start_seconds: on the file's own clock; None: it follows what came before."""

    samples: Samples
    sample_rate: int
    layout: str
    start_seconds: float | None


def read_sound(clip: Clip, sound_format: SoundFormat, sample_count: int) -> Iterator[Samples]:
    """Exactly ``sample_count`` samples in blocks of a second at most; sample 0 is heard when the first frame appears.

    Shorter sound is followed by silence; a clip without sound is silent. Memory is constant.
    Raises MediaError where the clip's sound can't be decoded.
    """
    channels = channel_count(sound_format.layout)
    remaining = sample_count
    for block in _placed(clip, sound_format) if clip.sound else ():
        if not remaining:
            return
        yield block[:, :remaining]
        remaining -= min(remaining, block.shape[1])
    yield from silence(channels, remaining, sound_format.sample_rate)


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The first sound stream that can be decoded; some cameras add tracks of codecs of their own."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def channel_count(layout: str) -> int:
    return av.AudioLayout(layout).nb_channels


def decode_sound(container: InputContainer, stream: AudioStream, label: str) -> Generator[Decoded, None, None]:
    """The stream without holes: gaps in its time stamps are filled with silence, overlaps dropped.

    label: how messages call the file. Raises MediaError where it can't be decoded.
    """
    try:
        yield from _continuous(_frames(container, stream))
    except av.FFmpegError as error:
        raise MediaError(
            f"{label}: its sound ({stream.codec_context.name}) can't be decoded ({error.strerror}); "
            f"export it again, or without sound"
        ) from error


def conform_sound(blocks: Iterable[Decoded], sound_format: SoundFormat, label: str) -> Generator[Samples, None, None]:
    """The same sound at the format's rate and in its layout: no louder, no later, no longer.

    Raises MediaError for channels of which no layout is known.
    """
    for (sample_rate, layout), run in groupby(blocks, key=lambda block: (block.sample_rate, block.layout)):
        # Whatever a single channel calls itself: a track of the left one alone is to be heard on both sides.
        source = "mono" if channel_count(layout) == 1 else layout
        try:
            yield from _remixed((block.samples for block in run), sample_rate, source, sound_format)
        except av.FFmpegError as error:
            raise MediaError(
                f"{label}: sound of {sample_rate} Hz in the layout {layout} can't be brought to "
                f"{sound_format.sample_rate} Hz {sound_format.layout} ({error.strerror}); export it in stereo"
            ) from error


def only_numbers(samples: npt.NDArray[Any]) -> Samples:
    """The same samples; a float file may hold what is no number, and a seam would spread it."""
    plain = np.ascontiguousarray(samples, dtype=np.float32)
    return plain if np.isfinite(plain).all() else np.nan_to_num(plain, nan=0.0, posinf=1.0, neginf=-1.0)


def read_only(container: InputContainer, stream: AudioStream) -> AudioStream:
    """``stream``; what else is in the file is skipped, where its index tells how."""
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def to_frame(packed: npt.NDArray[np.float32] | npt.NDArray[np.int32], layout: str, sample_rate: int) -> AudioFrame:
    """A frame for FFmpeg. packed: the samples of all channels in turn, float32 or int32.

    Never planar: of frames with 8 planes PyAV (18.1) looks for a ninth, and crashes.
    """
    sample_format = "flt" if packed.dtype == np.float32 else "s32"
    frame = AudioFrame.from_ndarray(packed.reshape(1, -1), format=sample_format, layout=layout)
    frame.sample_rate = sample_rate
    return frame


def _placed(clip: Clip, sound_format: SoundFormat) -> Iterator[Samples]:
    """All of the clip's sound from its first shown frame on."""
    with open_packets(clip) as container:
        stream = sound_stream(container)
        if stream is None:
            raise MediaError(f"{clip.label}: had sound when it was probed, and has none now; start again")
        decoded = decode_sound(container, read_only(container, stream), clip.label)
        first = next(decoded, None)
        if first is None:
            return
        late_seconds = 0.0 if first.start_seconds is None else first.start_seconds - float(clip.start_seconds)
        late_samples = round(late_seconds * sound_format.sample_rate)
        yield from silence(channel_count(sound_format.layout), max(0, late_samples), sound_format.sample_rate)
        early_samples = max(0, -late_samples)
        for block in conform_sound(chain([first], decoded), sound_format, clip.label):
            if block.shape[1] > early_samples:
                yield block[:, early_samples:]
            early_samples -= min(early_samples, block.shape[1])


def silence(channels: int, count: int, block_samples: int) -> Iterator[Samples]:
    """``count`` samples in blocks of ``block_samples`` at most."""
    for start in range(0, count, block_samples):
        yield np.zeros((channels, min(block_samples, count - start)), np.float32)


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Every frame. A recording that was joined in the middle may begin with packets that can't be decoded alone."""
    has_begun = False
    failures: list[av.FFmpegError] = []
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            failures.append(error)
            if has_begun or len(failures) > BROKEN_PACKETS_AT_START:
                raise
            continue
        has_begun = has_begun or bool(frames)
        yield from frames
    if failures and not has_begun:
        raise failures[0]


def _continuous(frames: Iterable[AudioFrame]) -> Iterator[Decoded]:
    """The frames' sound in blocks: what follows on is gathered, since a packet alone costs as much as many at once."""
    # In floats, which tell one sample from the next for days: fractions would take longer than decoding.
    due_seconds: float | None = None
    for kind, run in groupby(frames, key=_kind):
        gathered = _Gathered(*kind)
        time_base: float | None = None
        for frame in run:
            # One for the whole run: PyAV makes a fraction anew each time that it is asked.
            time_base = float(frame.time_base or 0) if time_base is None else time_base
            start_seconds = due_seconds if frame.pts is None else frame.pts * time_base
            late_samples = _late_samples(start_seconds, due_seconds, frame.sample_rate)
            if late_samples:
                yield from gathered.taken()
            for gap in silence(gathered.channels, late_samples, frame.sample_rate):
                yield gathered.block(gap, None)
            count = frame.samples
            gathered.add(frame, start_seconds)
            if late_samples < 0:
                yield from gathered.taken(skipped_samples=-late_samples)
            elif gathered.is_full:
                yield from gathered.taken()
            if due_seconds is None:
                due_seconds = start_seconds
            if due_seconds is not None:
                due_seconds += max(late_samples + count, 0) / frame.sample_rate
        yield from gathered.taken()


def _late_samples(start_seconds: float | None, due_seconds: float | None, sample_rate: int) -> int:
    """By how many samples a frame comes later than it is due; less than 0 where it overlaps what came before."""
    if start_seconds is None or due_seconds is None or abs(start_seconds - due_seconds) <= JITTER_SECONDS:
        return 0
    return round((start_seconds - due_seconds) * sample_rate)


class _Gathered:
    """Frames of one kind that follow one another, to be taken as one block."""

    def __init__(self, sample_format: str, layout: str, sample_rate: int) -> None:
        self.channels = channel_count(layout)
        self._layout, self._sample_rate = layout, sample_rate
        self._block_samples = round(BLOCK_SECONDS * sample_rate)
        self._frames = av.AudioFifo()
        self._as_float = av.AudioResampler(format="flt")
        self._start_seconds: float | None = None

    @property
    def is_full(self) -> bool:
        return self._frames.samples >= self._block_samples

    def add(self, frame: AudioFrame, start_seconds: float | None) -> None:
        if not self._frames.samples:
            self._start_seconds = start_seconds
        # Else the queue would insist on time stamps without jitter.
        frame.pts = None
        self._frames.write(frame)

    def taken(self, skipped_samples: int = 0) -> Iterator[Decoded]:
        """What was added since the last time, without its first samples, as a block if any are left."""
        frame = self._frames.read(0, partial=True) if self._frames.samples else None
        for packed in self._as_float.resample(frame) if frame else ():
            kept = _unpacked(packed)[:, skipped_samples:]
            if kept.size:
                yield self.block(kept, self._start_seconds)

    def block(self, samples: Samples, start_seconds: float | None) -> Decoded:
        return Decoded(samples, self._sample_rate, self._layout, start_seconds)


def _kind(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _unpacked(frame: AudioFrame) -> Samples:
    return only_numbers(frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T)


def _remixed(blocks: Iterable[Samples], sample_rate: int, layout: str, wanted: SoundFormat) -> Iterator[Samples]:
    """FFmpeg's mixes, but for those of a single channel: it lowers one that is spread over two, and adds up two."""
    has_centre = any(channel.name == "FC" for channel in av.AudioLayout(wanted.layout).channels)
    if layout == "mono" and not has_centre:
        for block in _resampled(blocks, sample_rate, layout, wanted.sample_rate, "mono"):
            spread = np.zeros((channel_count(wanted.layout), block.shape[1]), np.float32)
            spread[:2] = block
            yield spread
    elif wanted.layout == "mono" and layout != "mono":
        for block in _resampled(blocks, sample_rate, layout, wanted.sample_rate, "stereo"):
            yield np.mean(block, axis=0, keepdims=True, dtype=np.float32)
    else:
        yield from _resampled(blocks, sample_rate, layout, wanted.sample_rate, wanted.layout)


def _resampled(
    blocks: Iterable[Samples], sample_rate: int, layout: str, wanted_rate: int, wanted_layout: str
) -> Iterator[Samples]:
    if (sample_rate, layout) == (wanted_rate, wanted_layout):
        yield from blocks
        return
    resampler = av.AudioResampler(format="flt", layout=wanted_layout, rate=wanted_rate)
    came = given = 0
    for block in blocks:
        came += block.shape[1]
        for frame in resampler.resample(to_frame(block.T, layout, sample_rate)):
            given += frame.samples
            yield _unpacked(frame)
    due = round(Fraction(came * wanted_rate, sample_rate))
    # A bare flush gives nothing at all of sound that is shorter than the filter.
    silence = np.zeros((round(FLUSH_SECONDS * sample_rate), channel_count(layout)), np.float32)
    for frame in chain(resampler.resample(to_frame(silence, layout, sample_rate)), resampler.resample(None)):
        rest = _unpacked(frame)[:, : due - given]
        given += rest.shape[1]
        if rest.size:
            yield rest
