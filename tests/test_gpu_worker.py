"""The warm worker on a real server, with real processes: the model stays loaded, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling
from prefect.workers.process import ProcessWorker

from tests.conftest import ROOT, PrefectServer

DEADLINE_SECONDS = 120
PROMPT_SECONDS = 10
"""In which a cancelled run's process must be gone, and a crash on the server, also while the machine is busy."""
FLOWS = "tests/warm_flows.py"


@dataclass(frozen=True)
class Facts:
    """What a run of ``warm_flows`` says of the process that ran it."""

    pid: int
    loads: int
    gpu: str
    job: str

    @classmethod
    def of(cls, run: FlowRun) -> Facts:
        assert run.state is not None and run.state.is_completed(), f"{run.name}: {run.state}"
        pid, loads, gpu, job = str(run.state.message).split()
        return cls(int(pid), int(loads), gpu, job)


@dataclass(frozen=True)
class Worker:
    process: subprocess.Popen[bytes]
    pool: str
    log: Path


@contextmanager
def started(server: PrefectServer, log: Path, pool: str, limit: int = 1, **variables: str) -> Iterator[Worker]:
    """A warm worker of a pool of type process, which is made where there is none."""
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template), overwrite=True)
    command = [sys.executable, "-m", "deployments.gpu_worker", "--pool", pool, "--limit", str(limit)]
    environment = {**server.environment, "PYTHONUNBUFFERED": "", **variables}
    with log.open("w") as file:
        # With SIGINT ignored, as a shell script's & does it.
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT && exec "$@"', "sh", *command],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: "started!" in log.read_text(), "start of the worker")
        yield Worker(process, pool, log)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=90)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def worker(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp("worker") / "log"
    with started(prefect_server, log, "warm", CUDA_VISIBLE_DEVICES="0") as worker:
        yield worker


@dataclass(frozen=True)
class Held:
    worker: Worker
    run: FlowRun
    pid: int
    since: float


@pytest.fixture(scope="module")
def behind_the_gil(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """A run in native code that never lets go of the GIL, and its worker."""
    folder = tmp_path_factory.mktemp("native")
    with started(prefect_server, folder / "log", "native", PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30") as worker:
        run = submit(deploy("native", f"{FLOWS}:hold"), marker=str(folder / "held"), how="native")
        pid = held(folder / "held")
        yield Held(worker, run, pid, time.time())


def deploy(pool: str, entrypoint: str, folder: Path = ROOT, **more: Any) -> UUID:
    name = entrypoint.rpartition(":")[2]
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name(f"{pool}-{name}")
        return client.create_deployment(
            flow_id, name, entrypoint=entrypoint, pull_steps=[step], work_pool_name=pool, **more
        )


def submit(deployment: UUID, job: dict[str, Any] | None = None, **parameters: Any) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployment, parameters=parameters, job_variables=job)


def run(pool: str, flow_name: str, **parameters: Any) -> FlowRun:
    return ended(submit(deploy(pool, f"{FLOWS}:{flow_name}"), **parameters))


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {DEADLINE_SECONDS} s"
        time.sleep(0.05)
    return found


def ended(run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        return until(
            lambda: now if (now := client.read_flow_run(run.id)).state and now.state.is_final() else None,
            f"end of {run.name}",
        )


def cancel(run: FlowRun, pid: int) -> float:
    """Ask for it, and wait until the run is Cancelled; the seconds until its process was gone."""
    asked = time.monotonic()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling())
    until(lambda: not is_alive(pid), f"end of process {pid}")
    took = time.monotonic() - asked
    state = ended(run).state
    with get_client(sync_client=True) as client:
        names = [state.name for state in client.read_flow_run_states(run.id)]
    # A parent that saw it crash in between would try again.
    assert state and state.is_cancelled() and "Crashed" not in names, names
    return took


def held(marker: Path) -> int:
    """The process that a run of ``hold`` is in, once it is."""
    return int(until(lambda: marker.exists() and marker.read_text(), "start of the run"))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def overlap(runs: Sequence[FlowRun]) -> int:
    """How many of the runs were in the making at once, at most."""
    starts = [(run.start_time, 1) for run in runs if run.start_time]
    ends = [(run.end_time, -1) for run in runs if run.end_time]
    at_once = most = 0
    for _, change in sorted(starts + ends):
        at_once += change
        most = max(most, at_once)
    return most


@flow
def parent(child: UUID, count: int) -> list[UUID]:
    """Its seams, all at once."""
    return [run_deployment(child, timeout=0).id for _ in range(count)]  # type: ignore[union-attr]


def children(child: UUID, count: int) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return [ended(client.read_flow_run(run)) for run in parent(child, count)]


@pytest.mark.usefixtures("behind_the_gil")  # the first of its tests has to wait for half a minute from here
def test_twenty_runs_of_two_parents_load_the_model_once(worker: Worker) -> None:
    use_model = deploy("warm", f"{FLOWS}:use_model")

    runs = children(use_model, 10) + children(use_model, 10)

    found = {Facts.of(run) for run in runs}
    assert len(runs) == 20 and len(found) == 1, found
    assert found.pop().loads == 1
    assert overlap(runs) == 1, "limit 1"
    until(lambda: "used the model of process" in logs_of(runs[0]), "line of the flow on the server")
    assert "used the model of process" in worker.log.read_text()
    assert "printed by the flow" in worker.log.read_text()


def meeting_in(folder: Path) -> str:
    """A place where runs wait for each other, so that they are at work at once however slow the machine is."""
    (folder / "meeting").mkdir()
    return str(folder / "meeting")


def logs_of(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    return "\n".join(line.message for line in logs)


def test_a_cancelled_run_stops(worker: Worker, tmp_path: Path) -> None:
    holding = submit(deploy("warm", f"{FLOWS}:hold"), marker=str(tmp_path / "held"))
    pid = held(tmp_path / "held")

    assert cancel(holding, pid) < PROMPT_SECONDS
    assert (tmp_path / "held.hooks").read_text() == "Cancelling "


def test_a_crash_is_reported_at_once_and_the_next_run_gets_a_fresh_process(worker: Worker, tmp_path: Path) -> None:
    hold = deploy("warm", f"{FLOWS}:hold")
    holding = submit(hold, marker=str(tmp_path / "held"))
    os.kill(held(tmp_path / "held"), signal.SIGKILL)
    killed = time.time()
    faulty = submit(hold, marker=str(tmp_path / "faulty"), how="crash")

    state = ended(holding).state
    assert state and state.is_crashed() and "-9" in str(state.message), state
    assert state.timestamp.timestamp() - killed < PROMPT_SECONDS
    until(lambda: (tmp_path / "held.hooks").exists(), "hook of the crashed run")
    state = ended(faulty).state
    assert state and state.is_crashed() and "-11" in str(state.message), state
    assert Facts.of(run("warm", "use_model")).loads == 1


def test_a_process_whose_gpu_may_be_poisoned_is_not_used_again(worker: Worker) -> None:
    before = Facts.of(run("warm", "use_model")).pid

    for fail, message, is_same in (
        ("own", "a seam that can't be made", True),
        ("foreign", "something unforeseen", False),
        ("cuda", "no frames came", False),
    ):
        state = run("warm", "use_model", fail=fail).state
        assert state and state.is_failed() and message in str(state.message), state
        after = Facts.of(run("warm", "use_model")).pid
        assert (after == before) == is_same, fail
        before = after


def test_a_run_that_asks_for_another_environment_gets_its_own_process(worker: Worker) -> None:
    plain = deploy("warm", f"{FLOWS}:use_model")

    first = Facts.of(ended(submit(plain)))
    other = Facts.of(ended(submit(plain, job={"env": {"WARM_JOB": "night"}})))
    last = Facts.of(ended(submit(plain)))

    assert [first.job, other.job, last.job] == ["None", "night", "None"]
    assert len({first.pid, other.pid, last.pid}) == 3


def test_a_flow_that_cant_be_loaded_is_a_crash_that_says_why(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import a_module_that_is_nowhere\n")
    broken = ended(submit(deploy("warm", "broken.py:flow", tmp_path)))
    assert broken.state and broken.state.is_crashed(), broken.state
    until(lambda: "a_module_that_is_nowhere" in logs_of(broken), "reason in the run's own logs")


RECIPE_FLOW = """
import os
from prefect import flow
from prefect.states import Completed
from splice.errors import RecipeMismatch
from splice.recipe import recipe_version

@flow
async def seam(recipe):
    if recipe != recipe_version():
        raise RecipeMismatch(f"asked for {recipe}, here is {recipe_version()}")
    return Completed(message=f"{os.getpid()} 0 - -")
"""


def test_an_upgrade_on_disk_is_loaded_when_a_run_asks_for_it(worker: Worker, tmp_path: Path) -> None:
    core = tmp_path / "splice"
    core.mkdir()
    (core / "errors.py").write_text("class SpliceError(Exception): ...\nclass RecipeMismatch(SpliceError): ...\n")
    (core / "recipe.py").write_text("def recipe_version(): return 'old'")
    (tmp_path / "flow.py").write_text(RECIPE_FLOW)
    seam = deploy("warm", "flow.py:seam", tmp_path)

    old = [Facts.of(ended(submit(seam, recipe="old"))).pid for _ in range(2)]
    (core / "recipe.py").write_text("def recipe_version(): return 'newer'")
    assert Facts.of(ended(submit(seam, recipe="old"))).pid == old[0], "still the code that it has loaded"
    newer = Facts.of(ended(submit(seam, recipe="newer"))).pid
    unknown = ended(submit(seam, recipe="nowhere")).state

    assert old[0] == old[1] != newer
    assert unknown and unknown.is_failed() and "asked for nowhere, here is newer" in str(unknown.message), unknown


def test_two_workers_share_the_seams_of_one_run(worker: Worker, prefect_server: PrefectServer, tmp_path: Path) -> None:
    with started(prefect_server, tmp_path / "log", "warm", CUDA_VISIBLE_DEVICES="1"):
        runs = children(deploy("warm", f"{FLOWS}:use_model", parameters={"meeting": meeting_in(tmp_path)}), 8)

    found = {Facts.of(run) for run in runs}
    assert {(facts.gpu, facts.loads) for facts in found} == {("0", 1), ("1", 1)}, "each worker its GPU, one load each"
    assert len(found) == 2 and overlap(runs) <= 2


def test_a_worker_of_two_slots_has_two_children_and_takes_them_along(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    with started(prefect_server, tmp_path / "log", "pair", limit=2) as worker:
        runs = children(deploy("pair", f"{FLOWS}:use_model", parameters={"meeting": meeting_in(tmp_path)}), 4)
        used = {Facts.of(run).pid for run in runs}
        hold, markers = deploy("pair", f"{FLOWS}:hold"), [tmp_path / "first", tmp_path / "second"]
        holding = [submit(hold, marker=str(marker)) for marker in markers]
        holders = {held(marker) for marker in markers}
        assert not any(is_alive(pid) for pid in used), "two gave way to two"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(timeout=90) == 0

    assert len(used) == len(holders) == 2 >= overlap(runs)
    assert not any(is_alive(pid) for pid in holders)
    states = [ended(run).state for run in holding]
    assert all(state and state.is_crashed() for state in states), states


def test_native_code_that_keeps_the_gil_neither_silences_a_run_nor_outlives_cancelling(
    behind_the_gil: Held,
) -> None:
    run, since = behind_the_gil.run, behind_the_gil.since

    until(lambda: any(beat > since for beat in heartbeats(run)), "heartbeat")
    assert cancel(run, behind_the_gil.pid) < PROMPT_SECONDS


def test_a_killed_worker_takes_its_child_along_even_from_native_code(behind_the_gil: Held, tmp_path: Path) -> None:
    submit(deploy("native", f"{FLOWS}:hold"), marker=str(tmp_path / "held"), how="native")
    pid = held(tmp_path / "held")

    behind_the_gil.worker.process.kill()

    until(lambda: not is_alive(pid), "end of the child")


def heartbeats(run: FlowRun) -> list[float]:
    """When the server was told that the run is alive."""
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50})
    return [datetime.fromisoformat(event["occurred"]).timestamp() for event in answer.json()["events"]]
