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
from tests import patient_model
from tests.conftest import ROOT, PrefectServer, end_worker
from tests.footage import make_clip, read_codes

DEADLINE_SECONDS = 150


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, as the worker's machine has it."""
    folder = tmp_path_factory.mktemp("checkout")
    for room in ("flows", "tasks", "splice"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def worker(prefect_server: PrefectServer, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The deployment ``join-clips/prod`` as ``prefect.yaml`` has it, and a stock worker of its pool."""
    home, models = tmp_path_factory.mktemp("worker"), tmp_path_factory.mktemp("models")
    patient_model.install(models)
    environment = {
        **prefect_server.environment,
        "PYTHONPATH": str(models),
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
    try:
        yield
    finally:
        end_worker(process)


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


def is_final(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def ended(run: FlowRun) -> FlowRun:
    def final() -> FlowRun | None:
        now = refreshed(run)
        return now if is_final(now) else None

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
def test_of_two_submissions_at_once_one_works(numbered_clips: list[Path], tmp_path: Path) -> None:
    held_up = {"model": "patient", "prompt": str(tmp_path / "go")}
    runs = [submit(numbered_clips[:2], "deployed-at-once", tmp_path, **held_up) for _ in range(2)]
    until(lambda: any(is_final(refreshed(run)) for run in runs), "the end of the second")
    (tmp_path / "go").touch()

    refused, worked = sorted(map(ended, runs), key=lambda run: str(run.state and run.state.name))
    assert [run.state.name for run in (refused, worked) if run.state] == ["AlreadyInProgress", "Completed"]
    assert worked.name in str(refused.state and refused.state.message)
    assert executed(refused) == set()


@pytest.mark.usefixtures("worker")
def test_a_run_whose_process_was_killed_goes_on(
    prefect_server: PrefectServer, numbered_clips: list[Path], tmp_path: Path
) -> None:
    other = make_clip(tmp_path / "other.mp4", clip_id=1, frame_count=20, size=(208, 120))
    clips = [numbered_clips[0], other, numbered_clips[2]]
    held_up = {"per_join_settings": [{}, {"model": "patient", "prompt": str(tmp_path / "go")}]}
    first = submit(clips, "deployed-killed", tmp_path, **held_up)
    records = prefect_server.storage / "join-clips" / "deployed-killed"
    until(lambda: list(records.glob("join_0-*")), "the record of the first join")
    os.kill(first_process(first), signal.SIGKILL)
    crashed = ended(first)
    assert crashed.state and crashed.state.is_crashed()

    (tmp_path / "go").touch()
    second = ended(submit(clips, "deployed-killed", tmp_path, **held_up))
    assert second.state and second.state.is_completed(), second.state
    done = executed(second, "join_1")
    assert "join_1" in done and not {"join_0", "clip_1_body", "join_0_transition"} & done
    codes = read_codes(RunFolder.of(str(tmp_path), "deployed-killed").joined_output("join_1"))
    assert len(codes) == 30 + 5 + 20 + 5 + 28
    assert codes[:30] == [(0, n) for n in range(30)] and codes[-28:] == [(2, n) for n in range(28)]


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
