"""Flows for a GPU pool. Prefect loads this file anew for every run; ``warm_model`` stays, where the process does."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Completed

from splice.errors import GenerationError
from tests import warm_model


def facts() -> State[Any]:
    """What this process is, as a message that a test can read."""
    gpu, job = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("WARM_JOB")
    return Completed(message=f"{os.getpid()} {warm_model.loads} {gpu} {job}")


def wait_for_company(meeting: Path, seconds: float = 100) -> None:
    """Until a run in another process has come to the folder as well: they are in the making at the same time."""
    (meeting / str(os.getpid())).touch()
    deadline = time.monotonic() + seconds
    while len(list(meeting.iterdir())) < 2:
        assert time.monotonic() < deadline, f"no other process came within {seconds} s"
        time.sleep(0.05)


@flow
def use_model(meeting: str = "", fail: str = "") -> State[Any]:
    get_run_logger().info("used the %s", warm_model.load())
    print("printed by the flow", flush=True)
    if meeting:
        wait_for_company(Path(meeting))
    if fail == "own":
        raise GenerationError("a seam that can't be made")
    if fail == "foreign":
        raise LookupError("something unforeseen")
    if fail == "cuda":
        raise GenerationError("no frames came") from RuntimeError("CUDA error: an illegal memory access")
    return facts()


def note(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    with Path(f"{flow_run.parameters['marker']}.hooks").open("a") as file:
        file.write(f"{state.name} ")


@flow(on_cancellation=[note], on_crashed=[note])
def hold(marker: str, how: str = "sleep") -> None:
    """Write the process's id to ``marker``, and stay: asleep, or in native code that keeps the GIL; or crash."""
    Path(marker).write_text(str(os.getpid()))
    if how == "crash":
        ctypes.string_at(0)
    if how == "native":
        lock, mutex = ctypes.PyDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
        lock(mutex)
        lock(mutex)  # for ever; no signal gets it out of there, as it would out of a sleep
    time.sleep(600)
