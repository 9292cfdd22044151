"""What a step's result depends on, as a digest: the same digest, the same frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from splice.media import ENCODER_REVISION
from splice.mix import plan_sound
from splice.types import Join, Segment, Timeline, Unit

RECIPE = "9"
"""To be raised with any change of code that makes other frames from the same plan."""


@cache
def recipe_version() -> str:
    """The recipe, the encoder's settings, and the libraries whose releases may change pixels or packets."""
    libraries = (f"{name} {version(name)}" for name in ("av", "opencv-python-headless", "numpy", "soundfile"))
    return ", ".join([f"recipe {RECIPE}", f"encoder {ENCODER_REVISION}", *libraries])


def step_digests(timeline: Timeline) -> dict[str, str]:
    """Of every step by name (encoded units, ``join_k_transition``, joins): a hash of its inputs from the plan.

    Clips count by their content, transitions by settings and model revision. A join's digest is made of
    the digests of what it joins, never of a predecessor's file.
    """
    digests: dict[str, str] = {}
    previous = ""
    muxing = {"in_band": timeline.has_passthrough, "reorder_frames": timeline.reorder_frames}
    for join in timeline.joins:
        units = [(unit.name, _unit_digest(timeline, unit)) for unit in join.new_units]
        digests |= {unit.step: _unit_digest(timeline, unit) for unit in join.encoded_units}
        sound = _sound_values(timeline, join)
        previous = _digest({"after": previous, "kept": str(join.kept), "units": units, "sound": sound, **muxing})
        digests[join.name] = previous
    return digests


def _unit_digest(timeline: Timeline, unit: Unit) -> str:
    common = {"format": asdict(timeline.format), "recipe": recipe_version()}
    if isinstance(unit, Segment):
        clip = timeline.clips[unit.clip].identity.sha256
        return _digest({"clip": clip, "frames": asdict(unit.frames), "action": unit.action, **common})
    transition = timeline.transitions[unit.join]
    clips = [timeline.clips[side.clip].identity.sha256 for side in (transition.left, transition.right)]
    return _digest({"clips": clips, "transition": asdict(transition), **common})


def _sound_values(timeline: Timeline, join: Join) -> dict[str, Any] | None:
    """What the sound of a join depends on, beyond its clips; the codec and the music concern the last one only."""
    if timeline.sound is None:
        return None
    format_values = {"rate": timeline.sound.sample_rate, "layout": timeline.sound.layout}
    values: dict[str, Any] = {**format_values, "mode": timeline.audio, "pieces": str(plan_sound(timeline, join))}
    if join is timeline.joins[-1]:
        music = timeline.soundtrack
        values |= {"codec": timeline.sound.codec, "music": music and (music.identity.sha256, music.gain_db)}
    return values


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(
        values, sort_keys=True, default=lambda value: sorted(value) if isinstance(value, frozenset) else str(value)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]
