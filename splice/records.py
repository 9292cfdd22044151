"""What is kept of work that is done: small, frozen, readable as JSON. A record counts only while its files do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from splice.gate import Attempt
from splice.layout import RunFolder
from splice.media import identify_clip
from splice.request import ClipSource, JoinRequest
from splice.storage import RemoteIdentity, S3Access, download, is_remote, redacted, stat, upload
from splice.types import ClipIdentity


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OutputFile(_Record):
    """A finished file. path: on this machine, or a url. sha256: of the whole file. frames: how many it shows."""

    path: str
    size_bytes: int
    sha256: str
    frames: int

    def is_intact(self, access: S3Access | None = None) -> bool:
        """Whether the file is there, and still the one that was written."""
        if is_remote(self.path):
            there = stat(self.path, access)
            return there is not None and (there.size_bytes, there.sha256) == (self.size_bytes, self.sha256)
        file = Path(self.path)
        return file.is_file() and file.stat().st_size == self.size_bytes and _sha256(file) == self.sha256


class StepRecord(_Record):
    """The result of one step. notes: what a model has to say for the report. attempts: at a seam that has a gate."""

    outputs: tuple[OutputFile, ...]
    notes: dict[str, str | float] = {}
    attempts: tuple[Attempt, ...] = ()

    def is_intact_in(self, folder: RunFolder, access: S3Access | None = None) -> bool:
        """Whether every output is there, unchanged, and in the run's folder."""
        return all(folder.holds(output.path) and output.is_intact(access) for output in self.outputs)


class ClipRecord(_Record):
    name: str
    url: str
    identity: ClipIdentity


class RequestRecord(_Record):
    """What a run_id stands for."""

    parameters: dict[str, Any]
    clips: tuple[ClipRecord, ...]
    soundtrack: ClipIdentity | None = None
    recipe: str

    def difference(self, other: RequestRecord) -> str | None:
        """How ``other`` asks for something else than this record, in words; None where it does not.

        The recipe is no part of what a user asks for.
        """
        for name, was in self.parameters.items():
            if (now := other.parameters.get(name)) != was:
                return f"{name} was {was!r}, now it is {now!r}"
        for before, after in zip(self.clips, other.clips, strict=True):
            if before.identity.sha256 != after.identity.sha256:
                return f"clip {before.name} ({before.url}) has changed since"
        if (self.soundtrack and self.soundtrack.sha256) != (other.soundtrack and other.soundtrack.sha256):
            return f"the soundtrack ({self.parameters['soundtrack']}) has changed since"
        return None

    def recalled(self, request: JoinRequest, located: Mapping[str, RemoteIdentity]) -> dict[str, ClipIdentity] | None:
        """By url, what every file of ``request`` is; None where one has to be fetched to know.

        located: what is elsewhere, as it is now.
        """
        known = {(clip.url, clip.identity.size_bytes, clip.identity.version): clip.identity for clip in self.clips}
        if self.soundtrack is not None:
            place = self.parameters["soundtrack"]
            known[place, self.soundtrack.size_bytes, self.soundtrack.version] = self.soundtrack
        identities: dict[str, ClipIdentity] = {}
        for _, source in request.sources():
            if there := located.get(source.url):
                # Without a version nothing says that it has not changed.
                identity = known.get((_place(source), there.size_bytes, there.version)) if there.version else None
            else:
                identity = identify_clip(source.path)
            if identity is None:
                return None
            identities[source.url] = identity
        return identities


class JoinResult(_Record):
    """The result of a whole run; output is the last join's video."""

    run_id: str
    output: OutputFile
    joins: tuple[OutputFile, ...]


def publish_file(folder: RunFolder, path: Path, frames: int, access: S3Access | None = None) -> OutputFile:
    """Describe a file of the run that has just been written, and upload it where the run is published elsewhere.

    Raises TransferError and RequestError as ``upload`` does.
    """
    location = folder.location(path)
    if folder.url:
        upload(path, location, access)
    return OutputFile(path=location, size_bytes=path.stat().st_size, sha256=_sha256(path), frames=frames)


def bring_back(folder: RunFolder, output: OutputFile, access: S3Access | None = None) -> Path:
    """A published file on this machine again, if another one made it. Raises as ``download`` does."""
    path = folder.local(output.path)
    if folder.url and not (path.is_file() and path.stat().st_size == output.size_bytes):
        download(output.path, path, access)
    return path


def request_record(request: JoinRequest, files: Mapping[str, ClipIdentity], recipe: str) -> RequestRecord:
    """What identifies a run: its parameters but for those that can't change the result, and its files' content.

    files: of every url that the request names.
    """
    excluded = {"run_id", "clip_list", "max_seams_in_flight", "gpu_deployment"}
    parameters = request.model_dump(mode="json", exclude=excluded)
    parameters["clip_list"] = [_place(source) for source in request.clip_list]
    base = ClipSource(url=request.output_base_dir)
    parameters["output_base_dir"] = _place(base)
    music = None if request.soundtrack is None else ClipSource(url=request.soundtrack)
    parameters["soundtrack"] = music and _place(music)
    return RequestRecord(
        parameters=parameters,
        clips=tuple(
            ClipRecord(name=source.label, url=_place(source), identity=files[source.url])
            for source in request.clip_list
        ),
        soundtrack=music and files[music.url],
        recipe=recipe,
    )


def _place(source: ClipSource) -> str:
    """Where a file is, the same however it is written, and without secrets."""
    return redacted(source.url) if source.is_remote else str(Path(source.path).resolve())


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
