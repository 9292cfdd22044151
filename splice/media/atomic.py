"""Files that are complete or absent."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from splice.errors import MediaError

PARTIAL_PREFIX = ".partial-"
"""How the names of files in the making begin; one that a killed process left behind may be deleted."""


@contextmanager
def atomic_output(path: Path, is_durable: bool = False) -> Iterator[Path]:
    """A new name beside ``path`` to write to: renamed to ``path`` when the block ends well, else deleted.

    is_durable: it is on the disk before it gets its name, so that it is complete or absent even if the power fails.
    Of what is only worked with, a digest on record tells as much, and waiting for the disk would take longer than
    the work.
    Raises MediaError where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL_PREFIX}{uuid4().hex}{path.suffix}")
    try:
        yield partial
        if is_durable:
            _flush_to_disk(partial)
        partial.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MediaError(
                f"no space left for {path}; free some and run the same command with the same run_id: it goes on here"
            ) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
