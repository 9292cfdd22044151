"""A model that a test holds up: it renders a seam once the file is there whose path is the seam's prompt.

``install(folder)`` makes it known under the name ``patient`` to processes that have ``folder`` on their PYTHONPATH.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from splice.models.crossfade import Crossfade
from splice.models.protocol import Guide, ModelSettings, Rendering
from splice.models.registry import ENTRY_POINTS

PATIENCE_SECONDS = 300


class Patient:
    """Crossfade, when it is let."""

    spec = replace(Crossfade.spec, name="patient")

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not Path(settings.prompt).exists():
            assert time.monotonic() < deadline, f"nobody made {settings.prompt} within {PATIENCE_SECONDS} s"
            time.sleep(0.05)
        return Crossfade().render(guide, settings)


def install(folder: Path) -> None:
    package = folder / "patient-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\npatient = patient_model:Patient\n")
    shutil.copy(__file__, folder)
