"""What is in a folder: of this machine, or under a prefix in S3."""

from __future__ import annotations

import os
from dataclasses import dataclass
from errno import ELOOP, ENOENT
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
        return [entry for path in paths if (entry := _entry(path))]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RequestError(f"{folder}: no such folder, or its name is no UTF-8; check its path") from error
    except OSError as error:
        raise RequestError(f"{folder}: can't be read ({error.strerror}); get the right to read it") from error


def _entry(path: Path) -> Entry | None:
    """None where it has gone meanwhile, or is a link that leads nowhere, or to itself."""
    try:
        stat = path.stat()
    except OSError as error:
        if error.errno in (ENOENT, ELOOP):
            return None
        raise
    is_folder = S_ISDIR(stat.st_mode)
    # A name that is no UTF-8 fits into no record: as it is shown it is not found, and whoever looks for it says so.
    name, url = (os.fsencode(part).decode(errors="replace") for part in (path.name, path))
    return Entry(name, url, 0 if is_folder else stat.st_size, stat.st_mtime, is_folder)
