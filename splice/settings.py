"""What a machine's administrator sets, for every run there: folders, limits and addresses, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from splice.errors import RequestError

PREFIX = "JOIN_CLIPS_"

Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Settings(BaseSettings):
    """Each is read from ``JOIN_CLIPS_{NAME}``.

    work_dir: where runs whose output goes elsewhere have their files meanwhile.
    cache_dir: where fetched clips are kept, by content. It may be deleted at any time.
    models: where the weights of diffusion models are.
    prompt_model: the vision-language model that ``enhance_prompt`` asks: a repository that was fetched, or a folder.
    compile: whether torch compiles the diffusion models: minutes for the first seam, then each is faster.
    channels_last: whether their VAE's convolutions keep the channels of a pixel together in memory.
    attention: of the diffusion models, by diffusers' name for it ("flash", "sage", ...); empty: torch's own.
    max_download_gb: the largest file that is fetched, in units of 10^9 bytes.
    allow_private_addresses: whether http(s) clips may come from private, loopback and link-local addresses.
    s3_endpoint_url: of an S3 server other than Amazon's; empty: as boto3 is configured.
    connect_timeout_seconds, read_timeout_seconds: how long a server may keep silent, before it answers and after.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    work_dir: Folder = Path("~/.cache/join-clips/work")
    cache_dir: Folder = Path("~/.cache/join-clips/clips")
    models: Folder = Path("~/.cache/join-clips/models")
    prompt_model: str = "HuggingFaceTB/SmolVLM-Instruct@81cd9a775a4d644f2faf4e7becff4559b46b14c7"
    compile: bool = False
    channels_last: bool = False
    attention: str | None = None
    max_download_gb: Annotated[float, Field(gt=0)] = 50
    allow_private_addresses: bool = False
    s3_endpoint_url: str | None = None
    connect_timeout_seconds: Seconds = 10
    read_timeout_seconds: Seconds = 60


def settings() -> Settings:
    """The settings as the environment has them now. Raises RequestError: which variable is wrong, and why."""
    try:
        return Settings()
    except ValidationError as error:
        problems = [f"{PREFIX}{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
        raise RequestError(f"the environment: {'; '.join(problems)}; correct it or leave it out") from error
