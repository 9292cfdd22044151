"""What a run survives: ``python -m bench.kill_matrix`` kills every part of a fleet in every phase of a run.

Starts a fleet of its own, joins real clips on it, kills one part with SIGKILL in the middle, starts it again, and waits
for the run's end; a run that did not end well is submitted once more. Prints the table, and writes it into
``docs/operations.md``, between its marks.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, temporary_settings

from bench.footage import BIG_BUCK_BUNNY
from deployments import fleet
from splice.layout import RunFolder

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- kill matrix -->", "<!-- end of kill matrix -->"

DEADLINE_SECONDS = 900
LAST = "join_1"
STEPS = ("units/*.mp4", "join_*/transition.mp4", "join_*/joined_output.mp4")


@dataclass(frozen=True)
class Cell:
    """What became of one run. again: how the second submission ended, if one was needed; redone: finished steps that
    were done once more; is_identical: whether the result is the one of a run that nothing happened to."""

    victim: str
    phase: str
    first: str
    first_seconds: float
    again: str
    again_seconds: float
    redone: int
    is_identical: bool


def is_begun(folder: RunFolder, pattern: str) -> bool:
    return next(folder.path.glob(pattern), None) is not None


PHASES: dict[str, Callable[[RunFolder], bool]] = {
    "prepare": lambda folder: is_begun(folder, "units/.partial*"),
    "transition": lambda folder: is_begun(folder, "seams/*/.partial-*window*") or is_begun(folder, "seams/*/.partial*"),
    "join": lambda folder: is_begun(folder, "join_1/.partial*"),
    "between joins": lambda folder: folder.joined_output("join_0").exists(),
}


def processes(part: str) -> Callable[[Path], list[psutil.Process]]:
    """The first processes of a part, those that it started being left alone."""
    return lambda home: fleet.heads(fleet.parts(home).get(part, []))


def started_by(part: str) -> Callable[[Path], list[psutil.Process]]:
    def find(home: Path) -> list[psutil.Process]:
        every = fleet.parts(home).get(part, [])
        first = fleet.heads(every)
        return [process for process in every if process not in first]

    return find


VICTIMS: dict[str, Callable[[Path], list[psutil.Process]]] = {
    "flow process": started_by("cpu"),
    "cpu worker": processes("cpu"),
    "warm child": started_by("gpu"),
    "gpu worker": processes("gpu"),
    "server": processes(fleet.SERVER),
}


def main(
    only: Annotated[str, typer.Option(help="Victims and phases to try, by name; left out: all.")] = "",
    port: Annotated[int, typer.Option(help="Of the fleet's server.")] = 4297,
) -> None:
    """Kill, wait, compare; print the table and write it into docs/operations.md if it is whole."""
    cells = []
    with tempfile.TemporaryDirectory(prefix="kill-matrix-") as name:
        home = Path(name)
        with temporary_settings({PREFECT_SERVER_API_PORT: port, PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            fleet.bring_up(home, str(home / "results"))
            try:
                deploy()
                clips = make_clips(home)
                expected = reference(clips, home)
                for victim in VICTIMS:
                    for phase in PHASES:
                        if only in ("", victim, phase):
                            cells.append(try_cell(victim, phase, clips, home, expected))
                            print(row(cells[-1]), flush=True)
            finally:
                fleet.take_down(home)
    table = "\n".join([HEADER, *map(row, cells)])
    if not only:
        write_table(table)


def deploy() -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(command, cwd=fleet.ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)


def environment() -> dict[str, str]:
    return fleet.worker_environment(str(PREFECT_API_URL.value()))


def make_clips(home: Path) -> list[Path]:
    """Three clips of a real shot; the second has another size, so that there is something to prepare."""
    folder = home / "clips"
    folder.mkdir()
    source = str(BIG_BUCK_BUNNY.path())
    clips = []
    for index, scale in enumerate(("1280:720", "1920:1080", "1280:720")):
        clip = folder / f"{index}.mp4"
        command = ["ffmpeg", "-v", "error", "-stream_loop", "9", "-i", source, "-vf", f"scale={scale}"]
        subprocess.run([*command, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(clip)], check=True)
        clips.append(clip)
    return clips


def submit(clips: list[Path], run_id: str, home: Path) -> FlowRun:
    parameters = {
        "clip_list": [{"url": str(clip)} for clip in clips],
        "run_id": run_id,
        "model": "flow_morph",
        "gap_frame_count": 40,
        "output_base_dir": str(home / "outputs"),
    }
    return run_deployment("join-clips/prod", parameters=parameters, timeout=0)  # type: ignore[return-value]


def reference(clips: list[Path], home: Path) -> str:
    ended = wait_for_end(submit(clips, "reference", home))
    if not (ended.state and ended.state.is_completed()):
        raise SystemExit(f"the run that nothing happens to ended as {ended.state}")
    return digest(RunFolder.of(str(home / "outputs"), "reference"))


def digest(folder: RunFolder) -> str:
    with folder.joined_output(LAST).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def try_cell(victim: str, phase: str, clips: list[Path], home: Path, expected: str) -> Cell:
    run_id = re.sub(r"\W+", "-", f"{victim}-{phase}")
    folder = RunFolder.of(str(home / "outputs"), run_id)
    started = time.monotonic()
    run = submit(clips, run_id, home)
    wait_until(lambda: PHASES[phase](folder), f"{phase} of {run_id}", pause=0.002)
    victims = VICTIMS[victim](home)
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(victims, timeout=DEADLINE_SECONDS)
    done = finished_steps(folder)
    revive(home)
    ended = wait_for_end(run)
    first, first_seconds = state_name(ended), time.monotonic() - started
    again, again_seconds = "", 0.0
    if first != "Completed":
        started = time.monotonic()
        again = state_name(wait_for_end(submit(clips, run_id, home)))
        again_seconds = time.monotonic() - started
    redone = sum(finished_steps(folder).get(path) != stamp for path, stamp in done.items())
    is_identical = folder.joined_output(LAST).exists() and digest(folder) == expected
    return Cell(victim, phase, first, first_seconds, again, again_seconds, redone, is_identical)


def finished_steps(folder: RunFolder) -> dict[Path, int]:
    """When each finished file was written; files that are still being written have other names."""
    finished = (path for pattern in STEPS for path in folder.path.glob(pattern) if not path.name.startswith("."))
    return {path: path.stat().st_mtime_ns for path in finished}


def revive(home: Path) -> None:
    """Start again what died, as a supervisor would."""
    url, alive = str(PREFECT_API_URL.value()), fleet.running(home)
    if fleet.SERVER not in alive:
        fleet.await_part(fleet.start(fleet.SERVER, fleet.server_environment(home, url), home), fleet.is_healthy)
    begin = datetime.now(UTC)
    for pool in fleet.COMMANDS.keys() - alive.keys() - {fleet.SERVER}:
        worker = fleet.start(pool, fleet.worker_environment(url), home)
        fleet.await_part(worker, partial(fleet.is_heard, pool, begin))


def wait_for_end(run: FlowRun) -> FlowRun:
    def final() -> FlowRun | None:
        with get_client(sync_client=True) as client:
            now = client.read_flow_run(run.id)
        return now if now.state and now.state.is_final() else None

    ended: FlowRun = wait_until(final, f"the end of {run.name}", pause=0.5)
    return ended


def wait_until(condition: Callable[[], Any], what: str, pause: float) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come within {DEADLINE_SECONDS} s")
        time.sleep(pause)
    return found


def state_name(run: FlowRun) -> str:
    return str(run.state.name) if run.state else "-"


HEADER = """| killed | during | that run | after | the same submission | took | finished steps done again | result |
|---|---|---|---:|---|---:|---:|---|"""


def row(cell: Cell) -> str:
    again = [cell.again, f"{cell.again_seconds:.0f} s"] if cell.again else ["not needed", ""]
    cells = [cell.victim, cell.phase, cell.first, f"{cell.first_seconds:.0f} s", *again, str(cell.redone)]
    return f"| {' | '.join(cells)} | {'identical' if cell.is_identical else '**differs**'} |"


def write_table(table: str) -> None:
    text = DOCUMENT.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCUMENT.write_text(f"{text[:begin]}\n{table}\n{text[end:]}")


if __name__ == "__main__":
    typer.run(main)
