"""Where a run's files live."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from splice.errors import RequestError
from splice.request import ClipSource
from splice.settings import settings
from splice.types import Join, Segment, Transition, Unit


@dataclass(frozen=True)
class RunFolder:
    """``{output_base_dir}/join_clips_run_{run_id}`` and everything below it.

    path: where files are made. url: where they are published, if that is not on this machine; else empty.
    """

    path: Path
    url: str = ""

    @classmethod
    def of(cls, output_base_dir: str, run_id: str) -> RunFolder:
        name = f"join_clips_run_{run_id}"
        base = ClipSource(url=output_base_dir)
        if not base.is_remote:
            return cls(Path(base.path).resolve() / name)
        url = f"{output_base_dir.rstrip('/')}/{name}"
        # Files of the same run_id in another bucket are others.
        return cls(settings().work_dir / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}", url)

    def require_place(self) -> None:
        """Raises RequestError where a new folder can't be made: a file is in the way, or the right is missing."""
        try:
            nearest = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        except PermissionError as error:
            raise RequestError(f"output_base_dir: {error.filename}: {error.strerror}; choose another folder") from error
        if nearest != self.path and not nearest.is_dir():
            raise RequestError(f"output_base_dir: {nearest} is a file; give a folder")
        if nearest != self.path and not os.access(nearest, os.W_OK | os.X_OK):
            raise RequestError(f"output_base_dir: {nearest} can't be written to; choose another folder")

    def location(self, path: Path) -> str:
        """Where a file of this folder is to be found in the end."""
        return f"{self.url}/{path.relative_to(self.path).as_posix()}" if self.url else str(path)

    def local(self, location: str) -> Path:
        """Where a file is, or was, made that is to be found at ``location``."""
        return self.path / location.removeprefix(f"{self.url}/") if self.url else Path(location)

    def holds(self, location: str) -> bool:
        """Whether a file belongs to this folder."""
        return location.startswith(f"{self.url}/") if self.url else Path(location).is_relative_to(self.path)

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def request(self) -> Path:
        """What was asked for."""
        return self.path / "request.json"

    def join(self, name: str) -> Path:
        """The folder of a join, ``join_k`` or ``stitch``."""
        return self.path / name

    def joined_output(self, name: str) -> Path:
        return self.join(name) / "joined_output.mp4"

    def contact_sheet(self, join: Join, transition: Transition) -> Path:
        number = "" if len(join.transitions) == 1 else f"_{transition.join}"
        return self.join(join.name) / f"contact_sheet{number}.jpg"

    def report_page(self, name: str) -> Path:
        return self.join(name) / "report.html"

    def unit(self, unit: Unit) -> Path:
        if isinstance(unit, Segment):
            return self.path / "units" / f"{unit.name}.mp4"
        return self.join(f"join_{unit.join}") / f"{unit.role}.mp4"
