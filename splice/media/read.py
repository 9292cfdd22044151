"""Any range of a clip's frames, exact to the frame, in the timeline's format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from splice.errors import MediaError
from splice.media.conform import Conformer, deinterlaced
from splice.media.container import INDEXED, open_clip, video_stream
from splice.media.encode import timescale
from splice.types import Clip, ClipIdentity, FrameRange, VideoFormat

Timed = tuple[Fraction, av.VideoFrame]
"""A decoded picture and its time in seconds after the clip's first shown frame."""


def read_frames(clip: Clip, video_format: VideoFormat, frames: FrameRange) -> Iterator[av.VideoFrame]:
    """Frames of the conformed clip, in display order, one by one.

    Frame n shows the last picture whose time is <= n / rate, so that a clip of the timeline's own rate
    gives each of its pictures once. Memory does not grow with the range.
    Raises MediaError: the clip can't be decoded, or holds other frames than it was probed to hold.
    """
    if not len(frames):
        return
    conform = Conformer(clip, video_format)
    last: tuple[av.VideoFrame, av.VideoFrame] | None = None
    for picture in _sample(_timed_pictures(clip, frames.start / video_format.rate), video_format.rate, frames):
        if last is None or last[0] is not picture:
            last = picture, conform(picture)
        yield last[1]


def read_output(path: Path, video_format: VideoFormat, frame_count: int, frames: FrameRange) -> Iterator[av.VideoFrame]:
    """Frames of one of our own outputs, of which everything is known without probing it."""
    output = Clip(
        index=0,
        name=path.name,
        path=str(path),
        identity=ClipIdentity(0, 0, ""),
        container="mov",
        codec=video_format.codec,
        width=video_format.width,
        height=video_format.height,
        rotation=video_format.rotation,
        sample_aspect_ratio=video_format.sample_aspect_ratio,
        pixel_format=video_format.pixel_format,
        bit_depth=video_format.bit_depth,
        color=video_format.color,
        is_interlaced=False,
        rate=video_format.rate,
        is_constant_rate=True,
        frame_count=frame_count,
        duration_seconds=frame_count / video_format.rate,
        time_base=Fraction(1, timescale(video_format.rate)),
        first_pts=0,
        start_seconds=Fraction(0),
        sound=None,
    )
    return read_frames(output, video_format, frames)


def _sample(pictures: Iterable[Timed], rate: Fraction, frames: FrameRange) -> Iterator[av.VideoFrame]:
    """For each frame number the picture that is on show then."""
    shown: av.VideoFrame | None = None
    number = frames.start
    for time, picture in pictures:
        while shown is not None and time * rate > number:
            yield shown
            number += 1
            if number == frames.stop:
                return
        shown = picture
    for _ in range(number, frames.stop):
        assert shown is not None, "a clip has one picture at least"
        yield shown


def _timed_pictures(clip: Clip, from_seconds: Fraction) -> Iterator[Timed]:
    """Pictures from the one on show at ``from_seconds`` or earlier, up to the last."""
    if clip.is_interlaced:
        yield from deinterlaced(_from_start(clip))
        return
    can_seek = clip.first_pts is not None and clip.is_constant_rate and clip.container.startswith(INDEXED)
    target = int(from_seconds * clip.rate) if can_seek else 0
    yield from _from_keyframe(clip, target) if target > 0 else _from_start(clip)


def _from_start(clip: Clip) -> Iterator[Timed]:
    with open_clip(clip) as container:
        stream = video_stream(container, clip.path)
        first_pts: int | None = None
        count = 0
        for picture in _decoded(container.decode(stream), clip):
            first_pts = picture.pts if first_pts is None else first_pts
            yield _time_of(clip, count, picture.pts, first_pts), picture
            count += 1
    if count != clip.frame_count:
        raise MediaError(
            f"{clip.label}: {count} frames can be decoded, but {clip.frame_count} were counted; "
            f"the file is damaged: export it again"
        )


def _from_keyframe(clip: Clip, target: int) -> Iterator[Timed]:
    """Pictures from number ``target`` of a clip of constant rate, decoded from the keyframe before it."""
    assert clip.first_pts is not None
    with open_clip(clip) as container:
        stream = video_stream(container, clip.path)
        container.seek(clip.first_pts + int(target / (clip.rate * clip.time_base)), stream=stream)
        number: int | None = None
        for picture in _decoded(_needed(container, stream, clip, target), clip):
            found = _number_of(clip, picture.pts)
            # What is shown before the keyframe may refer to pictures that the seek has skipped.
            if number is None and not picture.key_frame:
                continue
            if number is None and found > target:
                break
            if number is not None and not number < found <= max(number + 1, target):
                raise MediaError(f"{clip.label}: frame {found} follows frame {number}; it is damaged: export it again")
            number = found
            if number >= target:
                yield number / clip.rate, picture
    if number is None:
        # The container's index led past the target, or to where no picture is whole.
        yield from _from_start(clip)
    elif number != clip.frame_count - 1:
        raise MediaError(
            f"{clip.label}: decoding ended after frame {number}, but the last is {clip.frame_count - 1}; "
            f"the file is damaged: export it again"
        )


def _needed(container: InputContainer, stream: VideoStream, clip: Clip, target: int) -> Iterator[av.VideoFrame]:
    """Pictures after a seek; of those before ``target`` only what others may be decoded from."""
    for packet in container.demux(stream):
        if clip.cut_points is not None and packet.size:
            is_before = _number_of(clip, packet.pts) < target
            stream.codec_context.skip_frame = "NONREF" if is_before else "DEFAULT"
        yield from packet.decode()


def _decoded(pictures: Iterator[av.VideoFrame], clip: Clip) -> Iterator[av.VideoFrame]:
    try:
        yield from pictures
    except av.FFmpegError as error:
        raise MediaError(f"{clip.label}: can't be decoded ({error.strerror}); export it again") from error


def _time_of(clip: Clip, count: int, pts: int | None, first_pts: int | None) -> Fraction:
    if clip.is_constant_rate or pts is None or first_pts is None:
        return count / clip.rate
    return (pts - first_pts) * clip.time_base


def _number_of(clip: Clip, pts: int | None) -> int:
    if pts is None or clip.first_pts is None:
        raise MediaError(f"{clip.label}: a frame without a time stamp after seeking; remux the clip to mp4")
    return round((pts - clip.first_pts) * clip.time_base * clip.rate)
