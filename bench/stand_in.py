"""A stand-in for a diffusion model on a card of its own: takes SECONDS of no core's time, then dissolves.

``installed(folder)`` makes it known under the name ``stand_in`` to processes that have ``folder`` on their PYTHONPATH.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from splice.models.crossfade import Crossfade
from splice.models.protocol import Guide, ModelSettings, ModelSpec, Rendering
from splice.models.registry import ENTRY_POINTS

SECONDS = 10.0
"""Of a seam; VACE on a good card takes longer."""


class StandIn:
    """As slow as a good card, on a machine that has none."""

    def __init__(self) -> None:
        self._model = Crossfade()

    @property
    def spec(self) -> ModelSpec:
        return replace(self._model.spec, name="stand_in")

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        time.sleep(SECONDS)
        return self._model.render(guide, settings)


def installed(folder: Path) -> str:
    """Make a package of nothing but an entry point; returns what PYTHONPATH has to hold."""
    home = folder / "stand_in-1.dist-info"
    home.mkdir(parents=True, exist_ok=True)
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1\n")
    (home / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nstand_in = bench.stand_in:StandIn\n")
    return str(folder)
