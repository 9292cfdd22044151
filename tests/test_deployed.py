"""``join-clips/prod`` as people run it: submitted to a server, executed by a worker; what a second submission does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from splice.layout import RunFolder
from tests.conftest import ROOT, PrefectServer
from tests.footage import make_clip, read_codes

DEADLINE_SECONDS = 150


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, as the worker's machine has it."""
    folder = tmp_path_factory.mktemp("checkout")
    for room in ("flows", "tasks", "splice"):
        shutil.copytree(ROOT / room, folder / room)
    return folder


@pytest.fixture(scope="module")
def worker(prefect_server: PrefectServer, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The deployment ``join-clips/prod`` as ``prefect.yaml`` has it, and a stock worker of its pool."""
    home = tmp_path_factory.mktemp("worker")
    environment = {
        **prefect_server.environment,
        "JOIN_CLIPS_HOME": str(checkout),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for command in (
        ["work-pool", "create", "cpu", "--type", "process", "--overwrite"],
        ["deploy", "--name", "join-clips/prod"],
    ):
        subprocess.run([*prefect, *command], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    with (home / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [*prefect, "worker", "start", "--pool", "cpu"], cwd=home, env=environment, stdout=log, stderr=log
        )
    yield
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=60)
    finally:
        process.kill()


def submit(clips: list[Path], run_id: str, base: Path, **settings: Any) -> FlowRun:
    parameters = {
        "clip_list": [{"url": str(clip)} for clip in clips],
        "run_id": run_id,
        "model": "crossfade",
        "gap_frame_count": 5,
        "gpu_deployment": None,
        "output_base_dir": str(base),
        **settings,
    }
    return run_deployment("join-clips/prod", parameters=parameters, timeout=0)  # type: ignore[return-value]


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {DEADLINE_SECONDS} s"
        time.sleep(0.1)
    return found


def refreshed(run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def ended(run: FlowRun) -> FlowRun:
    def final() -> FlowRun | None:
        now = refreshed(run)
        return now if now.state and now.state.is_final() else None

    found: FlowRun = until(final, f"the end of {run.name}")
    return found


def executed(run: FlowRun, *wanted: str) -> set[str]:
    """Names of the steps that the run did itself, none of them from a record; the server learns a moment later."""

    def names() -> set[str]:
        with get_client(sync_client=True) as client:
            tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        return {task.name for task in tasks if task.state and task.state.name == "Completed"}

    if wanted:
        until(lambda: set(wanted) <= names(), f"news of {wanted}")
    return names()


def logged(run: FlowRun) -> list[str]:
    with get_client(sync_client=True) as client:
        return [log.message for log in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))]


def first_process(run: FlowRun) -> int:
    """The process that executes a run; the worker notes it as host:pid or pid."""
    text: str = until(lambda: refreshed(run).infrastructure_pid, "a process of the run")
    return int(text.rpartition(":")[2])


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips that have to be conformed to the first one's size, which takes seconds; the last one takes longest."""
    folder = tmp_path_factory.mktemp("long")
    shapes = [((192, 108), 150), ((1280, 720), 150), ((1280, 720), 600)]
    return [
        make_clip(folder / f"{index}.mp4", clip_id=index, frame_count=frame_count, size=size)
        for index, (size, frame_count) in enumerate(shapes)
    ]


@pytest.mark.usefixtures("worker")
def test_a_finished_run_is_not_done_again(numbered_clips: list[Path], tmp_path: Path) -> None:
    first = ended(submit(numbered_clips[:3], "deployed-twice", tmp_path))
    output = RunFolder.of(str(tmp_path), "deployed-twice").joined_output("join_1")
    assert first.state and first.state.is_completed() and str(output) in str(first.state.message)
    assert "run_id:deployed-twice" in first.tags and "deployed-twice" in first.name
    before = output.stat()

    second = ended(submit(numbered_clips[:3], "deployed-twice", tmp_path))
    assert second.state and second.state.is_completed() and "Already finished" in str(second.state.message)
    assert executed(second) == set() and output.stat().st_mtime_ns == before.st_mtime_ns

    other = ended(submit(numbered_clips[:3], "deployed-twice", tmp_path, gap_frame_count=6))
    assert other.state and other.state.is_failed() and "gap_frame_count was 5" in str(other.state.message)
    moved = ended(submit(numbered_clips[:3], "deployed-twice", tmp_path / "elsewhere"))
    assert moved.state and moved.state.is_failed() and "output_base_dir" in str(moved.state.message)
    assert not (tmp_path / "elsewhere").exists()

    output.unlink()
    again = ended(submit(numbered_clips[:3], "deployed-twice", tmp_path))
    assert again.state and again.state.is_completed()
    assert executed(again, "join_1") & {"join_0", "join_1", "join_0_transition", "join_1_transition"} == {"join_1"}


@pytest.mark.usefixtures("worker")
def test_of_two_submissions_at_once_one_works(long_clips: list[Path], tmp_path: Path) -> None:
    runs = [submit(long_clips, "deployed-at-once", tmp_path) for _ in range(2)]
    names = sorted(str(run.state.name) for run in map(ended, runs) if run.state)
    assert names == ["AlreadyInProgress", "Completed"]
    refused, worked = sorted(map(refreshed, runs), key=lambda run: str(run.state and run.state.name))
    assert worked.name in str(refused.state and refused.state.message)
    assert executed(refused) == set()


@pytest.mark.usefixtures("worker")
def test_a_run_whose_process_was_killed_goes_on(
    prefect_server: PrefectServer, long_clips: list[Path], tmp_path: Path
) -> None:
    first = submit(long_clips, "deployed-killed", tmp_path)
    folder = RunFolder.of(str(tmp_path), "deployed-killed")
    records = prefect_server.storage / "join-clips" / "deployed-killed"
    until(lambda: list(records.glob("join_0-*")), "the record of the first join")
    os.kill(first_process(first), signal.SIGKILL)
    crashed = ended(first)
    assert crashed.state and crashed.state.is_crashed()

    second = ended(submit(long_clips, "deployed-killed", tmp_path))
    assert second.state and second.state.is_completed(), second.state
    done = executed(second, "join_1")
    assert "join_1" in done and not {"join_0", "clip_1_body", "join_0_transition"} & done
    codes = read_codes(folder.joined_output("join_1"))
    assert [code for code in codes if code is not None][:150] == [(0, n) for n in range(150)]


@pytest.mark.usefixtures("worker")
def test_after_an_upgrade_what_is_finished_stays_and_what_is_not_starts_over(
    checkout: Path, numbered_clips: list[Path], tmp_path: Path
) -> None:
    obstacle = RunFolder.of(str(tmp_path), "deployed-begun").joined_output("join_1") / "in the way"
    obstacle.mkdir(parents=True)
    done, begun = (ended(submit(numbered_clips[:3], name, tmp_path)) for name in ("deployed-done", "deployed-begun"))
    assert done.state and done.state.is_completed() and begun.state and begun.state.is_failed()
    shutil.rmtree(obstacle.parent)
    recipe = checkout / "splice" / "recipe.py"
    before = recipe.read_text()
    try:
        recipe.write_text(before.replace('RECIPE = "', 'RECIPE = "upgraded '))
        done_again, begun_again = (
            ended(submit(numbered_clips[:3], name, tmp_path)) for name in ("deployed-done", "deployed-begun")
        )
    finally:
        recipe.write_text(before)
    assert "Already finished" in str(done_again.state and done_again.state.message) and executed(done_again) == set()
    assert begun_again.state and begun_again.state.is_completed()
    assert {"join_0", "join_0_transition", "join_1"} <= executed(begun_again, "join_1")
    until(lambda: any("begun by another recipe" in each for each in logged(begun_again)), "news of the other recipe")
