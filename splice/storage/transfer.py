"""Fetch and store files, wherever they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from splice.errors import RequestError
from splice.settings import settings
from splice.storage.access import S3Access
from splice.storage.cache import fetch_to_cache
from splice.storage.folders import Entry, list_local_folder
from splice.storage.http import WebSource
from splice.storage.partial import hold_partial, require_allowed_size
from splice.storage.source import LocalSource, MissingFile, RemoteIdentity, Source
from splice.storage.urls import LocalPlace, S3Place, WebPlace, parse_url

if TYPE_CHECKING:
    from splice.storage.s3 import S3Source


@dataclass(frozen=True)
class ObjectStat:
    """A file that is there. sha256: hexadecimal, as ``upload`` noted it down; None where it did not."""

    size_bytes: int
    sha256: str | None


def locate(url: str, access: S3Access | None = None) -> RemoteIdentity:
    """Size and version of a file as it is now; nothing is downloaded.

    access: who asks S3, and where it is; None: as the settings and the usual environment of boto3 say.
    Raises RequestError: malformed, missing, no permission, wrong credentials, larger than allowed, or not to be had
    safely; TransferError: no connection, or the server can't answer now.
    """
    source = _source(url, access)
    identity = source.locate().identity
    require_allowed_size(source.name, identity.size_bytes)
    return identity


def fetch(url: str, access: S3Access | None = None) -> Path:
    """The file's content on this machine: in the cache, downloaded only if it is not there in its present version.

    The path is ``{cache_dir}/{sha256[:2]}/{sha256}{suffix}``; of a file on this machine its own. A download goes on
    where the last attempt broke off, if the file is the same still, and is checked: by size, and by digest where the
    server knows one.
    Raises as ``locate``, and TransferError: broken off, damaged, changed meanwhile; MediaError: the disk is full.
    """
    place = parse_url(url)
    if isinstance(place, LocalPlace):
        LocalSource(place.path).locate()
        return place.path
    return fetch_to_cache(_source(url, access), settings().cache_dir)


def download(url: str, path: Path, access: S3Access | None = None) -> None:
    """Bring a file to ``path``, complete or not at all; resumed and checked as by ``fetch``. Raises as that does."""
    source = _source(url, access)
    file = source.locate()
    require_allowed_size(source.name, file.identity.size_bytes)
    version = hashlib.sha256(f"{path.name} {file.key} {file.identity}".encode()).hexdigest()[:16]
    # The prefix is that of all half-written files: where a run is taken up again they are deleted.
    with hold_partial(path.with_name(f".partial-{version}{path.suffix}")) as partial:
        partial.fill(source, file)
        partial.publish(path)


def upload(path: Path, url: str, access: S3Access | None = None) -> None:
    """Store a file under a url, complete or not at all: in S3 in parts if it is large, with content type and SHA-256.

    Raises RequestError: missing bucket, no permission, wrong credentials, a web server; TransferError: no connection,
    the server can't do it now, or stored something else; MediaError: a local disk is full.
    """
    place = parse_url(url)
    if isinstance(place, WebPlace):
        raise RequestError(f"{place}: nothing can be stored on a web server; needed: a path, file:// or s3://")
    if isinstance(place, S3Place):
        _s3_source(place, access).upload(path)
    else:
        download(str(path), place.path)


def stat(url: str, access: S3Access | None = None) -> ObjectStat | None:
    """Size and digest of a file; None where there is none. Raises RequestError and TransferError as ``locate``."""
    try:
        file = _source(url, access).locate()
    except MissingFile:
        return None
    return ObjectStat(file.identity.size_bytes, file.sha256)


def remove(url: str, access: S3Access | None = None) -> None:
    """Delete a file, if it is there. Raises RequestError: no permission, a web server; TransferError as ``locate``."""
    place = parse_url(url)
    if isinstance(place, WebPlace):
        raise RequestError(f"{place}: nothing can be deleted on a web server; needed: a path, file:// or s3://")
    if isinstance(place, S3Place):
        _s3_source(place, access).remove()
    else:
        place.path.unlink(missing_ok=True)


def list_folder(url: str, access: S3Access | None = None) -> list[Entry]:
    """Files and folders directly in a folder, or under a prefix in S3, by name.

    Raises RequestError: no such folder or bucket, no permission, a web server; TransferError as ``locate``.
    """
    place = parse_url(url)
    if isinstance(place, WebPlace):
        raise RequestError(f"{place}: a web server's folders can't be listed; needed: a path, file:// or s3://")
    if isinstance(place, S3Place):
        from splice.storage.s3 import list_s3_folder

        return list_s3_folder(place, access, settings())
    return list_local_folder(place.path)


def _source(url: str, access: S3Access | None) -> Source:
    place = parse_url(url)
    if isinstance(place, S3Place):
        return _s3_source(place, access)
    return WebSource(place, settings()) if isinstance(place, WebPlace) else LocalSource(place.path)


def _s3_source(place: S3Place, access: S3Access | None) -> S3Source:
    # Only where it is needed: boto3 takes a third of a second to import.
    from splice.storage.s3 import S3Source

    return S3Source(place, access, settings())
