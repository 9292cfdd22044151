"""Whether a file of this machine is there, and still the one that it was."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from splice.errors import MediaError, RequestError
from splice.types import ClipIdentity


def require_file(path: str) -> None:
    """Raises RequestError where ``path`` is no file that can be asked for: missing, a folder, out of reach."""
    try:
        is_there, is_file = Path(path).exists(), Path(path).is_file()
    except OSError as error:
        raise RequestError(f"{path}: can't be read ({error.strerror}); check its path and the rights to it") from error
    if not is_there:
        raise RequestError(f"{path}: no such file")
    if not is_file:
        raise RequestError(f"{path}: is not a file; give the path of a file")


def identify_clip(path: str) -> ClipIdentity:
    """Size, modification time and SHA-256 of a file. Raises RequestError where it is missing or can't be read."""
    require_file(path)
    stat = Path(path).stat()
    try:
        return ClipIdentity(stat.st_size, stat.st_mtime_ns, _sha256(path, stat.st_size, stat.st_mtime_ns))
    except PermissionError as error:
        raise RequestError(f"{path}: can't be read ({error.strerror}); give yourself the right to read it") from error


def require_unchanged(path: str, identity: ClipIdentity) -> None:
    """Raises MediaError where a file is no longer what it was when it was identified.

    One that was only touched is the same; of one that is gone whoever opens it says so. A fetched one is kept by its
    content, and not looked at.
    """
    try:
        stat = Path(path).stat()
    except OSError:
        return
    if not identity.mtime_ns or (stat.st_size, stat.st_mtime_ns) == (identity.size_bytes, identity.mtime_ns):
        return
    if identify_clip(path).sha256 != identity.sha256:
        raise MediaError(
            f"{path}: has changed since this run began, and is another video now; put the old one back, and the same "
            f"run_id goes on, or choose another run_id for the new one"
        )


@lru_cache(maxsize=1024)
def _sha256(path: str, size_bytes: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
