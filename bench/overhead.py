"""What Prefect costs beyond the work itself: ``python -m bench.overhead``.

Starts a fleet of its own. Prints its tables and writes them to ``bench/results/overhead.md``: seconds a run and a join
beyond what the steps take as plain functions, in one process and through the pools, beside Prefect's own price of as
many tasks that do nothing; how 32 seams of a model that takes
some seconds share one and two GPU workers; threads and memory of a run of 300 seams. The server's database is SQLite,
or what ``DATABASE_URL`` names, as with ``make up``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import psutil
import typer
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.futures import wait
from prefect.logging import disable_run_logger
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)
from prefect.task_runners import ThreadPoolTaskRunner

from bench import stand_in
from bench.kill_matrix import deploy, wait_for_end, wait_until
from deployments import fleet
from flows.join_clips import join_clips
from splice.layout import RunFolder
from splice.request import parse_request
from splice.survey import local_files, plan_request
from tasks.steps import generate_transition, join_clips_child

RESULTS = Path(__file__).parent / "results" / "overhead.md"
PORT = 4296
GAP_FRAMES = 5
FEW_JOINS, MORE_JOINS = 4, 20
INLINE_REPEATS, POOL_REPEATS = 5, 1
SEAMS = 32
MANY_SEAMS = 300

Clips = list[Path]


def main() -> None:
    """Measure, print, write."""
    database = os.environ.get("DATABASE_URL", "SQLite").partition(":")[0]
    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as name:
        home = Path(name)
        os.environ["PYTHONPATH"] = stand_in.installed(home / "models")
        sys.path.append(os.environ["PYTHONPATH"])
        with fleet_in(home):
            clips = make_clips(home, MANY_SEAMS + 1)
            parts = [overheads(clips, home), share_seams(clips[: SEAMS + 1], home), measure_many(clips, home)]
    text = "\n\n".join(["`python -m bench.overhead`", *parts, f"{os.cpu_count()} cores, {database}."])
    print(text)
    RESULTS.write_text(text + "\n")


@contextmanager
def fleet_in(home: Path) -> Iterator[None]:
    own = {
        PREFECT_SERVER_API_PORT: PORT,
        PREFECT_API_URL: f"http://127.0.0.1:{PORT}/api",
        PREFECT_LOCAL_STORAGE_PATH: home / "storage",
    }
    with temporary_settings(own):
        fleet.bring_up(home, str(home / "results"))
        try:
            deploy()
            yield
        finally:
            fleet.take_down(home)


def make_clips(home: Path, count: int) -> Clips:
    """Clips of a second and of few pixels, so that there is next to no work."""
    clip = home / "clip.mp4"
    picture = "testsrc2=size=192x108:rate=25:duration=1"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture, "-pix_fmt", "yuv420p", str(clip)], check=True
    )
    return [clip] * count


def overheads(clips: Clips, home: Path) -> str:
    """The table of what Prefect adds to the steps, per run and per join."""
    seconds_on_pools(clips[:2], home, "warm-up", "crossfade")
    on_pools = partial(seconds_on_pools, model="crossfade")
    places: dict[str, Callable[[int], float]] = {
        "in the flow's process": lambda joins: overhead(clips[: joins + 1], home, seconds_inline, INLINE_REPEATS),
        "nowhere: the same chain of tasks that do nothing": median_of_nothing,
        "on the pool": lambda joins: overhead(clips[: joins + 1], home, on_pools, POOL_REPEATS),
    }
    lines = [
        f"Medians of {INLINE_REPEATS} runs, on the pool of {POOL_REPEATS}; a join's is the slope from {FEW_JOINS} to "
        f"{MORE_JOINS} joins.",
        "",
        "| where the seams are generated | seconds a join beyond the work | seconds a run |",
        "|---|---:|---:|",
    ]
    for place, seconds_beyond_work in places.items():
        few, more = (seconds_beyond_work(joins) for joins in (FEW_JOINS, MORE_JOINS))
        a_join = (more - few) / (MORE_JOINS - FEW_JOINS)
        lines.append(f"| {place} | {a_join:.2f} | {few - FEW_JOINS * a_join:.2f} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def overhead(clips: Clips, home: Path, run: Callable[[Clips, Path, str], float], repeats: int) -> float:
    """Median seconds of a run beyond those of its steps."""
    names = [f"{uuid4()}" for _ in range(repeats)]
    return median(run(clips, home, name) - seconds_of_work(clips, home, f"{name}-work") for name in names)


@task(persist_result=True, cache_policy=INPUTS)
def do_nothing(key: str, upstream: dict[str, Any]) -> None:
    """A step as Prefect sees one: it waits for others, and its end is recorded."""


@flow(task_runner=ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1))  # type: ignore[arg-type] # Prefect's own stubs
def chain_of_nothing(joins: int) -> None:
    """As many tasks as a run of ``joins`` joins has, waiting for each other in the same way."""
    run, predecessor, futures = f"{uuid4()}", None, []
    for index in range(joins):
        seam = do_nothing.submit(f"{run} seam {index}", {})
        predecessor = do_nothing.submit(f"{run} join {index}", {"predecessor": predecessor, "transitions": [seam]})
        futures += [seam, predecessor]
    wait(futures)


def median_of_nothing(joins: int) -> float:
    """Median seconds of a run of tasks that do nothing."""
    return median(timeit.repeat(lambda: chain_of_nothing(joins), number=1, repeat=INLINE_REPEATS))


def seconds_of_work(clips: Clips, home: Path, run_id: str) -> float:
    """Of the steps as plain functions, the seams beside the chain as in a run."""
    started = time.monotonic()
    request = parse_request(parameters(clips, home, run_id, "crossfade"))
    timeline = plan_request(request, local_files(request))
    folder = RunFolder.of(request.output_base_dir, run_id)
    predecessor = None
    with disable_run_logger(), ThreadPoolExecutor(os.cpu_count()) as threads:
        seams = [
            threads.submit(generate_transition.fn, "", timeline, seam.join, folder) for seam in timeline.transitions
        ]
        for index, seam in enumerate(seams):
            predecessor = join_clips_child.fn(
                "",
                timeline,
                folder,
                join_index=index,
                is_first_join=index == 0,
                is_last_join=seam is seams[-1],
                next_clip="",
                upstream={"predecessor": predecessor, "transitions": [seam.result()], "segments": []},
            )
    return time.monotonic() - started


def seconds_inline(clips: Clips, home: Path, run_id: str) -> float:
    started = time.monotonic()
    join_clips(**parameters(clips, home, run_id, "crossfade"))
    return time.monotonic() - started


def seconds_on_pools(clips: Clips, home: Path, run_id: str, model: str) -> float:
    """From the moment when the flow's own process begins: how soon a worker takes a run up is a setting."""
    asked = {**parameters(clips, home, run_id, model), "gpu_deployment": "generate-transition/gpu"}
    ended = wait_for_end(run_deployment("join-clips/prod", parameters=asked, timeout=0))  # type: ignore[arg-type]
    if not (ended.state and ended.state.is_completed()):
        raise SystemExit(f"{run_id} ended as {ended.state}")
    return seconds_of(ended)


def seconds_of(run: FlowRun) -> float:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).total_run_time.total_seconds()


def parameters(clips: Clips, home: Path, run_id: str, model: str) -> dict[str, Any]:
    return {
        "clip_list": [{"url": str(clip)} for clip in clips],
        "run_id": run_id,
        "model": model,
        "gap_frame_count": GAP_FRAMES,
        "output_base_dir": str(home / "outputs"),
    }


def share_seams(clips: Clips, home: Path) -> str:
    one = seconds_on_pools(clips, home, "one-worker", "stand_in")
    url = str(PREFECT_API_URL.value())
    fleet.start("gpu", fleet.worker_environment(url), home)
    wait_until(lambda: workers_of("gpu") == 2, "the second worker", pause=0.5)
    two = seconds_on_pools(clips, home, "two-workers", "stand_in")
    busy = SEAMS * stand_in.SECONDS
    lines = [
        f"| {SEAMS} seams, {stand_in.SECONDS:.0f} s each | seconds | of what the model alone takes |",
        "|---|---:|---:|",
        f"| 1 GPU worker | {one:.0f} | {one / busy:.2f} |",
        f"| 2 GPU workers | {two:.0f} | {two / busy:.2f} |",
    ]
    print("\n".join(lines), flush=True)
    return "\n".join(lines)


def workers_of(pool: str) -> int:
    with get_client(sync_client=True) as client:
        return sum(worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool))


def measure_many(clips: Clips, home: Path) -> str:
    process = psutil.Process()
    most = {"threads": 0, "mb": 0.0}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.2):
            most["threads"] = max(most["threads"], process.num_threads())
            most["mb"] = max(most["mb"], process.memory_info().rss / 1e6)

    threading.Thread(target=watch, daemon=True).start()
    started = time.monotonic()
    join_clips(**parameters(clips, home, "many", "crossfade"), strategy="parallel")
    is_over.set()
    return (
        f"{len(clips) - 1} seams in one process: {time.monotonic() - started:.0f} s, at most {most['threads']} threads "
        f"and {most['mb']:.0f} MB."
    )


if __name__ == "__main__":
    typer.run(main)
