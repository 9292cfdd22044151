"""One streaming encoder: frames in, one unit out, into a pinned closed-GOP profile."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType
from av.video.stream import VideoStream

from splice.errors import MediaError
from splice.media.atomic import atomic_output
from splice.media.tags import MATRICES, PRIMARIES, TRANSFERS, code_of
from splice.types import VideoFormat

ENCODER_REVISION = "2"
"""Part of every cache key: to be raised with any change below, since other settings make other packets."""

# Few frames are encoded, so that speed counts and size does not: on a 720p shot superfast at crf 13 is as near to the
# source (48.5 dB) as fast at 14, in a third of the time. The same frames must give the same packets, always: the number
# of threads changes x264's decisions, so that it is pinned; with mbtree, several encoders at once gave 20 different
# files in 32 runs where the height was no multiple of 16, so that it is off. Parameter sets must be alike in all units:
# nothing may depend on the content.
ENCODERS = {
    "h264": (
        "libx264",
        {
            "preset": "superfast",
            "crf": "13",
            "threads": "4",
            "x264-params": "open-gop=0:keyint=100:min-keyint=10:bframes=2:b-pyramid=none:rc-lookahead=20:"
            "sliced-threads=0:mbtree=0",
        },
    ),
    "hevc": (
        "libx265",
        {
            "preset": "superfast",
            "crf": "13",
            # No B-frames: for one or two frames x265 with them gives decoding times out of thin air.
            "x265-params": "open-gop=0:keyint=100:min-keyint=10:bframes=0:rc-lookahead=20:"
            "frame-threads=2:pools=4:repeat-headers=0:log-level=error",
        },
    ),
}


UNIT_REORDER_FRAMES = 1
"""By how many frames decoding runs ahead of showing in a unit, at most: B-frames, but no pyramid of them."""


def encode_frames(frames: Iterable[av.VideoFrame], path: Path, video_format: VideoFormat, expected: int) -> None:
    """Encode ``expected`` frames of ``video_format`` into an mp4 at ``path``: complete or absent.

    Every frame is shown once, at the format's rate; nothing of a frame but its pixels is read.
    Raises MediaError: another number of frames came, or the disk is full.
    """
    with atomic_output(path) as partial, av.open(str(partial), "w", options=mux_options(video_format.rate)) as output:
        stream = _add_stream(output, video_format)
        count = 0
        for frame in frames:
            _check_format(frame, video_format)
            frame.pts, frame.time_base = count, 1 / video_format.rate
            # A decoded frame remembers what it was; the encoder would take that as an order.
            frame.pict_type = PictureType.NONE
            output.mux(stream.encode(frame))
            count += 1
        output.mux(stream.encode(None))
        if count != expected:
            raise MediaError(f"{path.name}: {count} frames came to be encoded, needed are {expected}")


def mux_options(rate: Fraction) -> dict[str, str]:
    """Options of FFmpeg's mp4 muxer: time scales that are multiples of the rate's numerator keep frame times exact."""
    scale = str(timescale(rate))
    return {"video_track_timescale": scale, "movie_timescale": scale}


def timescale(rate: Fraction) -> int:
    """Ticks per second: the rate's numerator, doubled until it is at least 10,000."""
    ticks = rate.numerator
    while ticks < 10_000:
        ticks *= 2
    return ticks


def _add_stream(output: av.container.OutputContainer, video_format: VideoFormat) -> VideoStream:
    encoder, options = ENCODERS[video_format.codec]
    stream = output.add_stream(encoder, rate=video_format.rate, options=dict(options))
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    context.width, context.height = video_format.width, video_format.height
    context.pix_fmt = video_format.pixel_format
    context.time_base = 1 / video_format.rate
    context.sample_aspect_ratio = video_format.sample_aspect_ratio
    context.colorspace = code_of(video_format.color.matrix, MATRICES)
    context.color_primaries = code_of(video_format.color.primaries, PRIMARIES)
    context.color_trc = code_of(video_format.color.transfer, TRANSFERS)
    context.color_range = 2 if video_format.color.full_range else 1
    if video_format.codec == "hevc":
        stream.codec_context.codec_tag = "hvc1"
    if video_format.rotation:
        stream.set_display_rotation(-video_format.rotation)
    return stream


def _check_format(frame: av.VideoFrame, video_format: VideoFormat) -> None:
    """PyAV would convert silently, by a matrix and range of its own choosing."""
    got = (frame.format.name, frame.width, frame.height)
    needed = (video_format.pixel_format, video_format.width, video_format.height)
    if got != needed:
        raise MediaError(
            f"a frame of {got[0]} {got[1]}x{got[2]} came to be encoded as {needed[0]} {needed[1]}x{needed[2]}"
        )
