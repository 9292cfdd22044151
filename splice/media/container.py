"""Opening files that come from outside, safely."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from splice.errors import MediaError, RequestError
from splice.types import Clip

CONTAINERS = "mov,mp4,matroska,webm,mpegts,mpeg,avi"
"""FFmpeg's names of the formats that are opened. Playlists, which lead to other files, are not among them."""


def require_file(path: str) -> None:
    """Raises RequestError where ``path`` is no file: missing, or a folder."""
    if not Path(path).exists():
        raise RequestError(f"{path}: no such file")
    if not Path(path).is_file():
        raise RequestError(f"{path}: is not a file; give the path of a file")


def open_video(path: str) -> InputContainer:
    """Open a local video of a listed format, and nothing that it refers to. Raises as ``open_local`` does."""
    return open_local(path, CONTAINERS, "a video")


def open_clip(clip: Clip) -> InputContainer:
    """Open a clip again. Raises MediaError where that fails: it was whole when it was probed."""
    try:
        return open_video(clip.path)
    except RequestError as error:
        raise MediaError(f"{clip.label}: {error}") from error


def open_local(path: str, formats: str, kind: str) -> InputContainer:
    """Open a local file of one of ``formats``, and nothing that it refers to. kind: what messages call it.

    Raises RequestError: missing, a folder, unreadable, or of another format.
    """
    require_file(path)
    options = {"format_whitelist": formats, "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path}", options=options)
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
