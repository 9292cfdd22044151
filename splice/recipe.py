"""What a step's result depends on, as a digest: the same digest, the same frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from splice.media import ENCODER_REVISION
from splice.types import Segment, Timeline, Unit

RECIPE = "1"
"""To be raised with any change of code that makes other frames from the same plan."""


@cache
def recipe_version() -> str:
    """The recipe, the encoder's settings, and the libraries whose releases may change pixels or packets."""
    libraries = (f"{name} {version(name)}" for name in ("av", "opencv-python-headless", "numpy"))
    return ", ".join([f"recipe {RECIPE}", f"encoder {ENCODER_REVISION}", *libraries])


def step_digests(timeline: Timeline) -> dict[str, str]:
    """Of every step by name (units, ``join_k_transition``, ``join_k``): a hash of its inputs from the plan.

    Clips count by their content, transitions by settings and model revision. A join's digest is made of
    the digests of what it joins, never of a predecessor's file.
    """
    digests: dict[str, str] = {}
    previous = ""
    for join in timeline.joins:
        for unit in join.new_units:
            digests[unit.step] = _unit_digest(timeline, unit)
        units = [(unit.name, digests[unit.step]) for unit in join.new_units]
        previous = _digest({"join": join.index, "after": previous, "kept": str(join.kept), "units": units})
        digests[f"join_{join.index}"] = previous
    return digests


def _unit_digest(timeline: Timeline, unit: Unit) -> str:
    common = {"format": asdict(timeline.format), "recipe": recipe_version()}
    if isinstance(unit, Segment):
        clip = timeline.clips[unit.clip].identity.sha256
        return _digest({"clip": clip, "frames": asdict(unit.frames), **common})
    transition = timeline.joins[unit.join].transition
    clips = [timeline.clips[side.clip].identity.sha256 for side in (transition.left, transition.right)]
    return _digest({"clips": clips, "transition": asdict(transition), **common})


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(
        values, sort_keys=True, default=lambda value: sorted(value) if isinstance(value, frozenset) else str(value)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]
