"""The warm worker beside the stock ways to keep a model loaded: ``python -m bench.pools``.

Prints one table, and writes it to ``bench/results/pools.md``: seconds per seam, from the moment in which the seams are
submitted to the end of the last one, on a Prefect server and one worker of one slot, as one GPU has it. Rendering takes
no time here, so that all of it is overhead; what stands for loading a model is a sleep of 3 s in a module that stays
loaded as long as its process. Workers run already, and look for work every second.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from uuid import UUID

import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "pools.md"
POOL = "bench"
LOAD_SECONDS = 3
SEAMS = (1, 4, 16)
REPEATS = 5
"""Of the two ways that are worth comparing; the others are measured once."""

DEADLINE_SECONDS = 600

STOCK = (sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1")
WARM = (sys.executable, "-m", "deployments.gpu_worker", "--pool", POOL, "--limit", "1")

NOTE = f"""Seconds per seam beyond the rendering itself, with one worker of one slot; `python -m bench.pools`.
Loading the model is a sleep of {LOAD_SECONDS} s. {os.cpu_count()} cores. Of "a run per shard" and "model loaded" the
medians of {REPEATS}, of the others one run.

- **stock, a run per seam**: `prefect worker start`; every run is a process of its own, and loads the model.
- **stock, a run per shard**: the same worker; all seams of a video that this GPU is to make are one run, in a loop.
- **warm, model not loaded**: `python -m deployments.gpu_worker`, which has not run anything yet.
- **warm, model loaded**: the same worker, the next video.
"""


@cache
def load_model() -> None:
    time.sleep(LOAD_SECONDS)


@flow
def seams(count: int) -> None:
    """Render seams, in no time, by a model that stays loaded."""
    # Prefect runs this file anew for every run; the module that is imported stays.
    from bench.pools import load_model

    for _ in range(count):
        load_model()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as environment:
        deployment = deploy()
        rows: dict[str, list[float]] = {
            "stock, a run per seam": [],
            "stock, a run per shard": [],
            "warm, model not loaded": [],
            "warm, model loaded": [],
        }
        for count in SEAMS:
            per_seam, whole = [1] * count, [count]
            with worker(STOCK, environment, Path(folder)):
                rows["stock, a run per seam"].append(seconds(deployment, per_seam) / count)
                rows["stock, a run per shard"].append(median_seconds(deployment, whole) / count)
            with worker(WARM, environment, Path(folder)):
                rows["warm, model not loaded"].append(seconds(deployment, per_seam) / count)
                rows["warm, model loaded"].append(median_seconds(deployment, per_seam) / count)
    text = f"{NOTE}\n{table(rows)}\n"
    RESULTS.write_text(text)
    print(text)


def table(rows: Mapping[str, list[float]]) -> str:
    head = ["", *(f"{count} seam{'s' * (count > 1)}" for count in SEAMS)]
    lines = [head, ["---", *["---:"] * len(SEAMS)]]
    lines += [[name, *(f"{value:.2f}" for value in values)] for name, values in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """A Prefect server on a fresh home; the environment of whoever uses it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = (sys.executable, "-m", "prefect", "server", "start")
    with (
        process(command, {**environment, "PREFECT_SERVER_API_PORT": str(port)}, folder / "server.log"),
        temporary_settings({PREFECT_API_URL: url}),
    ):
        wait_until_healthy(url)
        yield {**environment, "PREFECT_API_URL": url, "PREFECT_WORKER_QUERY_SECONDS": "1"}


def wait_until_healthy(url: str) -> None:
    for _ in range(DEADLINE_SECONDS):
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    raise TimeoutError(f"no server at {url}")


@contextmanager
def worker(command: tuple[str, ...], environment: dict[str, str], folder: Path) -> Iterator[None]:
    log = folder / "worker.log"
    with process(command, environment, log):
        while "started!" not in log.read_text():
            time.sleep(0.2)
        yield


@contextmanager
def process(command: tuple[str, ...], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("w") as file:
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(timeout=60)


def deploy() -> UUID:
    template = ProcessWorker.get_default_base_job_template()
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        return client.create_deployment(
            client.create_flow_from_name("seams"),
            "bench",
            entrypoint="bench/pools.py:seams",
            pull_steps=[step],
            work_pool_name=POOL,
        )


def median_seconds(deployment: UUID, runs: list[int]) -> float:
    return median(seconds(deployment, runs) for _ in range(REPEATS))


def seconds(deployment: UUID, runs: list[int]) -> float:
    """From submitting runs of so many seams each to the end of the last one."""
    begun = time.time()
    with get_client(sync_client=True) as client:
        waiting = [client.create_flow_run_from_deployment(deployment, parameters={"count": count}).id for count in runs]
        ends: list[float] = []
        while waiting:
            now = client.read_flow_run(waiting[0])
            if now.state and now.state.is_final():
                if not now.state.is_completed() or now.end_time is None:
                    raise RuntimeError(f"a run that should have been measured is {now.state}")
                ends.append(now.end_time.timestamp())
                waiting.pop(0)
            elif time.time() - begun > DEADLINE_SECONDS:
                raise TimeoutError(f"{len(waiting)} of {len(runs)} runs have not ended in {DEADLINE_SECONDS} s")
            else:
                time.sleep(0.2)
    return max(ends) - begun


if __name__ == "__main__":
    main()
