"""What a machine of the pool does for one seam: handles in, window out."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from prefect import get_run_logger, task
from splice.handles import Window, render_handles
from splice.layout import RunFolder
from splice.models.loaded import loaded_model
from splice.records import StepRecord, publish_file
from splice.storage import download, is_remote

from tasks.access import access_to
from tasks.records import read_record, record_key
from tasks.retry import RETRY
from tasks.steps import STEP


def window_key(run_id: str, join_index: int, window: str, model: str, recipe: str) -> str:
    """Where the record of a window is kept. Its place is part of it, and holds the digest of what it is made of."""
    digest = hashlib.sha256("\n".join((window, model, recipe)).encode()).hexdigest()[:32]
    return record_key(run_id, f"join_{join_index}_window", digest)


def recall_window(key: str, window: str) -> StepRecord | None:
    """The record of a window that is there, and unchanged."""
    record = read_record(key, StepRecord)
    is_here = record is not None and all(
        output.path == window and output.is_intact(access_to(window)) for output in record.outputs
    )
    return record if is_here else None


@task(**RETRY, name="fetch-handles")
def fetch_handles(handles: str, scratch: Path) -> Path:
    """The handles on this machine: where they are, or downloaded into ``scratch``."""
    if not is_remote(handles):
        return Path(handles)
    download(handles, scratch / "handles.mkv", access_to(handles))
    return scratch / "handles.mkv"


@task(name="render-window")
def render_window(handles: Path, window: Path, model: str) -> Window:
    """Let the model, which this process loads once, render a seam."""
    started = time.monotonic()
    made = render_handles(handles, window, loaded_model(model))
    get_run_logger().info("%d frames by %s in %.1f s", made.frames, model, time.monotonic() - started)
    return made


@task(**STEP, name="publish-window")
def publish_window(key: str, folder: RunFolder, rendered: Path, made: Window) -> StepRecord:
    """Upload a window, if it was not rendered in its place, and keep its record."""
    output = publish_file(folder, rendered, made.frames, access_to(folder.url))
    return StepRecord(outputs=(output,), notes=made.notes)
