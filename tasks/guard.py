"""At most one process works on a run: a lock on a file, which the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from splice.errors import RequestError
from splice.layout import RunFolder
from splice.media import PARTIAL_PREFIX


@contextmanager
def hold_run(folder: RunFolder) -> Iterator[bool]:
    """True while this process holds the run; False at once where another one does.

    Whoever holds the run deletes the half-written files of a holder that was killed.
    Raises RequestError where the folder can't be written to.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        opened = folder.lock.open("w")
    except OSError as error:
        raise RequestError(
            f"{folder.path}: can't be written to ({error.strerror}); choose another output_base_dir"
        ) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        for partial in folder.path.rglob(f"{PARTIAL_PREFIX}*"):
            partial.unlink(missing_ok=True)
        yield True
