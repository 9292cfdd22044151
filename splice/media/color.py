"""YUV <-> RGB by a format's own matrix and range, without a shift.

swscale does the arithmetic. Its conversion of *range* truncates where it should round (half a level of
chroma lost at every pass, more at 10 bits), so that full-range pictures go through limited range at
12 bits, and libavfilter's ``colorspace`` filter converts the range.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from splice.models.protocol import Frame
from splice.types import VideoFormat

ACCURATE = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

MATRICES = {
    "bt709": Colorspace.ITU709,
    "fcc": Colorspace.FCC,
    "smpte170m": Colorspace.SMPTE170M,
    "bt470bg": Colorspace.SMPTE170M,
    "smpte240m": Colorspace.SMPTE240M,
    "bt2020nc": Colorspace.BT2020,
}
"""The matrices that can be converted, by FFmpeg's names."""


def to_rgb(frame: av.VideoFrame, video_format: VideoFormat) -> Frame:
    """One frame of the timeline as RGB, full range: H x W x 3, uint8 for 8-bit formats, else uint16 (0..65535)."""
    if video_format.color.full_range:
        frame = convert_range(frame, "pc", "tv", "yuv420p12")
    matrix = MATRICES[video_format.color.matrix]
    return _reformat(
        frame,
        format=_rgb_format(video_format),
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=ACCURATE,
    ).to_ndarray()


def to_view(frame: av.VideoFrame, video_format: VideoFormat, long_side: int) -> Frame:
    """One frame of the timeline to be looked at: upright, square pixels, (H, W, 3) uint8 RGB.

    long_side: of it in pixels at most. Both sides are even. Of more than 8 bits the upper ones are shown.
    """
    width, height = float(video_format.width * video_format.sample_aspect_ratio), float(video_format.height)
    scale = min(1.0, long_side / max(width, height))
    matrix = MATRICES[video_format.color.matrix]
    picture = _reformat(
        frame,
        width=max(2, 2 * round(width * scale / 2)),
        height=max(2, 2 * round(height * scale / 2)),
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if video_format.color.full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.AREA,
    ).to_ndarray()
    return np.rot90(picture, k=-video_format.rotation // 90) if video_format.rotation else picture


def to_luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The luma of one frame as it is stored, (H, W); of more than 8 bits the upper ones."""
    plane = frame.planes[0]
    depth = frame.format.components[0].bits
    stored = np.frombuffer(plane, np.uint8 if depth == 8 else np.uint16)  # type: ignore[call-overload]
    luma = stored.reshape(plane.height, -1)[:, : plane.width]
    shown: NDArray[np.uint8] = luma if depth == 8 else (luma >> (depth - 8)).astype(np.uint8)
    return shown


def to_yuv(rgb: Frame, video_format: VideoFormat) -> av.VideoFrame:
    """The way back: an RGB picture, as ``to_rgb`` gives it, as a frame of the timeline."""
    matrix = MATRICES[video_format.color.matrix]
    full_range = video_format.color.full_range
    frame = _reformat(
        av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb), format=_rgb_format(video_format)),
        format="yuv420p12le" if full_range else video_format.pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=ACCURATE,
    )
    return convert_range(frame, "tv", "pc", video_format.pixel_format.removesuffix("le")) if full_range else frame


def convert_range(frame: av.VideoFrame, source: str, target: str, pixel_format: str) -> av.VideoFrame:
    """The same picture in another range (``tv`` or ``pc``) and depth; matrix, primaries and transfer stay."""
    same = "space=bt709:trc=bt709:primaries=bt709:ispace=bt709:itrc=bt709:iprimaries=bt709"
    graph = filter_graph(frame, [("colorspace", f"{same}:irange={source}:range={target}:format={pixel_format}")])
    frame.pts = 0
    graph.push(frame)
    converted: av.VideoFrame = graph.vpull()
    return converted


def filter_graph(frame: av.VideoFrame, steps: list[tuple[str, str]]) -> Graph:
    """A chain of FFmpeg filters for frames like ``frame``; pixels count as square."""
    graph = Graph()
    last: Any = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    for name, arguments in steps:
        step = graph.add(name, arguments)
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _reformat(frame: av.VideoFrame, **wanted: Any) -> av.VideoFrame:
    # A frame's own reformatter would set up its tables for every single frame, and start threads for it.
    if not hasattr(_local, "reformatter"):
        _local.reformatter = VideoReformatter()
    converted: av.VideoFrame = _local.reformatter.reformat(frame, threads=1, **wanted)
    return converted


_local = threading.local()


def _rgb_format(video_format: VideoFormat) -> str:
    return "rgb24" if video_format.bit_depth == 8 else "rgb48le"
