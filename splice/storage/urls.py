"""Where files are: paths, file://, s3:// and http(s)://, told apart, and shown without their secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import httpx

from splice.errors import RequestError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")
_NOT_A_PORT = re.compile(r":(?!\d*$)")


@dataclass(frozen=True)
class LocalPlace:
    path: Path


@dataclass(frozen=True)
class S3Place:
    """key: as it is, never percent-encoded; it may hold any character. Empty: the whole bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class WebPlace:
    """url: normalised, without fragment; its query may hold secrets."""

    url: httpx.URL

    def __str__(self) -> str:
        return redacted(str(self.url))


Place = LocalPlace | S3Place | WebPlace


def parse_url(url: str) -> Place:
    """Take a url or a path to pieces. Raises RequestError: malformed, with user info, or of an unknown scheme."""
    scheme, _, rest = url.partition("://")
    if not _SCHEME.match(url):
        if not url:
            raise RequestError("got an empty url; needed: a path, file://, s3://bucket/key or http(s)://")
        return LocalPlace(Path(url))
    scheme = scheme.lower()
    if scheme == "file":
        return _parse_file(url, rest)
    if scheme not in ("s3", "http", "https"):
        raise RequestError(
            f"{redacted(url)}: got {scheme}://; needed: a path, file://, s3://bucket/key or http(s)://; "
            f"fetch it and give its path"
        )
    if _holds_user_info(rest, is_web=scheme != "s3"):
        raise RequestError(
            f"{redacted(url)}: holds a user's name or password, or a port that is no number; leave it out "
            f"(urls are logged; S3 credentials come from the environment or a credentials block)"
        )
    return _parse_s3(url, rest) if scheme == "s3" else _parse_web(url)


def check_url(url: str) -> None:
    """Raises RequestError where nothing could ever be fetched from, or stored under, a url or path."""
    parse_url(url)


def is_remote(url: str) -> bool:
    """Whether it names something in S3 or on the web. Raises RequestError as ``check_url`` does."""
    return not isinstance(parse_url(url), LocalPlace)


def redacted(url: str) -> str:
    """The url without what may be secret: user info, query and fragment. Never raises; a path is left as it is.

    In s3:// urls ``?`` and ``#`` are part of the key.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.match(url) or scheme.lower() == "file":
        return url
    if scheme.lower() != "s3":
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    # A secret that holds a slash ends the authority too early.
    return (
        f"{scheme}://..."
        if _NOT_A_PORT.search(_without_brackets(authority))
        else f"{scheme}://{authority}{slash}{path}"
    )


def _holds_user_info(rest: str, is_web: bool) -> bool:
    authority = (re.split(r"[?#]", rest, maxsplit=1)[0] if is_web else rest).partition("/")[0]
    return "@" in authority or bool(_NOT_A_PORT.search(_without_brackets(authority)))


def _without_brackets(authority: str) -> str:
    """Without the colons of an IPv6 address."""
    return re.sub(r"^\[[0-9A-Fa-f:.]*\]", "", authority)


def _parse_file(url: str, rest: str) -> LocalPlace:
    path = rest.removeprefix("localhost")
    if not path.startswith("/"):
        raise RequestError(f"{url}: names another machine; needed: file:/// and an absolute path of this one")
    return LocalPlace(Path(unquote(path)))


def _parse_s3(url: str, rest: str) -> S3Place:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise RequestError(f"{redacted(url)}: {bucket!r} is no name of a bucket; needed: s3://bucket/key")
    return S3Place(bucket, key)


def _parse_web(url: str) -> WebPlace:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise RequestError(f"{redacted(url)}: not a url ({error}); check how it is written") from error
    if not parsed.host:
        raise RequestError(f"{redacted(url)}: names no host; needed: http(s)://host/path")
    return WebPlace(parsed.copy_with(fragment=None))
