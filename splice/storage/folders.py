"""What is in a folder: of this machine, or under a prefix in S3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from splice.errors import RequestError


@dataclass(frozen=True)
class Entry:
    """A file or folder. url: an absolute path, or s3://; of a folder in S3 with a slash at its end.

    modified_seconds: since 1970. Folders in S3 are only parts of names: theirs is 0, and so is every folder's size.
    """

    name: str
    url: str
    size_bytes: int
    modified_seconds: float
    is_folder: bool


def list_local_folder(folder: Path) -> list[Entry]:
    """The entries directly in a folder, by name. Raises RequestError: no such folder, or it can't be read."""
    try:
        paths = sorted(folder.resolve().iterdir())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RequestError(f"{folder}: no such folder; check its path") from error
    except PermissionError as error:
        raise RequestError(f"{folder}: can't be read ({error.strerror}); get the right to read it") from error
    return [entry for path in paths if (entry := _entry(path))]


def _entry(path: Path) -> Entry | None:
    """None where it has gone meanwhile, or is a link that leads nowhere."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    is_folder = S_ISDIR(stat.st_mode)
    return Entry(path.name, str(path), 0 if is_folder else stat.st_size, stat.st_mtime, is_folder)
