"""The flow ``generate-transition``: one seam on a machine of the GPU pool, which never sees the footage."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from splice.errors import RecipeMismatch
from splice.layout import RunFolder
from splice.recipe import recipe_version
from splice.records import StepRecord
from splice.storage import is_remote
from tasks.window import fetch_handles, publish_window, recall_window, render_window, window_key


@flow(name="generate-transition", flow_run_name="{run_id} seam {join_index}")
def generate_transition(
    handles: str, window: str, model: str, recipe: str, run_id: str, join_index: int
) -> State[dict[str, Any]]:
    """Render the frames of one seam. `join-clips` starts these runs; by hand, cancelling one is all there is to do.

    Args:
        handles: file with the context frames of both sides and the model's settings; a path or s3://
        window: the file to write, a path or s3://; a window that is there, and on record, is not made again
        model: name of the transition model
        recipe: version of the code that asks; by any other than this one the seam is not made
        run_id: of the run of join-clips that the seam is for
        join_index: which of its seams this is
    """
    if recipe != recipe_version():
        raise RecipeMismatch(
            f"seam {join_index} is asked for by {recipe}, here is {recipe_version()}; bring every machine to the same "
            f"version, and start its workers again"
        )
    key = window_key(run_id, join_index, window, model, recipe)
    record = recall_window(key, window)
    if record is None:
        record = make_window(key, handles, window, model)
    (output,) = record.outputs
    get_run_logger().info("seam %d: %d frames, %.1f MB: %s", join_index, output.frames, output.size_bytes / 1e6, window)
    return Completed(message=f"{output.frames} frames: {window}", data=record.model_dump(mode="json"))


def make_window(key: str, handles: str, window: str, model: str) -> StepRecord:
    """Render a window in its place, or in a temporary folder where its place is elsewhere, and keep its record."""
    with TemporaryDirectory(prefix="join-clips-") as scratch:
        elsewhere = RunFolder(Path(scratch), url=window.rpartition("/")[0])
        folder = elsewhere if is_remote(window) else RunFolder(Path(window).parent)
        rendered = folder.local(window)
        made = render_window(fetch_handles(handles, Path(scratch)), rendered, model)
        return publish_window.with_options(refresh_cache=True)(key, folder, rendered, made)
