"""Bring a clip's pictures to the timeline's size, orientation, pixel format and colour; libavfilter does the work."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

from splice.format import conform_reasons
from splice.media.color import filter_graph
from splice.types import Clip, ColorTags, VideoFormat

SCALE_FLAGS = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"

_COLORSPACE_NAMES = {"bt2020nc": "bt2020ncl", "gamma22": "bt470m", "gamma28": "bt470bg"}
"""Where the ``colorspace`` filter calls a matrix or transfer otherwise."""

_TURNS = {90: [("transpose", "clock")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "cclock")]}


class Conformer:
    """Conforms one clip's pictures, one by one; those that fit come back as they are."""

    def __init__(self, clip: Clip, video_format: VideoFormat) -> None:
        self._pixel_format = video_format.pixel_format
        # Only what one picture tells: the rate is the reader's business, and fields are woven before.
        spatial = [r for r in conform_reasons(clip, video_format) if not r.startswith("rate") and r != "interlaced"]
        self._steps = _steps(clip, video_format) if spatial else []
        self._graph: Any = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        if not self._steps:
            return _without_range_in_name(frame, self._pixel_format)
        if self._graph is None:
            self._graph = filter_graph(frame, self._steps)
        self._graph.push(frame)
        return _without_range_in_name(self._graph.vpull(), self._pixel_format)


def deinterlaced(pictures: Iterator[tuple[Fraction, av.VideoFrame]]) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """One whole picture for every interlaced one, at its time (FFmpeg's bwdif); delayed by its look-ahead."""
    graph: Any = None
    times: deque[Fraction] = deque()
    for time, picture in pictures:
        graph = graph or filter_graph(picture, [("bwdif", "mode=send_frame:deint=all")])
        times.append(time)
        graph.push(picture)
        yield from _pulled(graph, times)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph, times)


def _pulled(graph: Any, times: deque[Fraction]) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    while True:
        try:
            picture = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield times.popleft(), picture


def _steps(clip: Clip, video_format: VideoFormat) -> list[tuple[str, str]]:
    turn = (clip.rotation - video_format.rotation) % 360
    width, height, aspect = clip.width, clip.height, clip.sample_aspect_ratio
    if turn in (90, 270):
        width, height, aspect = height, width, 1 / aspect
    size = _covering_size(width, height, aspect / video_format.sample_aspect_ratio, video_format)
    known_range = _range_name(clip.color)
    is_rgb = clip.color.matrix == "gbr"
    color = f"out_color_matrix={video_format.color.matrix}:out_range=tv" if is_rgb else f"out_range={known_range}"
    return [
        *_TURNS.get(turn, []),
        ("scale", f"w={size[0]}:h={size[1]}:flags={SCALE_FLAGS}:in_range={known_range}:{color}"),
        ("crop", f"w={video_format.width}:h={video_format.height}"),
        ("format", video_format.pixel_format),
        *_color_steps(clip.color, video_format),
    ]


def _covering_size(width: int, height: int, stretch: Fraction, video_format: VideoFormat) -> tuple[int, int]:
    """The size to scale to, so that a centre crop fills the format; a surplus of one pixel is only cropped."""
    shown_width = width * stretch
    if 0 <= shown_width - video_format.width <= 1 and 0 <= height - video_format.height <= 1:
        return math.ceil(shown_width), height
    factor = max(video_format.width / shown_width, Fraction(video_format.height, height))
    return math.ceil(shown_width * factor), math.ceil(height * factor)


def _color_steps(color: ColorTags, video_format: VideoFormat) -> list[tuple[str, str]]:
    source, target = _as_yuv(color, video_format), video_format.color
    if _names(source) == _names(target):
        return []
    arguments = ":".join(
        f"{prefix}{key}={value}"
        for prefix, tags in (("i", source), ("", target))
        for key, value in zip(("space", "primaries", "trc", "range"), _names(tags), strict=True)
    )
    return [("colorspace", f"{arguments}:format={video_format.pixel_format.removesuffix('le')}")]


def _as_yuv(color: ColorTags, video_format: VideoFormat) -> ColorTags:
    """What the scale step has made of the colour: RGB has become limited-range YUV."""
    if color.matrix != "gbr":
        return color
    return ColorTags(video_format.color.matrix, color.primaries, color.transfer, full_range=False)


def _names(color: ColorTags) -> tuple[str, str, str, str]:
    matrix = _COLORSPACE_NAMES.get(color.matrix, color.matrix)
    transfer = _COLORSPACE_NAMES.get(color.transfer, color.transfer)
    return matrix, color.primaries, transfer, _range_name(color)


def _range_name(color: ColorTags) -> str:
    return "pc" if color.full_range else "tv"


def _without_range_in_name(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """yuvj420p says by its name what the timeline says by its tags; the pixels are the same."""
    if frame.format.name == pixel_format:
        return frame
    return av.VideoFrame.from_ndarray(frame.to_ndarray(), format=pixel_format)
