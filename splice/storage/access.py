"""Who asks S3, and where it is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class S3Access:
    """Where S3 is and who asks; what is None comes from the settings and the usual environment of boto3."""

    endpoint_url: str | None = None
    region: str | None = None
    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
