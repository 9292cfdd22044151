"""Where files come from and go to: paths, file://, s3:// and http(s)://. Alone in importing boto3 and httpx."""

from splice.storage.access import S3Access
from splice.storage.cache import cached_sha256
from splice.storage.folders import Entry
from splice.storage.source import RemoteIdentity
from splice.storage.transfer import ObjectStat, download, fetch, list_folder, locate, remove, stat, upload
from splice.storage.urls import check_url, is_remote, redacted

__all__ = [
    "Entry",
    "ObjectStat",
    "RemoteIdentity",
    "S3Access",
    "cached_sha256",
    "check_url",
    "download",
    "fetch",
    "is_remote",
    "list_folder",
    "locate",
    "redacted",
    "remove",
    "stat",
    "upload",
]
