"""The child of the warm worker: runs the flow runs that it is handed, one after the other, in this one process.

What the modules of a flow hold (a loaded model) is still there for the next run. ``gpu_worker`` starts this file as a
script, with a socket as its standard input and with the environment and the working directory that it keeps for life:

    worker -> child    ("run", flow run id, port, token)    then ("run", ...) again, once the child is free
                       ("hooks", flow run, state), in JSON  to a child of its own, which does nothing else
    child -> worker    {"has_hooks": ...}                   the flow is loaded
                       {"status": ..., "is_free": ..., "recipe": ...}   the run is over, its state is on the server

Nothing of this project is imported here: the flow brings its own, from where its deployment's pull steps find it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID

# Prefect's private APIs, each for want of a public one. control_listener: the child's end of the channel over which a
# runner says that a SIGTERM means "cancelled". _drive_run_flow_result: run_flow gives coroutines and generators
# back, unstarted. HookRunner: runs a flow's hooks as Prefect's runner does, with its log lines.
from prefect._internal import control_listener
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.engine import _drive_run_flow_result, handle_engine_signals
from prefect.exceptions import PrefectException
from prefect.flow_engine import load_flow, run_flow
from prefect.flows import load_flow_from_flow_run
from prefect.logging.loggers import flow_run_logger
from prefect.runner._hook_runner import HookRunner
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

PR_SET_PDEATHSIG = 1


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    channel = take_channel()
    # The worker beats for us: native code may hold the GIL for minutes, and the run would be taken for dead.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        serve(channel)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the worker ends, even by kill -9 and even while native code runs here."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(f"worker {parent} is gone")


def take_channel() -> Connection[Any, Any]:
    """The socket to the worker, moved away from standard input, and out of reach of any process started here."""
    channel: Connection[Any, Any] = Connection(os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.register_at_fork(after_in_child=channel.close)
    return channel


def serve(channel: Connection[Any, Any]) -> None:
    """Run what the worker sends, until it hangs up or until this process should be used no longer."""
    folder, path = Path.cwd(), sys.path[:]
    while request := receive(channel):
        # Pull steps change the directory; Prefect puts the flow's folder before the path every time it loads one.
        os.chdir(folder)
        sys.path[:] = path
        kind, *arguments = request
        try:
            run(channel, *arguments) if kind == "run" else asyncio.run(run_hooks(*arguments))
        except SystemExit as end:
            channel.send({"status": end.code, "is_free": False})
            raise
        channel.send({"status": 0, "is_free": True, "recipe": loaded_recipe()})


def receive(channel: Connection[Any, Any]) -> tuple[Any, ...] | None:
    try:
        request: tuple[Any, ...] = channel.recv()
    except EOFError:
        return None
    return request


def run(channel: Connection[Any, Any], flow_run_id: UUID, port: int, token: str) -> None:
    """Run one flow run to its end, as ``python -m prefect.engine`` does.

    Raises SystemExit where that process would end by itself, and where this one may no longer be fit for use.
    """
    join_control_channel(port, token)
    with handle_engine_signals(flow_run_id):
        with get_client(sync_client=True) as client:
            flow_run = client.read_flow_run(flow_run_id)
        logger = flow_run_logger(flow_run)
        try:
            flow = load_flow(flow_run)
        except (PrefectException, ImportError, RuntimeError):
            logger.exception("The flow can't be loaded")
            raise
        channel.send({"has_hooks": bool(flow.on_cancellation_hooks or flow.on_crashed_hooks)})
        try:
            begun = run_flow(flow, flow_run=flow_run, error_logger=logger)  # type: ignore[arg-type] # as the engine
            _drive_run_flow_result(flow, begun)
        except own_errors() as error:
            if has_runtime_error(error):
                raise


def join_control_channel(port: int, token: str) -> None:
    """Open Prefect's channel to the worker for the run to come, as far as ``run_flow`` does not.

    A process of its own finds port and token in its environment; ours is never changed while native threads may read
    it. So the call finds none, forgets the run before, and gets them here.
    """
    control_listener.configure_from_env()
    control_listener._configured_port = port
    control_listener._configured_token = token


def own_errors() -> tuple[type[Exception], ...]:
    """Errors which the flow that was loaded last raises on purpose: they leave this process as fit as it was."""
    errors = sys.modules.get("splice.errors")
    return (errors.SpliceError,) if errors else ()


def has_runtime_error(error: BaseException | None) -> bool:
    """Whether a RuntimeError is behind it, as all of torch's and CUDA's are: the GPU may be in any state."""
    while error and not isinstance(error, RuntimeError):
        error = error.__cause__ or error.__context__
    return error is not None


def loaded_recipe() -> str | None:
    """The recipe version of the code in this process, which may be older than the disk's; None where none is loaded."""
    recipe = sys.modules.get("splice.recipe")
    return recipe.recipe_version() if recipe else None


async def run_hooks(flow_run_json: str, state_json: str) -> None:
    """Run the flow's hooks for a state that the worker sets: cancelling or crashed."""
    flow_run, state = FlowRun.model_validate_json(flow_run_json), State[Any].model_validate_json(state_json)
    hooks = HookRunner(resolve_flow=load_flow_from_flow_run)
    await hooks.run_cancellation_hooks(flow_run, state)
    await hooks.run_crashed_hooks(flow_run, state)


if __name__ == "__main__":
    main()
