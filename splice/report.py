"""What a join tells about itself: report.json, and timeline.otio for other editors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import opentimelineio as otio

from splice.gate import Attempt
from splice.layout import RunFolder
from splice.media import TrackOffsets
from splice.mix import plan_sound
from splice.quality import SeamScore
from splice.recipe import recipe_version
from splice.types import FrameRange, Join, Segment, Timeline, Transition, Unit

Notes = Mapping[str, str | float]


@dataclass(frozen=True)
class SeamReport:
    """What is to be said of one seam besides its plan.

    notes: what the model said. attempts: every try, where a gate is set. score: None where it can't be told, and
    unscored says why. sound_step_db: of the worse edge; None where there is no sound.
    """

    notes: Notes
    attempts: Sequence[Attempt]
    score: SeamScore | None
    unscored: str
    sound_step_db: float | None


def join_report(
    timeline: Timeline,
    join: Join,
    seams: Sequence[SeamReport],
    tracks: TrackOffsets | None,
    sizes: npt.NDArray[np.int64],
    elapsed_seconds: float,
) -> dict[str, Any]:
    """Everything about one join's output, ready for JSON.

    seams: of its transitions, in order. tracks: None where it has no sound. sizes: bytes of every frame.
    elapsed_seconds: of joining alone.
    """
    new = set(join.new_units)
    return {
        "join": join.name,
        "earlier_joins": [each.name for each in takewhile(lambda each: each is not join, timeline.joins)],
        "frames": join.frame_count,
        "seconds": float(join.frame_count / timeline.format.rate),
        "elapsed_seconds": round(elapsed_seconds, 3),
        "total": _tally(timeline, join, sizes, join.output),
        "this_join": _tally(timeline, join, sizes, [unit for unit in join.output if unit in new]),
        "format": _readable(asdict(timeline.format)),
        "sound": _sound_report(timeline, join),
        "tracks": tracks and asdict(tracks),
        "clips": [
            {
                "name": clip.name,
                "path": clip.location,
                "frames": frames,
                "conformed": list(conformed),
                "sound": asdict(clip.sound) if clip.sound else None,
            }
            for clip, frames, conformed in zip(timeline.clips, timeline.frame_counts, timeline.conformed, strict=True)
        ],
        "seams": [
            _seam_report(timeline, transition, seam) for transition, seam in zip(join.transitions, seams, strict=True)
        ],
        "segments": _segment_reports(timeline, join, sizes),
        "recipe": recipe_version(),
    }


def _tally(timeline: Timeline, join: Join, sizes: npt.NDArray[np.int64], units: Sequence[Unit]) -> dict[str, Any]:
    """How many frames, seconds and bytes of ``units`` were copied and encoded, and why."""
    counted: dict[str, Any] = {
        action: {"frames": 0, "seconds": 0.0, "bytes": 0, "why": {}} for action in ("passthrough", "encode")
    }
    wanted = set(units)
    for unit, start in _with_starts(join):
        if unit in wanted:
            into = counted[_action(unit)]
            into["frames"] += unit.frame_count
            into["seconds"] = float(into["frames"] / timeline.format.rate)
            into["bytes"] += int(sizes[start : start + unit.frame_count].sum())
            into["why"][_reason(unit)] = into["why"].get(_reason(unit), 0) + unit.frame_count
    return counted


def _with_starts(join: Join) -> Iterator[tuple[Unit, int]]:
    """Every unit of the output, and its first frame there."""
    start = 0
    for unit in join.output:
        yield unit, start
        start += unit.frame_count


def _action(unit: Unit) -> str:
    return "passthrough" if unit.is_copied else "encode"


def _reason(unit: Unit) -> str:
    return unit.reason if isinstance(unit, Segment) else "generated"


def _sound_report(timeline: Timeline, join: Join) -> dict[str, Any] | None:
    if timeline.sound is None or (timeline.audio == "drop" and join is not timeline.joins[-1]):
        return None
    codec = timeline.sound.codec if join is timeline.joins[-1] else "flac"
    music = timeline.soundtrack
    return {
        **asdict(timeline.sound),
        "codec": codec,
        "mode": timeline.audio,
        "samples": plan_sound(timeline, join).sample_count,
        "soundtrack": {"path": music.url, "gain_db": music.gain_db} if music else None,
    }


def join_timeline(timeline: Timeline, join: Join, folder: RunFolder) -> otio.schema.Timeline:
    """One join's output as OpenTimelineIO: rendered, it gives the output's frames.

    A clip that fits as it is stands for itself; one that had to be conformed, by its conformed unit.
    URLs are relative to the join's folder, where one leads there: not from a bucket to a file of this machine.
    """
    rate = float(timeline.format.rate)
    track = otio.schema.Track(name="video", kind=otio.schema.TrackKind.Video)
    for name, media, frames in _shots(timeline, join, folder):
        reference = otio.schema.ExternalReference(
            target_url=media.url,
            available_range=_time_range(0, media.frame_count, rate),
        )
        track.append(otio.schema.Clip(name, reference, _time_range(frames.start, len(frames), rate)))
    result = otio.schema.Timeline(name=join.name)
    result.tracks.append(track)
    return result


@dataclass(frozen=True)
class _Media:
    url: str
    frame_count: int


def _shots(timeline: Timeline, join: Join, folder: RunFolder) -> list[tuple[str, _Media, FrameRange]]:
    """(name, file, frames of it), in order; runs that follow on in the same file are one, however they were made."""
    shots: list[tuple[str, _Media, FrameRange]] = []
    for unit in join.output:
        name, media, frames = _shot_of(timeline, join, unit, folder)
        if shots and shots[-1][1] == media and shots[-1][2].stop == frames.start:
            frames = FrameRange(shots.pop()[2].start, frames.stop)
        shots.append((name, media, frames))
    return shots


def _shot_of(timeline: Timeline, join: Join, unit: Unit, folder: RunFolder) -> tuple[str, _Media, FrameRange]:
    home = folder.join(join.name)
    if not isinstance(unit, Segment) or timeline.conformed[unit.clip]:
        name = timeline.clips[unit.clip].name if isinstance(unit, Segment) else unit.name
        return name, _Media(_relative(folder.unit(unit), home), unit.frame_count), FrameRange(0, unit.frame_count)
    clip = timeline.clips[unit.clip]
    url = clip.url or (Path(clip.path).as_uri() if folder.url else _relative(Path(clip.path), home))
    return clip.name, _Media(url, timeline.frame_counts[unit.clip]), unit.frames


def _relative(path: Path, home: Path) -> str:
    return quote(Path(os.path.relpath(path, home)).as_posix())


def _time_range(start: int, length: int, rate: float) -> otio.opentime.TimeRange:
    return otio.opentime.TimeRange(otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(length, rate))


def _segment_reports(timeline: Timeline, join: Join, sizes: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    reports = []
    for unit, start in _with_starts(join):
        report: dict[str, Any] = {"name": unit.name, "start": start, "frames": unit.frame_count}
        if isinstance(unit, Segment):
            report |= {"clip": timeline.clips[unit.clip].name, "source_start": unit.frames.start}
        size = int(sizes[start : start + unit.frame_count].sum())
        reports.append(report | {"action": _action(unit), "reason": _reason(unit), "bytes": size})
    return reports


def _seam_report(timeline: Timeline, transition: Transition, seam: SeamReport) -> dict[str, Any]:
    settings = transition.settings
    return {
        "transition": transition.join,
        "left": timeline.clips[transition.left.clip].name,
        "right": timeline.clips[transition.right.clip].name,
        "score": seam.score and round(seam.score.total, 3),
        "unscored": seam.unscored,
        "penalties": seam.score and {name: round(value, 3) for name, value in asdict(seam.score).items()},
        "sound_step_db": seam.sound_step_db and round(seam.sound_step_db, 2),
        "gate": {"max_seam_score": settings.max_seam_score, "quality_retries": settings.quality_retries},
        "attempts": [asdict(attempt) for attempt in seam.attempts],
        "model": {"name": transition.spec.name, "revision": transition.spec.revision, **seam.notes},
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
