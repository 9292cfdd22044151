"""The steps of a run. Each is a Prefect task whose record is kept under the key that it is given."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import opentimelineio as otio
from prefect import get_run_logger, task
from prefect.context import TaskRunContext
from pydantic import ValidationError
from splice.contact_sheet import write_contact_sheet
from splice.gate import Attempt, make_best
from splice.join import write_join
from splice.layout import RunFolder
from splice.media import atomic_output, track_offsets
from splice.models.loaded import loaded_model
from splice.records import JoinResult, OutputFile, RequestRecord, StepRecord, bring_back, publish_file
from splice.report import Notes, SeamReport, join_report, join_timeline
from splice.report_page import ReportPage
from splice.seam_view import hear_seam, view_seam
from splice.storage import RemoteIdentity, S3Access, download, stat, upload
from splice.survey import fetch_file
from splice.types import Join, Segment, SourceFile, Timeline, Transition
from splice.units import write_segment, write_transition

from tasks.access import access_to
from tasks.progress import tracked
from tasks.retry import RETRY


def _key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    key: str = parameters["key"]
    return key


STEP: dict[str, Any] = {"cache_key_fn": _key, "persist_result": True, "result_serializer": "json", **RETRY}


class JoinInputs(TypedDict):
    """What a join waits for. predecessor: None in the first join. transitions: of those that it brings in."""

    predecessor: StepRecord | None
    transitions: list[StepRecord]
    segments: list[StepRecord]


@task(**STEP, name="record-request")
def record_request(key: str, request: RequestRecord) -> RequestRecord:
    """Keep what a run_id stands for: whoever asks second gets the first one's request back."""
    return request


def write_request(request: RequestRecord, folder: RunFolder) -> None:
    """Note in the run's folder what was asked for. Raises as ``upload`` does, before there is any work to lose."""
    _write_text(folder.request, request.model_dump_json(indent=2))
    if folder.url:
        upload(folder.request, folder.location(folder.request), access_to(folder.url))


def read_request(folder: RunFolder) -> RequestRecord | None:
    """What the run's folder says that it is for; None where it says nothing, or nothing that this version can read.

    Raises as ``download`` does.
    """
    place, access = folder.location(folder.request), access_to(folder.url)
    if folder.url and stat(place, access):
        download(place, folder.request, access)
    try:
        return RequestRecord.model_validate_json(folder.request.read_text())
    except (FileNotFoundError, ValidationError):
        return None


@task(**RETRY, name="fetch-file")
def fetch_source(url: str, located: RemoteIdentity, access: S3Access | None) -> SourceFile:
    """Download a file into this machine's cache, unless it is there."""
    return fetch_file(url, located, access)


@task(**STEP, name="prepare-clip")
def prepare_clip(key: str, timeline: Timeline, segment: Segment, folder: RunFolder) -> StepRecord:
    """Encode one segment of a clip, conformed, from the original file."""
    watch = partial(tracked, description=f"clip {segment.clip} {segment.role}", total=segment.frame_count)
    write_segment(timeline, segment, folder, watch)
    return StepRecord(outputs=(_publish(folder, folder.unit(segment), segment.frame_count),))


@task(**STEP, name="generate-transition")
def generate_transition(key: str, timeline: Timeline, transition_index: int, folder: RunFolder) -> StepRecord:
    """Let the model render one seam, and encode it as one unit, or as two where a loop divides it."""
    transition = timeline.transitions[transition_index]
    watch = partial(tracked, description=f"seam {transition_index}", total=transition.frame_count)

    def make(attempt: Transition, into: RunFolder) -> Notes:
        return write_transition(timeline, attempt, loaded_model(transition.settings.model), into, watch)

    notes, attempts = make_best(timeline, transition, folder, make)
    warn_of_seam(transition, attempts)
    pieces = timeline.pieces_of(transition)
    outputs = tuple(_publish(folder, folder.unit(piece), piece.frame_count) for piece in pieces)
    return StepRecord(outputs=outputs, notes=dict(notes), attempts=attempts)


def warn_of_seam(transition: Transition, attempts: Sequence[Attempt]) -> None:
    """Say it where no try at a seam was as good as was asked for, or where that can't be told."""
    limit = transition.settings.max_seam_score
    if attempts and attempts[0].score is None:
        get_run_logger().warning("seam %d can't be scored: %s; it is kept", transition.join, attempts[0].unscored)
    best = min((attempt.score for attempt in attempts if attempt.score is not None), default=0.0)
    if limit is not None and best > limit:
        again = "" if transition.spec.reads_seed else f"; {transition.spec.name} makes the same frames from every seed"
        get_run_logger().warning(
            "seam %d: the best of %d tries scores %.1f, max_seam_score is %.1f; it is kept, look at its report%s",
            transition.join,
            len(attempts),
            best,
            limit,
            again,
        )


@task(**STEP, name="join-clips-child")
def join_clips_child(
    key: str,
    timeline: Timeline,
    folder: RunFolder,
    *,
    join_index: int,
    is_first_join: bool,
    is_last_join: bool,
    next_clip: str,
    upstream: JoinInputs,
) -> StepRecord:
    """One link of the chain: what the predecessor made, the seam, and the next clip; or the stitch of everything."""
    started = time.monotonic()
    join, predecessor = timeline.joins[join_index], upstream["predecessor"]
    for record in (*upstream["transitions"], *upstream["segments"]):
        _bring_back(folder, record)
    kept = _bring_back(folder, predecessor) if predecessor else None
    watch = partial(tracked, description=join.name, total=join.frame_count)
    sizes = write_join(timeline, join, folder, kept, watch)
    elapsed_seconds = time.monotonic() - started
    report = _write_papers(timeline, join, folder, upstream["transitions"], sizes, elapsed_seconds)
    path = folder.joined_output(join.name)
    get_run_logger().info(
        "%s%s: %s joined, %d frames in all, %d copied and %d encoded for this join: %s",
        join.name,
        " (last)" if is_last_join else " (first)" if is_first_join else "",
        next_clip,
        join.frame_count,
        report["this_join"]["passthrough"]["frames"],
        report["this_join"]["encode"]["frames"],
        folder.location(path),
    )
    return StepRecord(outputs=(_publish(folder, path, join.frame_count),))


@task(**STEP, name="publish-result")
def publish_result(key: str, run_id: str, joins: Sequence[StepRecord]) -> JoinResult:
    """The last record of a run: whoever finds it finds the run finished."""
    outputs: tuple[OutputFile, ...] = tuple(record.outputs[0] for record in joins)
    return JoinResult(run_id=run_id, output=outputs[-1], joins=outputs)


def _publish(folder: RunFolder, path: Path, frames: int) -> OutputFile:
    return publish_file(folder, path, frames, access_to(folder.url))


def _bring_back(folder: RunFolder, record: StepRecord) -> Path:
    """The record's files on this machine; the path of the first."""
    access = access_to(folder.url)
    paths = [bring_back(folder, output, access) for output in record.outputs]
    return paths[0]


def _write_papers(
    timeline: Timeline,
    join: Join,
    folder: RunFolder,
    transitions: Sequence[StepRecord],
    sizes: npt.NDArray[np.int64],
    elapsed_seconds: float,
) -> dict[str, Any]:
    """What lies beside a joined video: pictures of its seams, reports, the timeline for other editors."""
    home, video = folder.join(join.name), folder.joined_output(join.name)
    tracks = track_offsets(video)
    page, seams, papers = ReportPage(timeline.format.rate), [], []
    for transition, record in zip(join.transitions, transitions, strict=True):
        view, sheet = view_seam(timeline, join, transition, video), folder.contact_sheet(join, transition)
        write_contact_sheet(view, sheet)
        page.add(view, sheet)
        step = hear_seam(timeline, view, video) if tracks else None
        seams.append(SeamReport(record.notes, record.attempts, view.score, view.unscored, step))
        papers.append(sheet)
    report = join_report(timeline, join, seams, tracks, sizes, elapsed_seconds)
    texts = {
        home / "report.json": json.dumps(report, indent=2),
        folder.report_page(join.name): page.render(report),
        home / "timeline.otio": otio.adapters.write_to_string(join_timeline(timeline, join, folder)),
    }
    for path, text in texts.items():
        _write_text(path, text)
    if folder.url:
        for paper in (*papers, *texts):
            upload(paper, folder.location(paper), access_to(folder.url))
    return report


def _write_text(path: Path, text: str) -> None:
    with atomic_output(path) as partial_path:
        partial_path.write_text(text + "\n")
