"""Fetched files, kept by content: ``{cache_dir}/{sha256[:2]}/{sha256}{suffix}``.

    index/{url}.json                  what was fetched from a url last: its version, and the content's SHA-256
    partial/{url}-{version}.partial   a download under way, or one that broke off

where ``{url}`` and ``{version}`` are digests. Nothing is ever removed to make room: delete the folder, or files in it,
whenever no run is at work; what is needed is then fetched again. A run whose clip vanishes fails, and goes on when it
is submitted again.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from splice.storage.partial import delete_idle, disk_errors, hold_partial, require_allowed_size
from splice.storage.source import RemoteFile, Source


class _Entry(BaseModel):
    """url: for people who look into the folder; without secrets."""

    model_config = ConfigDict(frozen=True)

    url: str
    version: str
    size_bytes: int
    sha256: str
    suffix: str


def fetch_to_cache(source: Source, cache_dir: Path) -> Path:
    """The file's content on this machine, downloaded only if it is not there in this version.

    Of two that fetch the same file at once, the second waits and finds it there.
    Raises RequestError, TransferError and MediaError as ``fetch`` does.
    """
    file = source.locate()
    require_allowed_size(source.name, file.identity.size_bytes)
    with disk_errors(_index_of(cache_dir, file)):
        return _find(cache_dir, file) or _download(source, file, cache_dir)


def cached_sha256(path: Path) -> str | None:
    """The SHA-256 of a file that ``fetch`` returned from the cache, read off its name; None of any other file."""
    return path.stem if re.fullmatch(r"[0-9a-f]{64}", path.stem) and path.parent.name == path.stem[:2] else None


def _download(source: Source, file: RemoteFile, cache_dir: Path) -> Path:
    with hold_partial(_partial_of(cache_dir, file)) as partial:
        if found := _find(cache_dir, file):
            return found
        delete_idle(path for path in partial.path.parent.glob(f"{_digest(file.key)}-*") if path != partial.path)
        entry = _Entry(
            url=source.name,
            version=file.identity.version,
            sha256=partial.fill(source, file),
            size_bytes=partial.path.stat().st_size,
            suffix=source.suffix,
        )
        target = _path_of(cache_dir, entry)
        # In this order: once published nobody waits for this partial any more, so the index must already know.
        if entry.version:
            _remember(cache_dir, file, entry)
        partial.publish(target)
    return target


def _find(cache_dir: Path, file: RemoteFile) -> Path | None:
    """What the index says, if the file that it names is there, in full."""
    try:
        entry = _Entry.model_validate_json(_index_of(cache_dir, file).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    path = _path_of(cache_dir, entry)
    is_same = entry.version == file.identity.version and file.identity.size_bytes in (0, entry.size_bytes)
    return path if is_same and path.is_file() and path.stat().st_size == entry.size_bytes else None


def _remember(cache_dir: Path, file: RemoteFile, entry: _Entry) -> None:
    index = _index_of(cache_dir, file)
    with hold_partial(index.with_suffix(".partial")) as partial:
        partial.write(entry.model_dump_json(indent=2))
        partial.publish(index)


def _path_of(cache_dir: Path, entry: _Entry) -> Path:
    return cache_dir / entry.sha256[:2] / f"{entry.sha256}{entry.suffix}"


def _index_of(cache_dir: Path, file: RemoteFile) -> Path:
    return cache_dir / "index" / f"{_digest(file.key)}.json"


def _partial_of(cache_dir: Path, file: RemoteFile) -> Path:
    """One per version; one per attempt where the server tells no version, since none can go on where another ended."""
    version = f"{file.identity.size_bytes} {file.identity.version}" if file.is_resumable else uuid4().hex
    return cache_dir / "partial" / f"{_digest(file.key)}-{_digest(version)[:16]}.partial"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
