"""Opening files that come from outside, safely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from splice.errors import MediaError, RequestError
from splice.media.identity import require_file, require_unchanged
from splice.types import Clip

CONTAINERS = "mov,mp4,matroska,webm,mpegts,mpeg,avi"
"""FFmpeg's names of the formats that are opened. Playlists, which lead to other files, are not among them."""


HEADER_ONLY = {"skip_frame": "all", "probesize": "32", "fpsprobesize": "0", "analyzeduration": "0"}
"""Options with which FFmpeg decodes no picture to open a file: 1 ms instead of 17 to 30 at 720p.

Enough to copy packets or to read sound. What is only known from a picture (pixel format, reordering) is unknown then.
"""

INDEXED = ("mov", "matroska")
"""Containers whose header tells everything of their streams, and whose index makes seeking exact."""


def open_video(path: str) -> InputContainer:
    """Open a local video of a listed format, and nothing that it refers to. Raises as ``open_local`` does."""
    return open_local(path, CONTAINERS, "a video")


def open_packets(clip: Clip) -> AbstractContextManager[InputContainer]:
    """Open a clip again, not to decode its pictures. Raises MediaError as ``open_clip`` does."""
    return open_clip(clip, HEADER_ONLY if clip.container.startswith(INDEXED) else {})


def open_own(path: Path) -> InputContainer:
    """Open one of our own mp4 files, not to decode its pictures. Raises av.FFmpegError."""
    return av.open(str(path), options=HEADER_ONLY)


@contextmanager
def open_clip(clip: Clip, options: Mapping[str, str] = MappingProxyType({})) -> Iterator[InputContainer]:
    """Open a clip again, to read it. Raises MediaError where that fails, it was whole when it was probed; and where it
    has changed by then, or by the end of the reading: what was made would be of two videos."""
    require_unchanged(clip.path, clip.identity)
    try:
        container = open_local(clip.path, CONTAINERS, "a video", options)
    except RequestError as error:
        raise MediaError(f"{clip.label}: {error}") from error
    with container:
        yield container
    require_unchanged(clip.path, clip.identity)


def open_local(path: str, formats: str, kind: str, options: Mapping[str, str] = MappingProxyType({})) -> InputContainer:
    """Open a local file of one of ``formats``, and nothing that it refers to.

    kind: what messages call it. options: FFmpeg's, of the file and of its streams.

    Raises RequestError: missing, a folder, unreadable, or of another format.
    """
    require_file(path)
    allowed = {"format_whitelist": formats, "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path}", options={**options, **allowed})
    except av.FFmpegError as error:
        raise RequestError(
            f"{path}: can't be read as {kind} ({error.strerror}); needed: a complete file of one of the formats "
            f"{formats.replace(',', ', ')}"
        ) from error


def video_stream(container: InputContainer, path: str) -> VideoStream:
    """The first video stream that is not a cover picture. Raises RequestError where there is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            # One frame per thread in flight: speed without memory that grows with the clip.
            stream.thread_type = "AUTO"
            return stream
    raise RequestError(f"{path}: has no video stream; give a file with pictures")
