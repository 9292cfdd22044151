"""``report.html`` beside each output: what a join is made of, how its seams look. Opens from disk, needs nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template

from splice.media import encode_preview
from splice.quality import SeamScore, Series
from splice.seam_view import SeamView

MOST_SHOWN = 24
"""Seams that come with pictures, the worst ones; a page of hundreds of megabytes opens nowhere."""

RED = 2.0
"""A penalty from which on it stands out on the page: one in eight untouched spans has one (``bench.controls``)."""

PLOT_WIDTH, PLOT_HEIGHT = 400, 100


@dataclass(frozen=True)
class Penalty:
    """What a reader is told of a penalty. sees: in a few words. signal: the one it is made of, which is drawn."""

    sees: str
    signal: str


PENALTIES = {
    "step": Penalty("a jump from one frame to the next", "difference"),
    "chroma": Penalty("a jump of the colours' strength or hue", "chroma"),
    "bend": Penalty("a jerk: the change itself changes", "bend"),
    "color": Penalty("whole areas change their colour", "color"),
    "warp": Penalty("change that no motion explains", "warp"),
    "turn": Penalty("motion changes its speed or direction", "turn"),
    "flicker": Penalty("the whole picture's brightness flickers", "flicker"),
    "linear": Penalty("too even: a dissolve, grain that stands still", "bend"),
    "sharpness": Penalty("softer or sharper than the clips", "sharpness"),
    "frozen": Penalty("frames that are the one before again", "difference"),
}


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
            "penalties": [] if score is None else _penalties(view, score),
            "plot": _plot(view, "difference"),
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
        shown = ("join", "earlier_joins", "frames", "seconds", "total", "tracks", "recipe")
        return _template().render(
            **{name: report[name] for name in shown},
            red=RED,
            segments=[
                {"clip": "", "source_start": "", "kind": _kind(segment), **segment} for segment in report["segments"]
            ],
            seams=[
                {**seam, "number": facts["transition"], "left": facts["left"], "right": facts["right"]}
                | {"sound_step_db": facts["sound_step_db"], "facts": list(_flat(_unshown(facts)))}
                for seam, facts in zip(self._seams, report["seams"], strict=True)
            ],
        )


@cache
def _template() -> Template:
    source = Path(__file__).with_suffix(".html").read_text()
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)


def _kind(segment: Mapping[str, Any]) -> str:
    return "generated" if segment["reason"] == "generated" else str(segment["action"])


def _unshown(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the page does not say elsewhere."""
    said = ("transition", "left", "right", "score", "unscored", "penalties", "sound_step_db")
    return {name: value for name, value in facts.items() if name not in said}


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


def _penalties(view: SeamView, score: SeamScore) -> list[dict[str, Any]]:
    """The largest first, each with the curve of what it is made of."""
    ranked = sorted(asdict(score).items(), key=lambda each: -each[1])
    return [
        {
            "name": name,
            "value": value,
            "sees": PENALTIES[name].sees,
            "signal": PENALTIES[name].signal,
            "plot": _plot(view, PENALTIES[name].signal),
        }
        for name, value in ranked
    ]


def _plot(view: SeamView, signal: str) -> dict[str, Any]:
    """Coordinates of a signal's curve, of what was generated, and of the range that the frames on either side keep
    to, in the drawing's units; with the values that its top and bottom stand for."""
    values: Series = getattr(view.signals, signal)
    count, known = len(values), ~np.isnan(values)
    reach = int(np.argmax(known))
    sides = (values[reach : view.span.start], values[view.span.stop + reach :])
    lows, highs = ([float(of(side)) if len(side) else 0.0 for side in sides] for of in (np.min, np.max))
    # A logarithm has no zero that says anything.
    bottom = min(float(values.min()), *lows) if signal == "sharpness" else 0.0
    top = max(float(values[known].max(initial=0.0)), *highs)

    def x(frame: float) -> float:
        return round(PLOT_WIDTH * frame / max(count - 1, 1), 1)

    def y(value: float) -> float:
        return round(PLOT_HEIGHT * (top - value) / ((top - bottom) or 1.0), 1)

    def edge(ends: list[float]) -> list[str]:
        at = (0.0, x(view.span.start), x(view.span.stop), float(PLOT_WIDTH))
        return [f"{x_},{y(value)}" for x_, value in zip(at, (ends[0], ends[0], ends[1], ends[1]), strict=True)]

    return {
        "points": " ".join(f"{x(n)},{y(value)}" for n, value in enumerate(values) if known[n]),
        "gap_x": x(view.gap.start),
        "gap_width": round(x(view.gap.stop) - x(view.gap.start), 1),
        "normal": " ".join([*edge(highs), *reversed(edge(lows))]),
        "bottom": f"{bottom:.2g}",
        "top": f"{top:.2g}",
    }
