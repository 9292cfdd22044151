"""Who a run is where files are kept: a credentials block of prefect-aws, or the usual environment."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import cast

from prefect.settings import PREFECT_API_URL
from splice.request import JoinRequest
from splice.settings import settings
from splice.storage import S3Access

BLOCK = "join-clips"
"""Name of the AwsCredentials block; where there is none, boto3 looks in its usual places."""

BLOCK_SECONDS = 60
"""How long the block is believed before it is read again: a warm process lives for days, keys are changed."""


def access_for(request: JoinRequest) -> S3Access | None:
    """What ``s3_access`` says, if the request names S3 at all."""
    return access_to(*(source.url for _, source in request.sources()), request.output_base_dir)


def access_to(*urls: str) -> S3Access | None:
    """What ``s3_access`` says, if any of the places is in S3."""
    return s3_access() if any(url.lower().startswith("s3://") for url in urls) else None


def s3_access() -> S3Access | None:
    """The block's credentials; None where there is no such block, or no server that could have one."""
    return _s3_access(int(time.monotonic() / BLOCK_SECONDS))


@lru_cache(maxsize=1)
def _s3_access(period: int) -> S3Access | None:
    if not PREFECT_API_URL.value():
        return None
    # Only then: it takes a second to import.
    from prefect_aws import AwsCredentials

    try:
        block = cast(AwsCredentials, AwsCredentials.load(BLOCK))
    except ValueError:
        return None
    secret = block.aws_secret_access_key
    return S3Access(
        endpoint_url=block.aws_client_parameters.endpoint_url or settings().s3_endpoint_url,
        region=block.region_name,
        key_id=block.aws_access_key_id,
        secret=secret.get_secret_value() if secret else None,
        session_token=block.aws_session_token,
    )
