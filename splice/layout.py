"""Where a run's files live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from splice.types import Segment, Unit


@dataclass(frozen=True)
class RunFolder:
    """``{output_base_dir}/join_clips_run_{run_id}`` and everything below it."""

    path: Path

    @classmethod
    def of(cls, output_base_dir: str, run_id: str) -> RunFolder:
        return cls(Path(output_base_dir).resolve() / f"join_clips_run_{run_id}")

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def join(self, index: int) -> Path:
        return self.path / f"join_{index}"

    def joined_output(self, index: int) -> Path:
        return self.join(index) / "joined_output.mp4"

    def unit(self, unit: Unit) -> Path:
        if isinstance(unit, Segment):
            return self.path / "units" / f"{unit.name}.mp4"
        return self.join(unit.join) / f"{unit.role}.mp4"
