"""Where a run's files live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from splice.types import Join, Segment, Transition, Unit


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

    def join(self, name: str) -> Path:
        """The folder of a join, ``join_k`` or ``stitch``."""
        return self.path / name

    def joined_output(self, name: str) -> Path:
        return self.join(name) / "joined_output.mp4"

    def contact_sheet(self, join: Join, transition: Transition) -> Path:
        number = "" if len(join.transitions) == 1 else f"_{transition.join}"
        return self.join(join.name) / f"contact_sheet{number}.jpg"

    def unit(self, unit: Unit) -> Path:
        if isinstance(unit, Segment):
            return self.path / "units" / f"{unit.name}.mp4"
        return self.join(f"join_{unit.join}") / f"{unit.role}.mp4"
