"""Files in S3, or on any server that speaks its protocol, through boto3."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from urllib3.exceptions import HTTPError

from splice.errors import RequestError, SpliceError, TransferError
from splice.settings import PREFIX, Settings
from splice.storage.access import S3Access
from splice.storage.folders import Entry
from splice.storage.source import CHUNK_BYTES, MissingFile, RemoteFile, RemoteIdentity, Stream, suffix_of
from splice.storage.urls import S3Place

CONTENT_TYPES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".json": "application/json",
    ".otio": "application/json",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".png": "image/png",
}
"""Of what is uploaded, by suffix; a browser that is shown the file goes by it."""

UPLOAD = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=16 << 20, max_concurrency=4)
CLIENT_SECONDS = 60
"""How long credentials from the environment are used before they are read again: others may have taken their place."""

_CREDENTIAL_ERRORS = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, SSOError, TokenRetrievalError)
_NETWORK_ERRORS = (
    *(ConnectionError, HTTPClientError, IncompleteReadError),
    *(CredentialRetrievalError, MetadataRetrievalError),
    HTTPError,
)
_WRONG_CREDENTIALS = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidSecurity"),
    "RequestTimeTooSkewed",
)
_TRANSIENT = (
    *("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted"),
    *("NoSuchUpload", "BadDigest", "IncompleteBody"),
)
"""Besides every answer from 500 on."""


class S3Source:
    """One object, or one that may come to be, under a place."""

    def __init__(self, place: S3Place, access: S3Access | None, settings: Settings) -> None:
        self._client = s3_client(access, settings)
        self._place = place
        self._object = {"Bucket": place.bucket, "Key": place.key}
        self.name = str(place)
        self.suffix = suffix_of(place.key)
        if not place.key or place.key.endswith("/"):
            raise RequestError(f"{place}: names a bucket or folder; needed: s3://bucket/key of a file")

    def locate(self) -> RemoteFile:
        head = self._head()
        tag = str(head["ETag"])
        return RemoteFile(
            key=f"{self._client.meta.endpoint_url} {self.name}",
            identity=RemoteIdentity(int(head["ContentLength"]), f"etag:{tag}"),
            sha256=_sha256_of(head),
            md5=_md5_of(head, self._place.bucket),
        )

    @contextmanager
    def read(self, file: RemoteFile, start: int) -> Iterator[Stream]:
        version = {"IfMatch": file.identity.version.removeprefix("etag:")}
        part = {"Range": f"bytes={start}-"} if start else {}
        with s3_errors(self._client, self._place):
            answer = self._client.get_object(**self._object, **version, **part)
            with closing(answer["Body"]) as body:
                yield Stream(start, body.iter_chunks(CHUNK_BYTES))

    def upload(self, path: Path) -> None:
        """Store a file under this name, complete or not at all, with its type and its SHA-256.

        What a killed upload leaves is no object, but parts of one; a bucket's life-cycle rule
        (AbortIncompleteMultipartUpload) removes those.
        """
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        content_type = CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
        extra = {"ContentType": content_type, "Metadata": {"sha256": sha256}}
        with s3_errors(self._client, self._place):
            self._client.upload_file(str(path), **self._object, ExtraArgs=extra, Config=UPLOAD)
        stored = int(self._head()["ContentLength"])
        if stored != path.stat().st_size:
            raise TransferError(f"{self.name}: {stored} bytes were stored of {path.stat().st_size}; store it again")

    def remove(self) -> None:
        """Delete the object, if it is there."""
        with s3_errors(self._client, self._place):
            self._client.delete_object(**self._object)

    def _head(self) -> dict[str, Any]:
        with s3_errors(self._client, self._place):
            try:
                head: dict[str, Any] = self._client.head_object(**self._object)
                return head
            except ClientError:
                # The answer to a HEAD has no room for a reason; that to a GET has.
                self._client.get_object(**self._object, Range="bytes=0-0")["Body"].close()
                raise


def list_s3_folder(place: S3Place, access: S3Access | None, settings: Settings) -> list[Entry]:
    """What lies directly under a prefix, by name; nothing where no key has it. Raises RequestError, TransferError."""
    client = s3_client(access, settings)
    prefix = f"{place.key.rstrip('/')}/" if place.key else ""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=prefix, Delimiter="/")
    entries = []
    with s3_errors(client, place):
        for page in pages:
            for folder in page.get("CommonPrefixes", []):
                url = str(S3Place(place.bucket, folder["Prefix"]))
                entries.append(Entry(folder["Prefix"].removeprefix(prefix).rstrip("/"), url, 0, 0, True))
            for file in page.get("Contents", []):
                if name := file["Key"].removeprefix(prefix):
                    url = str(S3Place(place.bucket, file["Key"]))
                    entries.append(Entry(name, url, file["Size"], file["LastModified"].timestamp(), False))
    return sorted(entries, key=lambda entry: entry.name)


def s3_client(access: S3Access | None, settings: Settings) -> Any:
    """A client that threads may share. Raises RequestError: no credentials, or settings that make no sense."""
    # Read anew where the environment changed, and every now and then: files may have changed that it points to.
    environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client(access or S3Access(), settings, environment, int(time.monotonic() / CLIENT_SECONDS))


@lru_cache(maxsize=8)
def _client(access: S3Access, settings: Settings, environment: tuple[tuple[str, str], ...], minute: int) -> Any:
    endpoint_url = access.endpoint_url or settings.s3_endpoint_url
    config = Config(
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        # Many servers don't know the newer checksums; a SHA-256 goes with every file that is uploaded here.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.session.Session(access.key_id, access.secret, access.session_token, access.region)
        if session.get_credentials() is None:
            raise NoCredentialsError
        return session.client("s3", endpoint_url=endpoint_url, config=config)
    except BotoCoreError as error:
        raise _explain(error, "s3://", endpoint_url or "Amazon S3") from error
    except ValueError as error:
        raise RequestError(f"S3: {error}; correct {PREFIX}S3_ENDPOINT_URL, or the endpoint of the block") from error


@contextmanager
def s3_errors(client: Any, place: S3Place) -> Iterator[None]:
    """What boto3 raises, as this project's errors."""
    try:
        yield
    except S3UploadFailedError as error:
        # boto3 turns what went wrong into words, and leaves the answer itself behind.
        cause = error.__context__
        raise _explain(cause or error, place, client.meta.endpoint_url) from error
    except (ClientError, BotoCoreError, HTTPError) as error:
        raise _explain(error, place, client.meta.endpoint_url) from error


def _explain(error: BaseException, place: S3Place | str, endpoint_url: str) -> SpliceError:
    if isinstance(error, ClientError):
        return _explain_answer(error, place, endpoint_url)
    if isinstance(error, _CREDENTIAL_ERRORS):
        return RequestError(
            f"{place}: no credentials for S3 ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            f"configure a profile, or fill in the credentials block"
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return RequestError(f"{place}: {error}; name your own authority's file in AWS_CA_BUNDLE")
    if isinstance(error, _NETWORK_ERRORS):
        return TransferError(
            f"{place}: no connection to {endpoint_url}, or it broke off ({error}); see that the server is up and "
            f"the address right ({PREFIX}S3_ENDPOINT_URL), and try again"
        )
    return RequestError(f"{place}: {error}")


def _explain_answer(error: ClientError, place: S3Place | str, endpoint_url: str) -> SpliceError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{code}: {error.response.get('Error', {}).get('Message', '')}"
    if code == "NoSuchBucket":
        return RequestError(f"{place}: there is no such bucket at {endpoint_url}; create it, or correct its name")
    if code in ("NoSuchKey", "NotFound", "404"):
        return MissingFile(f"{place}: there is no such object at {endpoint_url}; check its key")
    if code in _WRONG_CREDENTIALS:
        return RequestError(f"{place}: {endpoint_url} does not accept the credentials ({said}); correct them")
    if status == 412:
        return TransferError(f"{place}: changed while it was fetched; the next attempt fetches it anew")
    if status >= 500 or status in (408, 429) or code in _TRANSIENT:
        return TransferError(f"{place}: {endpoint_url} can't do it now ({said}); try again later")
    if status in (401, 403):
        return RequestError(
            f"{place}: {endpoint_url} refuses it ({said}); needed are the rights to get, put, list and delete there, "
            f"or other credentials"
        )
    return RequestError(f"{place}: {endpoint_url} answers {status} ({said})")


def _sha256_of(head: dict[str, Any]) -> str | None:
    """What ``upload`` noted down."""
    noted = head.get("Metadata", {}).get("sha256", "")
    return noted if re.fullmatch(r"[0-9a-f]{64}", noted) else None


def _md5_of(head: dict[str, Any], bucket: str) -> str | None:
    """An ETag is the MD5 unless the object came in parts, under a key of its own, or is in a directory bucket."""
    has_own_key = "SSECustomerAlgorithm" in head or head.get("ServerSideEncryption", "").startswith("aws:kms")
    match = re.fullmatch(r'"?([0-9a-f]{32})"?', str(head["ETag"]))
    return match[1] if match and not has_own_key and not bucket.endswith("--x-s3") else None
