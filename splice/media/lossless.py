"""RGB pictures on their way from machine to machine: FFV1 in Matroska, every frame a keyframe, bit for bit.

They are read as arrays by PyAV or, for a model that works on tensors, as a torch tensor by decord. decord 0.6 knows no
more than 8 bits a channel (16-bit pictures came out up to 3 levels of 255 off), fails on some narrow ones, and has
wheels for Linux on x86-64 alone; those, PyAV reads. The pixels are the same; decord takes up to a quarter more CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from splice.errors import MediaError, RequestError
from splice.media.atomic import atomic_output
from splice.media.container import open_local, video_stream
from splice.models.protocol import Frame

if TYPE_CHECKING:
    from torch import Tensor

TAG = "JOIN_CLIPS"

FORMATS: dict[np.dtype[Any], tuple[str, str]] = {
    np.dtype(np.uint8): ("rgb24", "bgr0"),
    np.dtype(np.uint16): ("rgb48le", "gbrp16le"),
}
"""Of each type of picture: its pixel format, and the one of the same pixels that FFV1 takes."""

DECORD_NARROWEST = 73
"""Pixels of width. Of some narrower pictures decord takes the padding of their lines for further channels: it counts
them as the line's bytes, a multiple of 3 x 32, by the width, wherever that leaves no remainder."""

ENCODER = {"level": "3", "slices": "4", "g": "1"}


@dataclass(frozen=True)
class LosslessVideo:
    """What the head of a file says. shape: H x W x 3 of its pictures. note: the text that was written with it."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    note: str

    def read(self, count: int) -> Iterator[Frame]:
        """Its pictures, one by one. Raises MediaError where it can't be decoded, or holds another number than that."""
        shown = 0
        reformatter, rgb = VideoReformatter(), FORMATS[self.dtype][0]
        try:
            with av.open(str(self.path)) as container:
                for frame in container.decode(container.streams.video[0]):
                    shown += 1
                    yield reformatter.reformat(frame, format=rgb, threads=1).to_ndarray()
        except av.FFmpegError as error:
            raise MediaError(
                f"{self.path}: can't be decoded after {shown} frames ({error.strerror}); {ANEW}"
            ) from error
        if shown != count:
            raise MediaError(f"{self.path}: holds {shown} frames, needed are {count}; {ANEW}")

    @property
    def suits_tensors(self) -> bool:
        """Whether ``read_tensor`` reads it here: 8 bits, not narrower than DECORD_NARROWEST, decord is installed."""
        return self.dtype == np.uint8 and self.shape[1] >= DECORD_NARROWEST and find_spec("decord") is not None

    def read_tensor(self, count: int) -> Tensor:
        """All its pictures in one tensor: (count, H, W, 3), uint8, RGB. Raises MediaError as ``read`` does."""
        from decord import DECORDError, VideoReader
        from decord.bridge import use_torch

        try:
            reader = VideoReader(str(self.path))
            shown = len(reader)
            if shown == count:
                with use_torch():
                    return reader.get_batch(range(count))
        except (DECORDError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise MediaError(f"{self.path}: can't be decoded ({reason}); {ANEW}") from error
        raise MediaError(f"{self.path}: holds {shown} frames, needed are {count}; {ANEW}")


ANEW = "delete it and run the same command with the same run_id: it is made anew"
"""The remedy for every file between two machines that is not what it should be."""


def write_lossless(pictures: Iterable[Frame], path: Path, rate: Fraction, note: str) -> None:
    """Write pictures (H x W x 3, all of one size, uint8 or uint16) and a text beside them: complete or absent.

    Raises MediaError where the disk is full.
    """
    options = {"fflags": "bitexact"}  # no random ids: the same pictures and the same note make the same file
    with atomic_output(path) as partial, av.open(str(partial), "w", format="matroska", options=options) as output:
        output.metadata[TAG] = note
        stream: VideoStream | None = None
        reformatter = VideoReformatter()
        for number, picture in enumerate(pictures):
            stream = stream or _add_stream(output, picture, rate)
            rgb, stored = FORMATS[picture.dtype]
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format=rgb)
            frame = reformatter.reformat(frame, format=stored, threads=1)
            frame.pts, frame.time_base = number, 1 / rate
            output.mux(stream.encode(frame))
        if stream is None:
            raise MediaError(f"{path.name}: no frame came to be written, needed is one at least")
        output.mux(stream.encode(None))


def open_lossless(path: Path) -> LosslessVideo:
    """Read the head of a file. Raises MediaError: there is none, or it is not one that ``write_lossless`` wrote."""
    try:
        with open_local(str(path), "matroska", "frames of a seam") as container:
            context = video_stream(container, str(path)).codec_context
            note = container.metadata.get(TAG)
            dtypes = [dtype for dtype, (_, stored) in FORMATS.items() if stored == context.pix_fmt]
            if note is None or context.name != "ffv1" or not dtypes:
                raise MediaError(f"{path}: was not written by this program; {ANEW}")
            return LosslessVideo(path, (context.height, context.width, 3), dtypes[0], note)
    except RequestError as error:
        raise MediaError(f"{error}; {ANEW}") from error


def _add_stream(output: OutputContainer, picture: Frame, rate: Fraction) -> VideoStream:
    stream = output.add_stream("ffv1", rate=rate, options=dict(ENCODER))
    assert isinstance(stream, VideoStream)
    stream.codec_context.height, stream.codec_context.width = picture.shape[:2]
    stream.codec_context.pix_fmt = FORMATS[picture.dtype][1]
    return stream
