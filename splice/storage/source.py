"""What fetching asks of any place that a file may be in, and the plainest of them: this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from splice.errors import RequestError

CHUNK_BYTES = 1 << 20


class MissingFile(RequestError):
    """There is no such file."""


@dataclass(frozen=True)
class RemoteIdentity:
    """What tells, without fetching a file, whether it is still the one that it was.

    size_bytes: 0 where a web server does not say. version: ``etag:...``, ``modified:...`` where there is no ETag,
    empty where a web server tells neither.
    """

    size_bytes: int
    version: str


@dataclass(frozen=True)
class RemoteFile:
    """One version of a file.

    key: with identity, what tells it from every other file. sha256, md5: of its content, hexadecimal, where known.
    is_resumable: whether a later request can make sure that it is still this version.
    """

    key: str
    identity: RemoteIdentity
    sha256: str | None = None
    md5: str | None = None
    is_resumable: bool = True


@dataclass(frozen=True)
class Stream:
    """A file's bytes from ``start`` to its end."""

    start: int
    chunks: Iterator[bytes]


class Source(Protocol):
    """One file, wherever it is. name: as messages show it, without secrets. suffix: of its name, or empty."""

    @property
    def name(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    def locate(self) -> RemoteFile:
        """The file as it is now; nothing is downloaded. Raises MissingFile, RequestError, TransferError."""

    def read(self, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """The bytes of exactly this version, from ``start`` on, or from 0 where the server can't do that.

        Raises TransferError: the file is another one by now, or the connection breaks off; also while chunks are drawn.
        """


class LocalSource:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)
        self.suffix = suffix_of(path.name)

    def locate(self) -> RemoteFile:
        if not self._path.is_file():
            raise MissingFile(f"{self._path}: no such file; check its path")
        stat = self._path.stat()
        return RemoteFile(str(self._path.resolve()), RemoteIdentity(stat.st_size, f"modified:{stat.st_mtime_ns}"))

    @contextmanager
    def read(self, file: RemoteFile, start: int) -> Iterator[Stream]:
        with self._path.open("rb") as opened:
            opened.seek(start)
            yield Stream(start, iter(lambda: opened.read(CHUNK_BYTES), b""))


def suffix_of(path: str) -> str:
    """``.mp4`` of ``a/b.MP4``; empty where what stands behind the last dot is no suffix of a file's name."""
    suffix = PurePosixPath(path).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""
