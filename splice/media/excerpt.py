"""What an output of ours sounds like around a seam, and how well its two tracks fit."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from splice.errors import MediaError
from splice.media.sound import decode_sound, read_only, sound_stream
from splice.sound import Samples


@dataclass(frozen=True)
class TrackOffsets:
    """By how many seconds an output's sound begins, and ends, after its picture does."""

    start_offset_seconds: float
    end_offset_seconds: float


def read_excerpt(path: Path, start_seconds: Fraction, stop_seconds: Fraction) -> tuple[Samples, int]:
    """(samples by channels, sample rate) of a part of a file's sound; cut off where the track begins or ends.

    Raises MediaError where it can't be decoded, or there is none.
    """
    with av.open(str(path)) as container:
        stream = sound_stream(container)
        if stream is None:
            raise MediaError(f"{path}: has no sound")
        rate = stream.codec_context.sample_rate
        start, stop = round(start_seconds * rate), round(stop_seconds * rate)
        container.seek(max(0, start), stream=read_only(container, stream))
        parts: list[Samples] = []
        position: int | None = None
        for block in decode_sound(container, stream, str(path)):
            if position is None:
                position = round((block.start_seconds or 0) * rate)
            parts.append(block.samples[:, max(0, start - position) : max(0, stop - position)])
            position += block.samples.shape[1]
            if position >= stop:
                break
    if not parts:
        raise MediaError(f"{path}: has no sound at {float(start_seconds):.2f} s")
    return np.concatenate(parts, axis=1), rate


def track_offsets(path: Path) -> TrackOffsets | None:
    """How an output's two tracks fit, by the container's own time stamps; None where there is no sound."""
    with av.open(str(path)) as container:
        sound, (video, *_) = sound_stream(container), container.streams.video
        if sound is None:
            return None
        spans = []
        for stream in (video, sound):
            time_base, start, length = stream.time_base, stream.start_time or 0, stream.duration
            assert time_base is not None and length is not None, "our own muxer writes both"
            spans.append((start * time_base, (start + length) * time_base))
    (picture_start, picture_end), (sound_start, sound_end) = spans
    return TrackOffsets(float(sound_start - picture_start), float(sound_end - picture_end))
