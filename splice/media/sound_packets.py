"""Sound as packets of an mp4 that others write: encoded, or copied from a file of our own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from splice.errors import MediaError
from splice.media.ahead import ahead
from splice.media.container import open_own
from splice.media.sound import channel_count, decode_sound, read_only, sound_stream, to_frame
from splice.sound import SCALE_24_BIT, Samples, quantised
from splice.types import SoundFormat

SoundCodec = Literal["aac", "flac", "opus"]

# AAC would write channels of unknown meaning, and Opus refuse. The order of the channels is the same.
_ENCODED_AS = {"5.0(side)": "5.0", "5.1(side)": "5.1"}

BITS_PER_SECOND = 128_000
"""Per channel, of AAC and Opus: far above where listeners hear a difference."""

# At 128 kb/s a channel AAC's `fast` measured 5 to 7 dB less noise than the default `twoloop` on music, at nearly twice
# the speed (107 times real time against 60, stereo); FLAC is as fast at level 5 (700 times) as at 0, and 14% smaller.
# Every join copies all of its predecessor's packets of FLAC: large ones are few.
ENCODERS: dict[SoundCodec, tuple[str, str, dict[str, str]]] = {
    "aac": ("aac", "fltp", {"aac_coder": "fast"}),
    "flac": ("flac", "s32", {"compression_level": "5", "bits_per_raw_sample": "24", "frame_size": "16384"}),
    "opus": ("libopus", "flt", {}),
}

MAKE_AGAIN = "delete it and run the same command with the same run_id: it is made again"


def add_sound_stream(output: OutputContainer, sound_format: SoundFormat, codec: SoundCodec) -> AudioStream:
    """A sound track for ``encode_sound``, or for FLAC packets copied from such a track of the same format."""
    encoder, _, _ = ENCODERS[codec]
    stream = output.add_stream(encoder, rate=sound_format.sample_rate)
    assert isinstance(stream, AudioStream)
    stream.time_base = Fraction(1, sound_format.sample_rate)
    _set_up(stream.codec_context, codec, sound_format.sample_rate, sound_format.layout)
    return stream


def encode_sound(
    stream: AudioStream, blocks: Iterator[Samples], boundaries: Sequence[int] = ()
) -> Iterator[Packet[AudioStream]]:
    """Packets of ``stream``, timed in samples; they last as long as the samples given. Lazy, memory is constant.

    boundaries: rising sample positions at which a packet must end, for ``copied_sound``; of FLAC alone, which keeps
        24 bits of every sample, exactly.
    Raises ValueError for boundaries in another codec, out of order, or beyond the end.
    """
    if stream.codec_context.codec.canonical_name == "flac":
        yield from _encode_runs(stream, ahead(blocks), boundaries)
        return
    if boundaries:
        raise ValueError(f"{stream.codec_context.name}: packets depend on those before; only FLAC can be cut")
    position = 0
    for block in ahead(blocks):
        yield from stream.encode(_timed(to_frame(block.T, stream.layout.name, stream.sample_rate), position))
        position += block.shape[1]
    yield from stream.encode(None)


def copied_sound(path: Path, stop_sample: int) -> Iterator[Packet[AudioStream]]:
    """FLAC packets of one of our own files, timed in samples, from its start exactly up to ``stop_sample``.

    Their ``stream`` is the file's own. Raises MediaError where no packet ends there.
    """
    position = 0
    with _open_own(path) as (container, stream):
        for packet in container.demux(stream) if stop_sample else ():
            if packet.size and packet.pts is not None and packet.duration is not None:
                position = packet.pts + packet.duration
                if position > stop_sample:
                    break
                yield packet
            if position == stop_sample:
                return
    if position != stop_sample:
        raise MediaError(
            f"{path}: no packet of sound ends at sample {stop_sample}, the last that was read ends at {position}; "
            f"{MAKE_AGAIN}"
        )


def read_own_sound(path: Path, sound_format: SoundFormat, start_sample: int, stop_sample: int) -> Iterator[Samples]:
    """Samples ``start_sample`` up to, not including, ``stop_sample`` of the FLAC track of one of our own files.

    Raises MediaError: other rate or channels, or the track ends earlier.
    """
    if start_sample >= stop_sample:
        return
    with _open_own(path) as (container, stream):
        _require_format(path, stream, sound_format)
        container.seek(start_sample, stream=stream)
        position: int | None = None
        for block in decode_sound(container, stream, str(path)):
            if position is None:
                position = round((block.start_seconds or 0) * sound_format.sample_rate)
            stop = position + block.samples.shape[1]
            if stop > start_sample:
                yield block.samples[:, max(0, start_sample - position) : stop_sample - position]
            position = stop
            if position >= stop_sample:
                return
    raise MediaError(
        f"{path}: its sound ends at sample {position or 0}, needed are {start_sample} to {stop_sample}; {MAKE_AGAIN}"
    )


def _set_up(context: AudioCodecContext, codec: SoundCodec, sample_rate: int, layout: str) -> None:
    _, sample_format, options = ENCODERS[codec]
    context.sample_rate = sample_rate
    context.layout = _ENCODED_AS.get(layout, layout)
    context.format = sample_format
    context.time_base = Fraction(1, sample_rate)
    context.options = dict(options)
    channels = channel_count(layout)
    if codec != "flac":
        context.bit_rate = BITS_PER_SECOND * channels
    if codec == "opus" and channels > 2:
        # By default FFmpeg's encoder (8.1) mixes up the order of the channels of 5.0.
        context.options["mapping_family"] = "1"


def _encode_runs(
    stream: AudioStream, blocks: Iterator[Samples], boundaries: Sequence[int]
) -> Iterator[Packet[AudioStream]]:
    """One encoder for each run between boundaries: it may end with a short packet, but have none before that."""
    rate, layout = stream.sample_rate, stream.layout.name
    encoder: AudioCodecContext | None = None
    for position, block, ends_run in _divided(blocks, boundaries):
        if encoder is None:
            encoder = av.CodecContext.create("flac", "w")
            _set_up(encoder, "flac", rate, layout)
        packets = encoder.encode(_timed(to_frame(_in_32_bits(block).T, layout, rate), position))
        yield from _assigned(packets, stream)
        if ends_run:
            yield from _assigned(encoder.encode(None), stream)
            encoder = None
    if encoder is not None:
        yield from _assigned(encoder.encode(None), stream)


def _divided(blocks: Iterator[Samples], boundaries: Sequence[int]) -> Iterator[tuple[int, Samples, bool]]:
    """(position, samples, whether a run ends with them), cut at the boundaries."""
    if list(boundaries) != sorted(set(boundaries)) or any(boundary <= 0 for boundary in boundaries):
        raise ValueError(f"boundaries must rise, the first one after sample 0; got {list(boundaries)}")
    position, waiting = 0, list(boundaries)
    for block in blocks:
        rest = block
        while waiting and position + rest.shape[1] >= waiting[0]:
            count = waiting.pop(0) - position
            yield position, rest[:, :count], True
            position, rest = position + count, rest[:, count:]
        if rest.size:
            yield position, rest, False
            position += rest.shape[1]
    if waiting:
        raise ValueError(f"the sound ends at sample {position}, before the boundaries {waiting}")


def _in_32_bits(block: Samples) -> npt.NDArray[np.int32]:
    """Steps of 24 bits, in the upper bytes."""
    return (quantised(block) * np.float64(SCALE_24_BIT)).astype(np.int32) << 8


def _timed(frame: AudioFrame, position: int) -> AudioFrame:
    frame.pts, frame.time_base = position, Fraction(1, frame.sample_rate)
    return frame


def _assigned(packets: Iterable[Packet[AudioStream]], stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    for packet in packets:
        # The last one of an encoder is empty, with a checksum of its run that would pass for the whole track's.
        if packet.size:
            packet.stream, packet.time_base = stream, Fraction(1, stream.sample_rate)
            yield packet


@contextmanager
def _open_own(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    reason: str | None = "no FLAC track in it"
    try:
        with open_own(path) as container:
            stream = sound_stream(container)
            if stream is not None and stream.codec_context.name == "flac":
                yield container, read_only(container, stream)
                return
    except av.FFmpegError as error:
        reason = error.strerror
    raise MediaError(f"{path}: the sound of one of our own files can't be read ({reason}); {MAKE_AGAIN}")


def _require_format(path: Path, stream: AudioStream, sound_format: SoundFormat) -> None:
    # FLAC keeps channels but not names: what was 5.1 comes back as 5.1(side).
    got = (stream.sample_rate, stream.layout.nb_channels)
    needed = (sound_format.sample_rate, channel_count(sound_format.layout))
    if got != needed:
        raise MediaError(f"{path}: its sound has {got} (Hz, channels), needed are {needed}; {MAKE_AGAIN}")
