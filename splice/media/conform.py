"""Bring a clip's pictures to the timeline's size, orientation, pixel format and colour; libavfilter does the work."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

from splice.errors import MediaError
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
        self._clip = clip
        self._pixel_format = video_format.pixel_format
        # Only what one picture tells: the rate is the reader's business, and fields are woven before.
        spatial = [r for r in conform_reasons(clip, video_format) if not r.startswith("rate") and r != "interlaced"]
        self._steps = _steps(clip, video_format) if spatial else []
        self._graph: Any = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Raises MediaError where the picture is of another kind than the clip's first one, or can't be converted."""
        self._refuse_change(frame)
        if not self._steps:
            return _without_range_in_name(frame, self._pixel_format)
        if self._graph is None:
            self._graph = self._build_graph(frame)
        self._graph.push(frame)
        return _without_range_in_name(self._graph.vpull(), self._pixel_format)

    def _refuse_change(self, frame: av.VideoFrame) -> None:
        probed = (self._clip.width, self._clip.height, self._clip.pixel_format.replace("yuvj", "yuv"))
        got = (frame.width, frame.height, frame.format.name.replace("yuvj", "yuv"))
        if got != probed:
            raise MediaError(
                f"{self._clip.label}: its pictures change from {probed[0]}x{probed[1]} {probed[2]} to "
                f"{got[0]}x{got[1]} {got[2]}; cut the clip there, or convert it to one size and format first"
            )

    def _build_graph(self, frame: av.VideoFrame) -> Any:
        try:
            return filter_graph(frame, self._steps)
        except av.FFmpegError as error:
            raise MediaError(
                f"{self._clip.label}: its pictures ({frame.format.name}, {self._clip.color}) can't be converted to "
                f"{self._pixel_format} ({error.strerror}); convert the clip first"
            ) from error


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
    return [
        *([("hflip", "")] if clip.is_mirrored else []),
        *_TURNS.get(turn, []),
        ("scale", f"w={size[0]}:h={size[1]}:flags={SCALE_FLAGS}:{_scale_colors(clip.color, video_format)}"),
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


def _scale_colors(color: ColorTags, video_format: VideoFormat) -> str:
    """Keeps matrix and range, which the filter would convert to what it takes for the default; RGB becomes YUV."""
    kept, source = _as_yuv(color, video_format), _range_name(color)
    came_in = "" if color.matrix == "gbr" else f"in_color_matrix={color.matrix}:"
    return f"{came_in}out_color_matrix={kept.matrix}:in_range={source}:out_range={_range_name(kept)}"


def _color_steps(color: ColorTags, video_format: VideoFormat) -> list[tuple[str, str]]:
    source, target = _as_yuv(color, video_format), video_format.color
    here, there = _names(source), _names(target)
    if here == there:
        return []
    if here[:3] == there[:3]:
        # The filter knows no HDR curves; where only the range differs, any curve will do.
        here, there = ("bt709", "bt709", "bt709", here[3]), ("bt709", "bt709", "bt709", there[3])
    arguments = ":".join(
        f"{prefix}{key}={value}"
        for prefix, names in (("i", here), ("", there))
        for key, value in zip(("space", "primaries", "trc", "range"), names, strict=True)
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
