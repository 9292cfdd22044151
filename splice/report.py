"""What a join tells about itself: report.json, and timeline.otio for other editors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import opentimelineio as otio

from splice.layout import RunFolder
from splice.recipe import recipe_version
from splice.types import Join, Segment, Timeline, Transition, Unit


def join_report(timeline: Timeline, join: Join, notes: Mapping[str, str | float]) -> dict[str, Any]:
    """Everything about one join's output, ready for JSON. notes: what the join's model said."""
    encoded = sum(unit.frame_count for unit in join.output if _is_encoded(unit))
    return {
        "join_index": join.index,
        "frames": join.frame_count,
        "seconds": float(join.frame_count / timeline.format.rate),
        "frames_copied": join.frame_count - encoded,
        "frames_encoded": encoded,
        "format": _readable(asdict(timeline.format)),
        "clips": [
            {
                "name": clip.name,
                "path": clip.path,
                "frames": frames,
                "conformed": list(conformed),
                "sound": "dropped" if clip.sound else "none",
            }
            for clip, frames, conformed in zip(timeline.clips, timeline.frame_counts, timeline.conformed, strict=True)
        ],
        "seam": _seam_report(join.transition, notes),
        "segments": _segment_reports(timeline, join),
        "recipe": recipe_version(),
    }


def join_timeline(timeline: Timeline, join: Join, folder: RunFolder) -> otio.schema.Timeline:
    """One join's output as OpenTimelineIO: rendered, it gives the output's frames.

    A clip that fits as it is stands for itself; one that had to be conformed, by its conformed unit.
    URLs are relative to the join's folder.
    """
    rate = float(timeline.format.rate)
    track = otio.schema.Track(name="video", kind=otio.schema.TrackKind.Video)
    for unit in join.output:
        path, start, available = _media_of(timeline, unit, folder)
        reference = otio.schema.ExternalReference(
            target_url=quote(Path(os.path.relpath(path, folder.join(join.index))).as_posix()),
            available_range=_time_range(0, available, rate),
        )
        name = timeline.clips[unit.clip].name if isinstance(unit, Segment) else unit.name
        track.append(otio.schema.Clip(name, reference, _time_range(start, unit.frame_count, rate)))
    result = otio.schema.Timeline(name=f"join_{join.index}")
    result.tracks.append(track)
    return result


def _media_of(timeline: Timeline, unit: Unit, folder: RunFolder) -> tuple[Path, int, int]:
    """(file, first frame in it, frames that it has)."""
    if isinstance(unit, Segment) and not timeline.conformed[unit.clip]:
        return Path(timeline.clips[unit.clip].path), unit.frames.start, timeline.frame_counts[unit.clip]
    return folder.unit(unit), 0, unit.frame_count


def _time_range(start: int, length: int, rate: float) -> otio.opentime.TimeRange:
    return otio.opentime.TimeRange(otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(length, rate))


def _is_encoded(unit: Unit) -> bool:
    return not isinstance(unit, Segment) or unit.action == "encode"


def _segment_reports(timeline: Timeline, join: Join) -> list[dict[str, Any]]:
    reports = []
    start = 0
    for unit in join.output:
        report: dict[str, Any] = {"name": unit.name, "start": start, "frames": unit.frame_count}
        if isinstance(unit, Segment):
            source = {"clip": timeline.clips[unit.clip].name, "source_start": unit.frames.start}
            report |= {**source, "action": unit.action, "reason": unit.reason}
        else:
            report |= {"action": "encode", "reason": "generated"}
        reports.append(report)
        start += unit.frame_count
    return reports


def _seam_report(transition: Transition, notes: Mapping[str, str | float]) -> dict[str, Any]:
    settings = transition.settings
    return {
        "model": {"name": transition.spec.name, "revision": transition.spec.revision, **notes},
        "replace_mode": settings.replace_mode,
        "gap_frames": transition.gap_frame_count,
        "context_frames": [len(transition.left.frames), len(transition.right.frames)],
        "context_padding": [transition.left.padding, transition.right.padding],
        "blend_frames": len(transition.blend_left),
        "removed_frames": [len(transition.removed_left), len(transition.removed_right)],
        "settings": asdict(settings.model_settings),
        "plan": list(transition.notes),
    }


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    kept = (int, float, bool, str, dict, list, tuple)
    return {name: value if isinstance(value, kept) else str(value) for name, value in values.items()}
