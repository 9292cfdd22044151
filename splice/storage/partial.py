"""Files in the making: held by one process at a time, resumed where they break off, checked before they get a name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from splice.errors import MediaError, RequestError, TransferError
from splice.settings import PREFIX, settings
from splice.storage.source import CHUNK_BYTES, RemoteFile, Source

GB = 10**9


def require_allowed_size(name: str, size_bytes: int) -> None:
    """Raises RequestError: the file is larger than this machine's administrator lets files be."""
    limit_gb = settings().max_download_gb
    if size_bytes > limit_gb * GB:
        raise RequestError(
            f"{name}: has {size_bytes / GB:.3g} GB or more, allowed are {limit_gb:g} GB; "
            f"take a smaller file, or raise {PREFIX}MAX_DOWNLOAD_GB"
        )


class Partial:
    """A half-written file, opened and held by this process."""

    def __init__(self, path: Path, opened: FileIO) -> None:
        self.path = path
        self._opened = opened

    def fill(self, source: Source, file: RemoteFile) -> str:
        """Bring it to its end, from where it breaks off. Returns the SHA-256 of the whole, hexadecimal.

        Raises TransferError: the connection broke off (what has arrived stays for the next attempt), or what arrived
        is not what was announced; RequestError: larger than allowed.
        """
        size = file.identity.size_bytes
        start = self._opened.seek(0, os.SEEK_END)
        if not file.is_resumable or (size and start > size):
            start = self._opened.truncate(0)
        digests = self._digests(file)
        if not size or start < size:
            most = size or settings().max_download_gb * GB
            with source.read(file, start) as stream:
                if stream.start != start:
                    self._opened.truncate(stream.start)
                    digests = self._digests(file)
                for chunk in stream.chunks:
                    self._append(chunk)
                    digests.add(chunk)
                    if digests.count > most:
                        self._refuse_excess(source.name, digests.count, size)
        self._require_whole(source.name, digests, file)
        os.fsync(self._opened.fileno())
        return digests.sha256.hexdigest()

    def write(self, text: str) -> None:
        """Replace all of it."""
        self._opened.truncate(0)
        self._append(text.encode())

    def publish(self, target: Path) -> None:
        """Give it its name. Raises TransferError where somebody deleted it meanwhile."""
        if not self.is_in_place():
            raise TransferError(f"{self.path}: was deleted while it was written; do it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)

    def is_in_place(self) -> bool:
        """Whether the file that is held is the one that has the name."""
        try:
            return os.path.samestat(os.fstat(self._opened.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def discard(self) -> None:
        self._opened.truncate(0)

    def close(self) -> None:
        """Let others have it. What is empty is deleted."""
        if os.fstat(self._opened.fileno()).st_size == 0 and self.is_in_place():
            self.path.unlink(missing_ok=True)
        self._opened.close()

    def _digests(self, file: RemoteFile) -> _Digests:
        """Of what is there already."""
        digests = _Digests(has_md5=file.md5 is not None)
        self._opened.seek(0)
        while chunk := self._opened.read(CHUNK_BYTES):
            digests.add(chunk)
        return digests

    def _append(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._opened.write(rest) :]

    def _refuse_excess(self, name: str, count: int, announced: int) -> None:
        self.discard()
        require_allowed_size(name, count)
        raise TransferError(f"{name}: more than the {announced} bytes arrived that were announced; try again")

    def _require_whole(self, name: str, digests: _Digests, file: RemoteFile) -> None:
        size = file.identity.size_bytes
        if size and digests.count != size:
            raise TransferError(
                f"{name}: the transfer broke off after {digests.count} of {size} bytes; the next attempt goes on there"
            )
        for kind, digest, needed in (("SHA-256", digests.sha256, file.sha256), ("MD5", digests.md5, file.md5)):
            if needed and digest and (got := digest.hexdigest()) != needed:
                self.discard()
                raise TransferError(
                    f"{name}: arrived damaged: its {kind} is {got}, the server's is {needed}; "
                    f"try again, and if it stays so store the file anew"
                )


class _Digests:
    """Count and digests of bytes in order."""

    def __init__(self, has_md5: bool) -> None:
        self.count = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False) if has_md5 else None

    def add(self, chunk: bytes) -> None:
        self.count += len(chunk)
        self.sha256.update(chunk)
        if self.md5:
            self.md5.update(chunk)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What goes wrong on this machine while ``path`` is worked on, as this project's errors."""
    try:
        yield
    except OSError as error:
        if _is_full(error):
            raise MediaError(
                f"no space left for {path}; free some and run the same command with the same run_id: it goes on here"
            ) from error
        if error.errno == errno.ENOENT:
            raise TransferError(f"{error.filename}: was deleted while it was worked on; do it again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise RequestError(
                f"{path.parent}: can't be written to ({error.strerror}); get the right to, or choose another folder "
                f"({PREFIX}CACHE_DIR is where fetched clips go)"
            ) from error
        raise


@contextmanager
def hold_partial(path: Path) -> Iterator[Partial]:
    """The half-written file at ``path``, for this process alone; whoever comes second waits for the first.

    The lock is one on the file itself, which the kernel frees when its holder dies.
    Raises MediaError where the disk is full, and frees what the file took; RequestError: no right to write there.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _take(path)
        try:
            yield partial
        except OSError as error:
            if _is_full(error):
                partial.discard()
            raise
        finally:
            partial.close()


def delete_idle(partials: Iterator[Path]) -> None:
    """Delete half-written files that no process holds."""
    for path in partials:
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _take(path: Path) -> Partial:
    while True:
        partial = Partial(path, opened := FileIO(path, "a+"))
        fcntl.flock(opened, fcntl.LOCK_EX)
        # Whoever held it may have finished it: then it has another name now.
        if partial.is_in_place():
            return partial
        opened.close()


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
