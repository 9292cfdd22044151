"""What several test files share: a real Prefect server, and clips that carry their frame numbers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from hypothesis import settings
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.settings.legacy import Setting

from tests.footage import make_clip
from tests.postgres import run_postgres

ROOT = Path(__file__).resolve().parent.parent

# A time limit for each example says nothing on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Torch's further threads wait by spinning, and take the cores from whatever runs beside.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class PrefectServer:
    api_url: str
    storage: Path

    @property
    def environment(self) -> dict[str, str]:
        """For a process that should use this server and keep its records where it does."""
        settings = {"PREFECT_API_URL": self.api_url, "PREFECT_LOCAL_STORAGE_PATH": str(self.storage)}
        return {**os.environ, **settings}


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server of its own, in a process, on a fresh home; this process talks to it as well.

    On Postgres, as fleets have it: on SQLite a busy server now and then stands still for minutes.
    """
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start"]
    with run_postgres() as database, (home / "server.log").open("w") as log:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database.replace("://", "+asyncpg://")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            server = PrefectServer(f"http://127.0.0.1:{port}/api", home / "storage")
            _wait_until_healthy(server.api_url, process, home / "server.log")
            with talking_to({PREFECT_API_URL: server.api_url, PREFECT_LOCAL_STORAGE_PATH: server.storage}):
                yield server
        finally:
            process.terminate()
            process.wait(timeout=20)


@contextmanager
def talking_to(server: Mapping[Setting, Any]) -> Iterator[None]:
    """Lets this process talk to a server, by Prefect's settings, for as long as the block runs."""
    _tell_all()
    with temporary_settings(server):
        yield
        _tell_all()


def _tell_all() -> None:
    """What is to be told arrives while the server lives; those who told it would go on to talk to the same one."""
    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)


def _wait_until_healthy(api_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{api_url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not start:\n{log.read_text()}")


def end_worker(process: subprocess.Popen[bytes]) -> None:
    """End one of Prefect's own workers. It hangs for ever where SIGINT meets the end of a run: then it is killed."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def numbered_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four clips of 30, 26, 28 and 24 frames; clip i carries i and the frame number in its pixels."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        make_clip(folder / f"clip_{i}.mp4", clip_id=i, frame_count=frames) for i, frames in enumerate((30, 26, 28, 24))
    ]
