"""What Prefect's UI shows of a run: how far it is, its joins as a table, its seams as pictures, where the result is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from splice.layout import RunFolder
from splice.records import JoinResult
from splice.types import Join, Timeline, Transition

MOST_PICTURES = 12
"""Of the seams that score worst; a page with hundreds of pictures is of no use."""

Reports = Mapping[str, dict[str, Any]]
"""What was written beside each joined video, by the name of the join."""


def start_progress(run_id: str, join_count: int) -> UUID:
    """A bar of joins that are complete."""
    artifact_id: UUID = create_progress_artifact(  # type: ignore[assignment] # Prefect's type is of its async twin
        progress=0.0, key=_key("progress", run_id), description=f"`{run_id}`: of {join_count} joins"
    )
    return artifact_id


def show_progress(artifact_id: UUID, share: float) -> None:
    """share: 0..1, of the joins that are complete."""
    update_progress_artifact(artifact_id=artifact_id, progress=100.0 * share)


def show_joins(run_id: str, timeline: Timeline, folder: RunFolder, states: Mapping[str, str]) -> None:
    """How each join ended and what it is made of, as a table, and its worst seams as pictures. states: of every join.

    Two artifacts, however many joins there are: each is a request that the end of the run waits for.
    """
    reports = _read_reports(timeline, folder)
    rows = [_row(join, folder, states[join.name], reports) for join in timeline.joins]
    create_table_artifact(table=rows, key=_key("joins", run_id), description=f"The joins of `{run_id}`")
    if text := _seams_text(timeline, folder, reports):
        create_markdown_artifact(text, key=_key("seams", run_id), description=f"The seams of `{run_id}`, worst first")


def show_result(result: JoinResult) -> None:
    """A link to the video."""
    output = result.output
    link = output.path if "://" in output.path else Path(output.path).as_uri()
    create_link_artifact(
        link=link,
        link_text=output.path,
        key=_key("result", result.run_id),
        description=f"`{result.run_id}`: {output.frames} frames, {output.size_bytes / 1e6:.1f} MB",
    )


def _seams_text(timeline: Timeline, folder: RunFolder, reports: Reports) -> str:
    """A picture of each of the worst seams: frames before, generated and after; then where the others' pictures are."""
    scores = {seam["transition"]: seam["score"] for report in reports.values() for seam in report["seams"]}
    seams = [(join, transition) for join in timeline.joins for transition in join.transitions]
    there = [seam for seam in seams if folder.contact_sheet(*seam).exists()]
    ranked = sorted(there, key=lambda seam: -(scores.get(seam[1].join) or 0.0))
    parts = []
    for join, transition in ranked[:MOST_PICTURES]:
        title = _title(timeline, transition, scores.get(transition.join))
        data = base64.b64encode(folder.contact_sheet(join, transition).read_bytes()).decode()
        parts.append(f"{title}\n\n![before, generated, after](data:image/jpeg;base64,{data})\n")
    for join, transition in ranked[MOST_PICTURES:]:
        title, sheet = _title(timeline, transition, scores.get(transition.join)), folder.contact_sheet(join, transition)
        parts.append(f"{title}: `{folder.location(sheet)}`\n")
    return "\n".join(parts)


def _title(timeline: Timeline, transition: Transition, score: float | None) -> str:
    left, right = (timeline.clips[side.clip].label for side in (transition.left, transition.right))
    return f"**Seam {transition.join}**, score {_rounded(score)}: {left} | {right}"


def _row(join: Join, folder: RunFolder, state: str, reports: Reports) -> dict[str, Any]:
    seams = ", ".join(str(transition.join) for transition in join.transitions)
    report = reports.get(join.name) if state == "Completed" else None
    if report is None:
        return {"join": join.name, "state": state, "seams": seams, "frames": join.frame_count}
    copied, encoded = (report["total"][action]["frames"] for action in ("passthrough", "encode"))
    return {
        "join": join.name,
        "state": state,
        "seams": seams,
        "frames": join.frame_count,
        "copied": f"{copied / join.frame_count:.1%}",
        "encoded": encoded,
        "models": ", ".join(sorted({seam["model"]["name"] for seam in report["seams"]})),
        "seam scores": ", ".join(_rounded(seam["score"]) for seam in report["seams"]),
        "sound steps (dB)": ", ".join(_rounded(seam["sound_step_db"]) for seam in report["seams"]),
        "seconds": round(report["elapsed_seconds"], 1),
        "video": folder.location(folder.joined_output(join.name)),
    }


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _read_reports(timeline: Timeline, folder: RunFolder) -> Reports:
    """Of the joins that have one: of the others none is made yet, or a user tidied up beside the video."""
    paths = {join.name: folder.join(join.name) / "report.json" for join in timeline.joins}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def _key(kind: str, run_id: str) -> str:
    """Prefect allows lower case, digits and dashes; the hash tells apart what the slug does not."""
    slug = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    return f"{kind}-{slug}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"
