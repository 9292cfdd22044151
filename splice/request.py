"""What a user asks for: parameters, their defaults and everything that can be checked without opening a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import PurePath
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from splice.errors import RequestError
from splice.models.protocol import ModelSettings
from splice.settings import settings as machine_settings
from splice.storage import check_url, redacted
from splice.types import JoinSettings

STANDARD_RATES = tuple(
    Fraction(rate).limit_denominator(1001)
    for rate in ("12", "15", "16", "24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60", "120")
)
"""Frame rates in common use, frames per second."""

RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
FrameSize = Annotated[list[Annotated[int, Field(ge=2, le=16384)]], Field(min_length=2, max_length=2)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
AspectRatio = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4}:[1-9][0-9]{0,4}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClipSource(_Model):
    """One entry of ``clip_list``: where the clip is, and what to call it (default: the file's name)."""

    url: Annotated[str, StringConstraints(min_length=1)]
    name: str = ""

    @property
    def scheme(self) -> str:
        """``file``, ``s3``, ``https``, ...; empty where the url is a plain path."""
        return self.url.partition("://")[0].lower() if "://" in self.url else ""

    @property
    def path(self) -> str:
        """The file on this machine; the url itself where it is elsewhere."""
        if self.scheme != "file":
            return self.url
        return unquote(self.url[len("file://") :].removeprefix("localhost"))

    @property
    def is_remote(self) -> bool:
        return self.scheme not in ("", "file")

    @property
    def label(self) -> str:
        """The name, or the file's; of a url never host or query, which may hold secrets."""
        if self.name or not self.is_remote:
            return self.name or PurePath(self.path).name
        return PurePath(redacted(self.url).partition("://")[2].partition("/")[2]).name


class PerJoinSettings(_Model):
    """Overrides of one join; None: as the request says."""

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: Seed | None = None
    model: str | None = None
    context_frame_count: Annotated[int, Field(ge=1)] | None = None
    gap_frame_count: Annotated[int, Field(ge=1)] | None = None
    blend_frames: Annotated[int, Field(ge=0)] | None = None
    replace_mode: bool | None = None
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: float | None = None
    additional_loras: dict[str, float] | None = None


class JoinRequest(_Model):
    """A whole request. The flow, its API and the command line take exactly these parameters."""

    clip_list: Annotated[list[ClipSource], Field(min_length=2)]
    run_id: RunId
    context_frame_count: Annotated[int, Field(ge=1)] = 8
    gap_frame_count: Annotated[int, Field(ge=1)] = 53
    replace_mode: bool = False
    blend_frames: Annotated[int, Field(ge=0)] = 3
    prompt: str = "smooth transition"
    negative_prompt: str = ""
    model: Annotated[str, StringConstraints(min_length=1)] = "lightning_baseline_2_2_2"
    seed: Seed | None = None
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: float | None = None
    additional_loras: dict[str, float] = {}
    generation_resolution: FrameSize | None = None
    time_stride: Annotated[int, Field(ge=1)] = 1
    vid2vid_strength: Annotated[float, Field(ge=0, le=1)] | None = None
    enhance_prompt: bool = False
    max_seam_score: Annotated[float, Field(ge=0)] | None = None
    quality_retries: Annotated[int, Field(ge=0)] = 0
    gpu_deployment: str | None = None
    max_seams_in_flight: Annotated[int, Field(ge=1)] = 32
    aspect_ratio: AspectRatio | None = None
    resolution: FrameSize | None = None
    fps: Annotated[float, Field(ge=0.001, le=1000)] | None = None
    loop: bool = False
    audio: Literal["bridge", "silence", "drop"] = "bridge"
    soundtrack: Annotated[str, StringConstraints(min_length=1)] | None = None
    soundtrack_gain_db: Annotated[float, Field(ge=-100, le=100)] = 0
    audio_codec: Literal["aac", "flac", "opus"] = "aac"
    strategy: Literal["sequential", "parallel"] = "sequential"
    output_base_dir: Annotated[str, StringConstraints(min_length=1)] = "./outputs/"
    per_join_settings: list[PerJoinSettings] = []

    @property
    def join_count(self) -> int:
        return len(self.clip_list) - (0 if self.loop else 1)

    def sources(self) -> list[tuple[str, ClipSource]]:
        """Every file that is asked for, and how messages call it."""
        clips = [(f"clip {index} ({source.label})", source) for index, source in enumerate(self.clip_list)]
        return clips + ([] if self.soundtrack is None else [("soundtrack", ClipSource(url=self.soundtrack))])

    @property
    def rate(self) -> Fraction | None:
        """``fps`` exactly: the standard rate that it abbreviates (29.97 is 30000/1001), else as written."""
        if self.fps is None:
            return None
        nearest = min(STANDARD_RATES, key=lambda rate: abs(float(rate) - self.fps))  # type: ignore[operator]
        return nearest if abs(float(nearest) - self.fps) < 0.005 else Fraction(self.fps).limit_denominator(1001)

    @property
    def generation_size(self) -> tuple[int, int] | None:
        """``generation_resolution`` as (width, height)."""
        return (
            None
            if self.generation_resolution is None
            else (self.generation_resolution[0], self.generation_resolution[1])
        )

    def settings(self, join: int) -> JoinSettings:
        """What holds at join ``join``, 0 .. join_count - 1: the request's parameters under its override's."""
        override = self.per_join_settings[join] if join < len(self.per_join_settings) else PerJoinSettings()

        def value(name: str) -> Any:
            own = getattr(override, name)
            return getattr(self, name) if own is None else own

        seed = value("seed")
        return JoinSettings(
            model=value("model"),
            context_frame_count=value("context_frame_count"),
            gap_frame_count=value("gap_frame_count"),
            blend_frames=value("blend_frames"),
            replace_mode=value("replace_mode"),
            model_settings=ModelSettings(
                prompt=value("prompt"),
                negative_prompt=value("negative_prompt"),
                seed=derive_seed(self.run_id, join) if seed is None else seed,
                num_inference_steps=value("num_inference_steps"),
                guidance_scale=value("guidance_scale"),
                additional_loras=tuple(sorted(value("additional_loras").items())),
                generation_resolution=self.generation_size,
                time_stride=self.time_stride,
                vid2vid_strength=self.vid2vid_strength,
                prompt_model=machine_settings().prompt_model if self.enhance_prompt else None,
            ),
            max_seam_score=self.max_seam_score,
            quality_retries=self.quality_retries,
        )


def derive_seed(run_id: str, join: int) -> int:
    """The seed of a join whose request names none: 32 bits that depend on run and join alone."""
    return int.from_bytes(hashlib.sha256(f"{run_id}/{join}".encode()).digest()[:4], "big")


def parse_request(parameters: Mapping[str, Any]) -> JoinRequest:
    """Parameters -> a request that is complete and consistent in itself; no file is opened.

    Raises RequestError: a key that is unknown, a value of the wrong type or out of range, settings
    that contradict each other.
    """
    try:
        request = JoinRequest.model_validate(dict(parameters))
    except ValidationError as error:
        raise RequestError("; ".join(_describe(problem) for problem in error.errors())) from error
    if request.run_id in (".", ".."):
        raise RequestError(f"run_id: got {request.run_id!r}, which leads out of its folder; add a letter or digit")
    if len(request.per_join_settings) > request.join_count:
        raise RequestError(
            f"per_join_settings: got {len(request.per_join_settings)} entries, but {len(request.clip_list)} clips "
            f"make {request.join_count} joins; leave out the last {len(request.per_join_settings) - request.join_count}"
        )
    for join in range(request.join_count):
        settings = request.settings(join)
        if settings.blend_frames > settings.context_frame_count:
            raise RequestError(
                f"join {join}: blend_frames is {settings.blend_frames}, but the model sees only "
                f"{settings.context_frame_count} context frames of each side; set blend_frames to at most "
                f"{settings.context_frame_count} or raise context_frame_count"
            )
        if request.vid2vid_strength is not None and not settings.replace_mode:
            raise RequestError(
                f"join {join}: vid2vid_strength is {request.vid2vid_strength}, but no frames are replaced from which "
                f"it could start; set replace_mode, or leave it out"
            )
    if request.quality_retries and request.max_seam_score is None:
        raise RequestError(
            f"quality_retries is {request.quality_retries}, but without max_seam_score no seam is tried again; set both"
        )
    _refuse_places(request)
    return request


_HINTS = {
    "run_id": "1 to 128 of the characters A-Z a-z 0-9 . _ -",
    "aspect_ratio": "W:H, for example 16:9",
    "resolution": "[width, height] in pixels, for example 1280x720 on the command line",
    "clip_list": "at least 2 clips",
    "fps": "a number of frames per second, for example 25 or 29.97",
}


def _describe(problem: Any) -> str:
    """One pydantic problem in this project's words: where, what, got, needed."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        owners: dict[str, type[BaseModel]] = {"per_join_settings": PerJoinSettings, "clip_list": ClipSource}
        owner = owners.get(str(problem["loc"][0]), JoinRequest)
        return f"{where}: unknown key; known are {', '.join(owner.model_fields)}"
    if problem["type"] == "missing":
        return f"{where}: required, but not given"
    hint = _HINTS.get(where)
    needed = f"; needed: {hint}" if hint else ""
    return f"{where}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, got {_shorten(problem['input'])}{needed}"


def _shorten(value: Any) -> str:
    """The value as messages show it: a url without its user info and query, which may hold secrets."""
    text = re.sub(r"(\w+://)(?:[^\s'\"/@]*@)?([^\s'\"?]*)(?:\?[^\s'\"]*)?", r"\1\2", repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse_places(request: JoinRequest) -> None:
    """Refuse urls that files can't be fetched from, or written to."""
    base = ClipSource(url=request.output_base_dir)
    for name, source in [*request.sources(), ("output_base_dir", base)]:
        try:
            check_url(source.url)
        except RequestError as error:
            raise RequestError(f"{name}: {error}") from error
    if base.scheme not in ("", "file", "s3"):
        raise RequestError(
            f"output_base_dir: got {_shorten(request.output_base_dir)}; needed: a folder, file:// or s3://bucket/prefix"
        )
