"""What is kept of work that is done: small, frozen, readable as JSON. A record counts only while its files do."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from splice.layout import RunFolder
from splice.request import JoinRequest
from splice.types import ClipIdentity, Timeline


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OutputFile(_Record):
    """A finished file. sha256: hexadecimal, of the whole file. frames: how many it shows."""

    path: str
    size_bytes: int
    sha256: str
    frames: int

    def is_intact(self) -> bool:
        """Whether the file is there, and still the one that was written."""
        file = Path(self.path)
        return file.is_file() and file.stat().st_size == self.size_bytes and _sha256(file) == self.sha256


class StepRecord(_Record):
    """The result of one step. notes: what a model or a join has to say for the report."""

    outputs: tuple[OutputFile, ...]
    notes: dict[str, str | float] = {}

    def is_intact_in(self, folder: RunFolder) -> bool:
        """Whether every output is there, unchanged, and in the run's folder."""
        return all(Path(output.path).is_relative_to(folder.path) and output.is_intact() for output in self.outputs)


class ClipRecord(_Record):
    name: str
    path: str
    identity: ClipIdentity


class RequestRecord(_Record):
    """What a run_id stands for."""

    parameters: dict[str, Any]
    clips: tuple[ClipRecord, ...]
    soundtrack_sha256: str | None = None
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
                return f"clip {before.name} ({before.path}) has changed since"
        if self.soundtrack_sha256 != other.soundtrack_sha256:
            return f"the soundtrack ({self.parameters['soundtrack']}) has changed since"
        return None


class JoinResult(_Record):
    """The result of a whole run; output is the last join's video."""

    run_id: str
    output: OutputFile
    joins: tuple[OutputFile, ...]


def output_file(path: Path, frames: int) -> OutputFile:
    """Describe a file that has just been written."""
    return OutputFile(path=str(path), size_bytes=path.stat().st_size, sha256=_sha256(path), frames=frames)


def request_record(request: JoinRequest, timeline: Timeline, recipe: str) -> RequestRecord:
    """What identifies a run: its parameters but for those that can't change the result, and its clips' content."""
    parameters = request.model_dump(mode="json", exclude={"run_id", "clip_list", "max_seams_in_flight"})
    parameters["clip_list"] = [clip.path for clip in timeline.clips]
    parameters["output_base_dir"] = str(Path(request.output_base_dir).resolve())
    identities = tuple(ClipRecord(name=clip.name, path=clip.path, identity=clip.identity) for clip in timeline.clips)
    music = timeline.soundtrack
    if music is not None:
        parameters["soundtrack"] = music.path
    return RequestRecord(
        parameters=parameters,
        clips=identities,
        soundtrack_sha256=music and music.identity.sha256,
        recipe=recipe,
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
