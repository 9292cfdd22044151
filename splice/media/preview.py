"""Pictures as a small video that a page can carry within itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from splice.models.protocol import Frame

ENCODER = {"preset": "veryfast", "crf": "25", "threads": "1"}


def encode_preview(pictures: Sequence[Frame], rate: Fraction) -> bytes:
    """An mp4 (H.264) of pictures of one size, (H, W, 3) uint8 RGB, both even, at ``rate`` frames per second."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=rate, options=dict(ENCODER))
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.height, context.width = pictures[0].shape[:2]
        context.pix_fmt = "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = int(Colorspace.ITU709)
        context.color_range = int(ColorRange.MPEG)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base, frame.pict_type = number, 1 / rate, PictureType.NONE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()
