"""Music that is laid under the whole timeline: any sound file, from its first sample on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import soundfile

from splice.errors import MediaError, RequestError
from splice.media.container import CONTAINERS, open_local
from splice.media.identity import require_file
from splice.media.sound import Decoded, conform_sound, decode_sound, only_numbers, sound_stream
from splice.sound import Samples
from splice.types import SoundFormat

SOUND_CONTAINERS = f"{CONTAINERS},wav,w64,aiff,caf,flac,ogg,mp3,aac,ac3,eac3,asf,wv,ape,amr"
"""FFmpeg's names of the formats that are opened. Playlists, which lead to other files, are not among them."""

UNNAMED_LAYOUTS = {1: "mono", 2: "stereo"}
"""By channels: what libsndfile's files can only mean; of more channels it does not tell which is which."""


def probe_soundtrack(path: str) -> None:
    """Raises RequestError: missing, a folder, unreadable, without sound, of zero length, or of unknown channels."""
    try:
        with closing(conform_sound(_decoded(path), SoundFormat(48_000, "stereo"), path)) as blocks:
            first = next(blocks, None)
    except MediaError as error:
        raise RequestError(str(error)) from error
    if first is None:
        raise RequestError(f"{path}: its sound has a length of zero; give a file with sound")


def read_soundtrack(path: str, sound_format: SoundFormat) -> Iterator[Samples]:
    """All of a sound file in the format's rate and layout, in blocks of about a second at most; memory is constant.

    Raises MediaError where the sound can't be decoded, or is no longer what ``probe_soundtrack`` let through.
    """
    try:
        yield from conform_sound(_decoded(path), sound_format, path)
    except RequestError as error:
        raise MediaError(str(error)) from error


def _decoded(path: str) -> Iterator[Decoded]:
    """What the file holds. Raises RequestError: missing, a folder, unreadable or without sound; else MediaError."""
    require_file(path)
    if (file := _open_by_soundfile(path)) is not None:
        with file:
            yield from _blocks(file, path)
        return
    with open_local(path, SOUND_CONTAINERS, "sound") as container:
        stream = sound_stream(container)
        if stream is None:
            raise RequestError(f"{path}: has no sound in it that can be decoded; give a file with sound")
        yield from decode_sound(container, stream, path)


def _blocks(file: soundfile.SoundFile, path: str) -> Iterator[Decoded]:
    layout = UNNAMED_LAYOUTS[file.channels]
    try:
        for block in file.blocks(blocksize=file.samplerate, dtype="float32", always_2d=True):
            yield Decoded(only_numbers(block.T), file.samplerate, layout, None)
    except soundfile.SoundFileError as error:
        raise MediaError(f"{path}: its sound can't be decoded ({error}); export it again") from error


def _open_by_soundfile(path: str) -> soundfile.SoundFile | None:
    """None where FFmpeg must do it: another format, or more than two channels."""
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError):
        # TypeError: it believes a name that ends in .raw, whatever is inside.
        return None
    if file.channels in UNNAMED_LAYOUTS:
        return file
    file.close()
    return None
