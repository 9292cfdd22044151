"""Seams on a pool, with a real server, a deployment, and stock process workers that share no home with their parent."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterTags,
    LogFilter,
)
from prefect.client.schemas.filters import LogFilterFlowRunId as OfFlowRun
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, State
from prefect.utilities.annotations import quote
from prefect.workers.process import ProcessWorker

from flows.generate_transition import generate_transition as generate_window
from splice.errors import RequestError
from splice.handles import write_handles
from splice.layout import RunFolder
from splice.media import PARTIAL_PREFIX
from splice.models.loaded import loaded_model
from splice.models.protocol import TransitionModel
from splice.recipe import recipe_version, step_digests
from splice.records import StepRecord
from splice.types import Timeline
from tasks import pool
from tasks.pool import cancel_children, generate_on_pool
from tasks.progress import interrupted
from tasks.records import record_key
from tasks.steps import generate_transition
from tests.conftest import ROOT, PrefectServer, end_worker
from tests.footage import make_clip
from tests.s3_server import S3Server, run_s3_server
from tests.test_handles import Broken, Noise, plan

pytestmark = pytest.mark.usefixtures("prefect_server", "models")

DEADLINE_SECONDS = 150
BUCKET = "seams"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package that adds models, installed for this process and for whoever has the folder on its path."""
    folder = tmp_path_factory.mktemp("models")
    package = folder / "more_models-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: more-models\nVersion: 1.0\n")
    points = [
        "[join_clips.transition_models]",
        "noise = tests.test_handles:Noise",
        "broken = tests.test_handles:Broken",
    ]
    (package / "entry_points.txt").write_text("\n".join(points))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@contextmanager
def parents() -> Iterator[Callable[..., Future[State[StepRecord]]]]:
    """Starts parents in threads; whatever happens in the block, none of them waits on when it ends."""
    with ThreadPoolExecutor() as threads:
        try:
            # Prefect's settings are part of a thread's context.
            yield lambda *arguments: threads.submit(contextvars.copy_context().run, on_pool, *arguments)
        finally:
            interrupted.set()
    interrupted.clear()


@contextmanager
def working(
    pool_name: str, server: PrefectServer, home: Path, models: Path, more: dict[str, str] | None = None
) -> Iterator[None]:
    """A stock worker of the pool while the block runs, with a working directory and a home of its own."""
    home.mkdir()
    environment = {
        **server.environment,
        **(more or {}),
        "PREFECT_HOME": str(home),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(models),
    }
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool_name, "--type", "process"]
    with (home / "worker.log").open("w") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        end_worker(process)


def deploy(pool_name: str) -> str:
    """The flow on a pool of that name; its full name."""
    with get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        new = WorkPoolCreate(name=pool_name, type="process", base_job_template=template)
        client.create_work_pool(new)
    source = generate_window.from_source(
        source=str(ROOT), entrypoint="flows/generate_transition.py:generate_transition"
    )
    source.deploy(
        name=pool_name, work_pool_name=pool_name, build=False, push=False, print_next_steps=False, ignore_warnings=True
    )  # type: ignore[union-attr]
    return f"generate-transition/{pool_name}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.client.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(scope="module")
def deployment(
    prefect_server: PrefectServer, s3: S3Server, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The flow deployed on a pool that a worker serves."""
    name = deploy("served")
    with working("served", prefect_server, tmp_path_factory.mktemp("worker") / "home", models, s3.environment):
        yield name


@pytest.fixture(scope="module")
def idle(prefect_server: PrefectServer) -> str:
    """The flow deployed on a pool that nobody serves."""
    return deploy("idle")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    formats = {"pixel_format": "yuv420p10le"}
    return [make_clip(folder / f"{i}.mp4", clip_id=i, frame_count=14, **formats) for i in range(2)]


def run(step: Any, timeline: Timeline, base: str, run_id: str, name: str, /, **more: Any) -> State[StepRecord]:
    """Run the step that makes the last seam as a flow does."""

    @flow(name="parent", flow_run_name=name)
    def parent() -> Any:
        (*_, seam) = timeline.transitions
        name = f"join_{seam.join}_transition"
        key = record_key(run_id, name, step_digests(timeline)[name])
        return step.submit(key, quote(timeline), seam.join, RunFolder.of(base, run_id), **more).result()

    state: State[StepRecord] = parent(return_state=True)
    return state


def on_pool(timeline: Timeline, base: str, run_id: str, deployment: str, name: str = "parent") -> State[StepRecord]:
    return run(generate_on_pool, timeline, base, run_id, name, deployment=deployment, run_id=run_id)


def children(run_id: str) -> list[FlowRun]:
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"run_id:{run_id}"]))
    # Runs of join-clips in other tests carry such tags as well.
    of_seams = FlowFilter(name=FlowFilterName(any_=["generate-transition"]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=of_seams, flow_run_filter=wanted)


def states(run_id: str) -> list[str]:
    return sorted(str(child.state and child.state.name) for child in children(run_id))


def logs(*names: str) -> list[str]:
    """What the flow runs of those names have logged so far, as the server has it."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=list(names))))
        wanted = LogFilter(flow_run_id=OfFlowRun(any_=[each.id for each in found]))
        return [log.message for log in client.read_logs(wanted)] if found else []


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {DEADLINE_SECONDS} s"
        time.sleep(0.2)


def units(timeline: Timeline, base: str, run_id: str) -> list[bytes]:
    folder = RunFolder.of(base, run_id)
    return [folder.unit(piece).read_bytes() for piece in timeline.pieces_of(timeline.transitions[-1])]


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_the_pool_makes_the_units_that_one_process_makes(
    clips: list[Path], tmp_path: Path, deployment: str, s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**s3.environment, "JOIN_CLIPS_WORK_DIR": str(tmp_path / "work")}.items():
        monkeypatch.setenv(name, value)
    # The last seam of a loop is two units.
    timeline, here = plan(clips, Noise(), loop=True, replace_mode=True), str(tmp_path / "inline")
    there = str(tmp_path / "remote") if place == "folder" else f"s3://{BUCKET}/out"
    inline = run(generate_transition, timeline, here, f"{place}-inline", "inline").result()
    remote = on_pool(timeline, there, place, deployment).result()
    expected = units(timeline, here, f"{place}-inline")
    assert units(timeline, there, place) == expected and len(expected) == 2
    assert [output.sha256 for output in remote.outputs] == [output.sha256 for output in inline.outputs]
    assert remote.notes == inline.notes and remote.notes["shown"]

    (child,) = children(place)
    assert child.name == f"{place} seam 1" and child.state and child.state.name == "Completed"
    assert child.parent_task_run_id, "Prefect's UI shows a child inside its parent"
    assert not list(tmp_path.rglob("*.mkv")), "handles and window are of no use any more"


def test_what_may_not_be_deleted_costs_no_seam(
    clips: list[Path], tmp_path: Path, deployment: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**s3.environment, "JOIN_CLIPS_WORK_DIR": str(tmp_path / "work")}.items():
        monkeypatch.setenv(name, value)

    def refuse(url: str, access: Any) -> None:
        raise RequestError(f"{url}: refused")

    monkeypatch.setattr(pool, "remove", refuse)
    made = on_pool(plan(clips, Noise()), f"s3://{BUCKET}/out", "undeletable", deployment)
    assert made.is_completed() and states("undeletable") == ["Completed"]


def test_the_gate_chooses_on_the_pool_as_it_does_in_one_process(
    clips: list[Path], tmp_path: Path, deployment: str
) -> None:
    timeline = plan(clips, Noise(), loop=True, max_seam_score=0, quality_retries=2)
    here, there = str(tmp_path / "inline"), str(tmp_path / "remote")
    inline = run(generate_transition, timeline, here, "gate-inline", "inline").result()
    remote = on_pool(timeline, there, "gate", deployment).result()
    assert units(timeline, there, "gate") == units(timeline, here, "gate-inline")
    assert remote.attempts == inline.attempts
    assert len({attempt.seed for attempt in remote.attempts}) == 3 and all(each.score for each in remote.attempts)
    assert states("gate") == ["Completed"] * 3
    assert not list(tmp_path.rglob("*.mkv")) and not list(tmp_path.rglob(f"{PARTIAL_PREFIX}*"))


def test_a_child_that_fails_ends_the_step_with_its_reason(clips: list[Path], tmp_path: Path, deployment: str) -> None:
    timeline = plan(clips, Broken())
    failed = on_pool(timeline, str(tmp_path), "broken", deployment)
    assert failed.is_failed()
    reason = str(failed.result(raise_on_failure=False))
    assert "run 'broken seam 0' of generate-transition/served failed" in reason
    assert "broken rendered 2 frames, needed are 6" in reason
    assert states("broken") == ["Failed"], "only what may pass is tried again"


def test_without_a_worker_the_run_says_so_and_a_live_child_is_not_doubled(
    clips: list[Path],
    tmp_path: Path,
    prefect_server: PrefectServer,
    models: Path,
    idle: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "IDLE_POOL_SECONDS", 2.0)
    timeline = plan(clips, Noise())
    with parents() as start:
        first = start(timeline, str(tmp_path), "shared", idle, "first parent")
        until(lambda: len(children("shared")) == 1, "the child run")
        second = start(timeline, str(tmp_path), "shared", idle, "second parent")
        until(lambda: "seam 0: run 'shared seam 0' is under way already" in logs("second parent"), "the attachment")
        warned = (
            "seam 0 waits for work pool idle: no worker of it is online; start one: prefect worker start --pool idle"
        )
        until(lambda: warned in logs("first parent", "second parent"), "the warning")
        assert states("shared") in (["Late"], ["Scheduled"])

        # A child that is cancelled under its parents is started again, once for both.
        assert cancel_children("shared") == 1
        until(lambda: len(children("shared")) == 2, "another child run")
        with working("idle", prefect_server, tmp_path / "home", models):
            assert first.result(DEADLINE_SECONDS).is_completed() and second.result(DEADLINE_SECONDS).is_completed()
    assert states("shared") == ["Cancelled", "Completed"]
    assert logs("first parent", "second parent").count(warned) == 1


def test_a_run_that_is_told_to_end_takes_its_children_along(clips: list[Path], tmp_path: Path, idle: str) -> None:
    with parents() as start:
        start(plan(clips, Noise()), str(tmp_path), "told-to-end", idle)
        until(lambda: len(children("told-to-end")) == 1, "the child run")
    assert states("told-to-end") == ["Cancelled"]


def test_only_the_run_at_work_takes_the_children_along(clips: list[Path], tmp_path: Path, idle: str) -> None:
    with parents() as start, get_client(sync_client=True) as client:
        start(plan(clips, Noise()), str(tmp_path), "twice", idle)
        until(lambda: len(children("twice")) == 1, "the child run")
        joining = flow(lambda run_id: None, name="joining")
        second, first = (
            client.create_flow_run(joining, parameters={"run_id": "twice"}, tags=tags) for tags in ([], ["at-work:x"])
        )
        pool.cancel_children_of(joining, second, Cancelling())
        assert states("twice") in (["Late"], ["Scheduled"])
        pool.cancel_children_of(joining, first, Cancelling())
        until(lambda: "Cancelled" in states("twice"), "the end of the child")


def test_a_deployment_that_is_not_there_is_named(clips: list[Path], tmp_path: Path) -> None:
    failed = on_pool(plan(clips, Noise()), str(tmp_path), "nowhere", "generate-transition/nowhere")
    assert failed.is_failed()
    assert "generate-transition/nowhere is not on this server" in str(failed.result(raise_on_failure=False))


@pytest.fixture
def order(clips: list[Path], tmp_path: Path) -> dict[str, Any]:
    """What the pool is asked for: handles of a seam, and where its window goes."""
    timeline = plan(clips, Noise())
    write_handles(timeline, timeline.transitions[0], tmp_path / "handles.mkv")
    places = {"handles": str(tmp_path / "handles.mkv"), "window": str(tmp_path / "window.mkv")}
    return {**places, "model": "noise", "recipe": recipe_version(), "run_id": "ordered", "join_index": 0}


def test_another_recipe_is_refused(order: dict[str, Any], tmp_path: Path) -> None:
    state = generate_window(**{**order, "recipe": "recipe 0"}, return_state=True)
    assert state.is_failed() and "RecipeMismatch: seam 0 is asked for by recipe 0, here is recipe" in str(state.message)
    assert not (tmp_path / "window.mkv").exists()


def test_a_window_is_rendered_once_by_a_model_that_is_loaded_once(
    order: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[TransitionModel] = []
    render = Noise.render

    def count(model: Noise, *arguments: Any) -> Any:
        models.append(model)
        return render(model, *arguments)

    monkeypatch.setattr(loaded_model("noise").__class__, "render", count)
    first = generate_window(**order)
    written = (tmp_path / "window.mkv").stat()
    assert generate_window(**order) == first and (tmp_path / "window.mkv").stat() == written
    assert len(models) == 1

    # A window that was changed or deleted is made again, and so is one for another place, by the same model.
    (tmp_path / "window.mkv").write_bytes(b"damaged")
    assert generate_window(**order) == first
    other = generate_window(**{**order, "window": str(tmp_path / "other.mkv")})
    assert (tmp_path / "other.mkv").read_bytes() == (tmp_path / "window.mkv").read_bytes()
    assert other["outputs"][0]["sha256"] == first["outputs"][0]["sha256"]
    assert len(models) == 3 and len(set(map(id, models))) == 1
