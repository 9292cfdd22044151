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
    """One row a join: how it ended, what it is made of, how its seams score. states: of every join by name."""
    rows = [_row(join, folder, states[join.name]) for join in timeline.joins]
    create_table_artifact(table=rows, key=_key("joins", run_id), description=f"The joins of `{run_id}`")


def show_seams(run_id: str, timeline: Timeline, folder: RunFolder) -> None:
    """A picture of each of the worst seams: frames before, generated and after; where the others' pictures are."""
    seams = [(join, transition) for join in timeline.joins for transition in join.transitions]
    scores = _scores(timeline, folder)
    ranked = sorted(seams, key=lambda seam: -scores.get(seam[1].join, 0.0))
    shown = [seam for seam in ranked if folder.contact_sheet(*seam).exists()][:MOST_PICTURES]
    for join, transition in shown:
        _show_seam(run_id, timeline, transition, folder.contact_sheet(join, transition))
    if others := [folder.contact_sheet(*seam) for seam in seams if seam not in shown]:
        listed = "\n".join(f"- `{folder.location(sheet)}`" for sheet in others)
        create_markdown_artifact(listed, key=_key("other-seams", run_id), description="Pictures of the other seams")


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


def _show_seam(run_id: str, timeline: Timeline, transition: Transition, sheet: Path) -> None:
    left, right = (timeline.clips[side.clip].label for side in (transition.left, transition.right))
    data = base64.b64encode(sheet.read_bytes()).decode()
    text = (
        f"**Seam {transition.join}**: {left} | {right}\n\n![before, generated, after](data:image/jpeg;base64,{data})\n"
    )
    key = _key(f"seam-{transition.join}", run_id)
    create_markdown_artifact(text, key=key, description=f"Seam {transition.join} of `{run_id}`: {left} | {right}")


def _row(join: Join, folder: RunFolder, state: str) -> dict[str, Any]:
    seams = ", ".join(str(transition.join) for transition in join.transitions)
    report = _report(join, folder) if state == "Completed" else None
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


def _scores(timeline: Timeline, folder: RunFolder) -> dict[int, float]:
    """By transition; of those of which nothing is known there is none."""
    reports = [_report(join, folder) for join in timeline.joins]
    return {seam["transition"]: float(seam["score"] or 0.0) for report in reports if report for seam in report["seams"]}


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _report(join: Join, folder: RunFolder) -> dict[str, Any] | None:
    """None where a user tidied up beside the video."""
    path = folder.join(join.name) / "report.json"
    report: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return report


def _key(kind: str, run_id: str) -> str:
    """Prefect allows lower case, digits and dashes; the hash tells apart what the slug does not."""
    slug = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    return f"{kind}-{slug}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"
