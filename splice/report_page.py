"""``report.html`` beside each output: what a join is made of, how its seams look. Opens from disk, needs nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template

from splice.media import encode_preview
from splice.quality import Series
from splice.seam_view import SeamView

MOST_SHOWN = 24
"""Seams that come with pictures, the worst ones; a page of hundreds of megabytes opens nowhere."""

PLOT_WIDTH, PLOT_TOP, PLOT_BOTTOM = 400, 8, 112


class ReportPage:
    """Collects a join's seams one by one, so that the pictures of one at a time are in memory, and makes the page."""

    def __init__(self, rate: Fraction) -> None:
        self._rate = rate
        self._seams: list[dict[str, Any]] = []

    def add(self, view: SeamView, sheet: Path) -> None:
        """The next seam of the join, and the picture of it that lies beside the video."""
        score = view.score
        seam = {
            "sheet_name": sheet.name,
            "total": None if score is None else score.total,
            "unscored": view.unscored,
            "penalties": [] if score is None else sorted(asdict(score).items(), key=lambda each: -each[1]),
            "plot": _plot(view),
            "sheet": base64.b64encode(sheet.read_bytes()).decode(),
            "preview": base64.b64encode(self._preview(view)).decode(),
        }
        self._seams.append(seam)
        shown = [each for each in self._seams if "preview" in each]
        if len(shown) > MOST_SHOWN:
            best = min(shown, key=lambda each: each["total"] or 0.0)
            del best["preview"], best["sheet"]

    def _preview(self, view: SeamView) -> bytes:
        pictures = [view.pictures[position] for position in sorted(view.pictures) if position % view.stride == 0]
        return encode_preview(pictures, self._rate / view.stride)

    def render(self, report: Mapping[str, Any]) -> str:
        """The page. report: of the join, as ``join_report`` has it, with its seams in the order in which they came."""
        return _template().render(
            **{name: report[name] for name in ("join", "frames", "seconds", "total", "tracks", "recipe")},
            segments=[
                {"clip": "", "source_start": "", "kind": _kind(segment), **segment} for segment in report["segments"]
            ],
            seams=[
                {**seam, "number": facts["transition"], "left": facts["left"], "right": facts["right"]}
                | {"sound_step_db": facts["sound_step_db"], "facts": list(_flat(facts))}
                for seam, facts in zip(self._seams, report["seams"], strict=True)
            ],
        )


@cache
def _template() -> Template:
    source = Path(__file__).with_suffix(".html").read_text()
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)


def _kind(segment: Mapping[str, Any]) -> str:
    return "generated" if segment["reason"] == "generated" else str(segment["action"])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting and note, one a line; those without a value are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        elif name == "attempts":
            for number, attempt in enumerate(value):
                yield from _flat(attempt, f"attempt {number}: ")
        elif value not in (None, "", [], ()):
            yield f"{prefix}{name}", str(value)


def _plot(view: SeamView) -> dict[str, Any]:
    """Coordinates of the curve, of what was generated, and of what is normal on either side, in the drawing's units."""
    values: Series = view.signals.difference
    count = len(values)
    sides = (values[1 : view.span.start], values[view.span.stop + 1 :])
    normal = [float(side.max()) if len(side) else 0.0 for side in sides]
    largest = max(float(np.nanmax(values)) if count > 1 else 0.0, *normal) or 1.0

    def x(frame: float) -> float:
        return round(PLOT_WIDTH * frame / max(count - 1, 1), 1)

    def y(value: float) -> float:
        return round(PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * value / largest, 1)

    return {
        "points": " ".join(f"{x(n)},{y(value)}" for n, value in enumerate(values) if not np.isnan(value)),
        "gap_x": x(view.gap.start),
        "gap_width": round(x(view.gap.stop) - x(view.gap.start), 1),
        "normal": f"0,{PLOT_BOTTOM} 0,{y(normal[0])} {x(view.span.start)},{y(normal[0])} "
        f"{x(view.span.stop)},{y(normal[1])} {PLOT_WIDTH},{y(normal[1])} {PLOT_WIDTH},{PLOT_BOTTOM}",
        "largest": f"{largest:.1f}",
    }
