"""A fleet on one machine: a Prefect server and a worker of each pool. ``make up`` starts it, ``make down`` ends it.

What belongs to a fleet is not written down but read off the processes themselves: each has the fleet's folder in its
environment, and hands it on to what it starts. So nothing else is ever ended, and nothing that was started is missed.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
import typer
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_HOST, PREFECT_SERVER_API_PORT, temporary_settings
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from deployments.bootstrap import Results, bootstrap

ROOT = Path(__file__).resolve().parent.parent
SERVER = "server"
PREFECT = (sys.executable, "-m", "prefect")
COMMANDS = {
    SERVER: (*PREFECT, "server", "start"),
    "cpu": (*PREFECT, "worker", "start", "--pool", "cpu", "--name", f"cpu on {platform.node()}", "--limit", "4"),
    "control": (*PREFECT, "worker", "start", "--pool", "control", "--name", f"control on {platform.node()}"),
    "gpu": (sys.executable, "-m", "deployments.gpu_worker", "--pool", "gpu", "--limit", "1"),
}

FLEET, PART, URL = "JOIN_CLIPS_FLEET", "JOIN_CLIPS_FLEET_PART", "JOIN_CLIPS_FLEET_URL"
"""Variables in the environment of each process: the fleet's folder, which part it is, where the server's API is."""

START_SECONDS = 180
STOP_SECONDS = 8
"""What is given to runs to end, and then to the worker, which reports that they crashed."""

Folder = Annotated[Path, typer.Option(help="Where the fleet keeps its database, leases and logs.")]

app: typer.Typer = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Part:
    """One of the fleet's processes, just started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class FleetError(Exception):
    """The fleet can't be started or ended. The message says why, and what to do."""


@app.command()
def up(folder: Folder = ROOT / ".fleet", results: Results = "") -> None:
    """Start a Prefect server, a cpu, a control and a gpu worker, and wait until they are ready.

    The server keeps its data in SQLite, or in the Postgres that DATABASE_URL names.
    """
    folder = folder.resolve()
    try:
        if parts(folder):
            check_complete(folder)
            typer.echo("the fleet is up already")
        else:
            bring_up(folder, results)
    except (FleetError, KeyboardInterrupt) as error:
        typer.echo(str(error) or "interrupted", err=True)
        raise typer.Exit(1) from error
    url = url_of(folder)
    typer.echo(f"UI:   {url.removesuffix('/api')}\nlogs: {folder}/*.log\nexport PREFECT_API_URL={url}")


@app.command()
def down(folder: Folder = ROOT / ".fleet") -> None:
    """End what `up` started, and nothing else."""
    try:
        ended = take_down(folder.resolve())
    except FleetError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"the fleet is down: {', '.join(sorted(ended))}" if ended else "the fleet was not up")


@app.command()
def status(folder: Folder = ROOT / ".fleet") -> None:
    """Say which parts run. Exit status 1 unless all do."""
    found = running(folder.resolve())
    for name in COMMANDS:
        typer.echo(f"{name}: {found[name].pid if name in found else 'not running'}")
    raise typer.Exit(0 if found.keys() == COMMANDS.keys() else 1)


@app.command()
def url(folder: Folder = ROOT / ".fleet") -> None:
    """Print the address of the server's API, or nothing where no fleet is up."""
    folder = folder.resolve()
    if SERVER in running(folder):
        typer.echo(url_of(folder))


def bring_up(folder: Path, results: str) -> None:
    """Start one part after the other; where one does not come up, end the others."""
    host, port = PREFECT_SERVER_API_HOST.value(), PREFECT_SERVER_API_PORT.value()
    address = "127.0.0.1" if host == "0.0.0.0" else host
    check_port(address, port)
    folder.mkdir(parents=True, exist_ok=True)
    api_url = f"http://{address}:{port}/api"
    with ExitStack() as unfinished, temporary_settings({PREFECT_API_URL: api_url}):
        unfinished.callback(take_down, folder)
        await_part(start(SERVER, server_environment(folder, api_url), folder), is_healthy)
        for line in bootstrap(results):
            typer.echo(line)
        begin = datetime.now(UTC)
        workers = [start(pool, worker_environment(api_url), folder) for pool in COMMANDS if pool != SERVER]
        for worker in workers:
            await_part(worker, partial(is_heard, worker.name, begin))
        unfinished.pop_all()


def server_environment(folder: Path, api_url: str) -> dict[str, str]:
    environment = {
        **os.environ,
        URL: api_url,
        "PREFECT_HOME": str(folder / "server"),
        "PREFECT_SERVER_API_PORT": api_url.removesuffix("/api").rpartition(":")[2],
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # In memory, a restart of the server would leave the slots of its day taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    # The UI would call it instead of this server.
    environment.pop("PREFECT_API_URL", None)
    if database := os.environ.get("DATABASE_URL"):
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = asyncpg_url(database)
    return environment


def worker_environment(api_url: str) -> dict[str, str]:
    # Flows have no business with the server's database.
    inherited = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    own = {URL: api_url, "PREFECT_API_URL": api_url, "JOIN_CLIPS_HOME": str(ROOT)}
    return {"PREFECT_WORKER_QUERY_SECONDS": "1", **inherited, **own}


def asyncpg_url(database_url: str) -> str:
    """The address of a Postgres database as Prefect wants it. Raises FleetError where it is none."""
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise FleetError("DATABASE_URL is no URL; needed: postgresql://user:password@host:port/name") from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise FleetError(f"DATABASE_URL is of {url.drivername}; needed: postgresql://, or leave it out for SQLite")
    # libpq's name of the option is not asyncpg's.
    query = {"ssl" if key == "sslmode" else key: value for key, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query).render_as_string(hide_password=False)


def check_port(address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise FleetError(
                f"{address}:{port} can't be used ({error.strerror}): end what listens there, or choose another port: "
                f"PREFECT_SERVER_API_PORT={port + 1} make up"
            ) from error


def start(name: str, environment: dict[str, str], folder: Path) -> Part:
    """Start a part, in a session of its own so that no Ctrl-C reaches it."""
    typer.echo(f"starting {name} ...")
    # Where this one runs in the background of a script, interrupts are ignored, and what it starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            COMMANDS[name],
            cwd=ROOT,
            env={**environment, FLEET: str(folder), PART: name},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Part(name, process, log)


def await_part(part: Part, is_ready: Callable[[], bool]) -> None:
    """Wait until the part is ready. Raises FleetError where it ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        status = part.process.poll()
        if status is not None or time.monotonic() > deadline:
            why = f"is not ready after {START_SECONDS} s" if status is None else f"ended with status {status}"
            raise FleetError(f"{part.name} {why}; the end of {part.log}:\n{tail(part.log)}")
        time.sleep(0.5)


def is_healthy() -> bool:
    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def is_heard(pool: str, begin: datetime) -> bool:
    """Whether a worker of the pool was heard of since."""
    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(pool)
    return any(worker.last_heartbeat_time and worker.last_heartbeat_time >= begin for worker in workers)


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def check_complete(folder: Path) -> None:
    """Raises FleetError where a part has died."""
    if missing := COMMANDS.keys() - running(folder).keys():
        raise FleetError(f"{', '.join(sorted(missing))} died since the fleet was started: make down, then make up")


def url_of(folder: Path) -> str:
    return running(folder)[SERVER].environ()[URL]


def take_down(folder: Path) -> set[str]:
    """End the workers and their runs, then the server, which is told of it. Returns the names of those that ran."""
    ended = set(parts(folder))
    end(lambda: [process for name, of_part in parts(folder).items() if name != SERVER for process in of_part])
    end(lambda: parts(folder).get(SERVER, []))
    return ended


def end(find: Callable[[], list[psutil.Process]]) -> None:
    """Ask what a part has started to end, then the part itself, and kill what is left of both."""
    processes = find()
    last = heads(processes)
    # A worker that is asked first kills its runs without a word to the server, where they would be in progress still.
    for asked in ([process for process in processes if process not in last], last):
        for process in asked:
            # psutil knows a process by its start as well: a number that is used again is no process of ours.
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(asked, timeout=STOP_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    while remaining := find():
        if time.monotonic() > deadline:
            raise FleetError(f"can't be killed: {', '.join(map(str, remaining))}")
        for process in remaining:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(remaining, timeout=1)


def parts(folder: Path) -> dict[str, list[psutil.Process]]:
    """The processes that the fleet in ``folder`` has started, and whatever those started, by the part's name."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:  # another user's, or just gone
            continue
        if environment.get(FLEET) == str(folder):
            found.setdefault(environment[PART], []).append(process)
    return found


def running(folder: Path) -> dict[str, psutil.Process]:
    """The parts that are up, by name. What a part has started may outlive it, and does not count."""
    found = {}
    for name, processes in parts(folder).items():
        for process in processes:
            with suppress(psutil.Error):
                if process.cmdline()[1:] == list(COMMANDS[name][1:]):
                    found[name] = process
    return found


def heads(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that no other one of them has started."""
    started = {child for process in processes for child in children(process)}
    return [process for process in processes if process not in started]


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    app()
