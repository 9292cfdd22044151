"""A worker whose flow runs find the model loaded: ``python -m deployments.gpu_worker --pool gpu --limit 1``.

It serves a stock work pool of type ``process``; ``prefect worker start --pool gpu`` serves the same pool, cold. Where
that one starts a process for every flow run, this one hands the run to a child process that is there already (see
``warm_child``), one child a slot. All else is Prefect's own: pool, queues, pull steps, states, cancelling, hooks.

Start one worker a GPU, each with its CUDA_VISIBLE_DEVICES; its children inherit it. A child is used again until
- a run asks for another environment, working directory or deployment than it has: nothing of that is ever changed in
  a child, the run gets a fresh one (so let one deployment have a GPU pool to itself);
- a run's parameter ``recipe`` is another than that of the code it has loaded: the code on the disk may be newer. A
  fresh child loads that; what it makes of a recipe that is still another is the flow's business;
- a run raised anything but a SpliceError, or one with a RuntimeError behind it (torch's errors all are): its GPU may
  be in any state;
- it was killed or crashed, or the worker ends, by kill -9 too.

A deployment with a ``command`` of its own is run cold, as the stock worker does. Works on Linux; elsewhere a child that
is busy outlives a worker that was killed by kill -9 until its run is over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from abc import ABC
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import anyio
import httpx
import prefect
import typer
from anyio import TASK_STATUS_IGNORED
from anyio.abc import Process, TaskStatus
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event

# Prefect's private APIs, each for want of a public one: with them, starting, cancelling, crashing and hooks are the
# stock worker's (see ProcessWorker.run, which has no place to put another way of starting a process).
from prefect.runner._control_channel import ControlChannel
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, _PosixProcessGroupTerminationScope
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_WORKER_QUERY_SECONDS,
    temporary_settings,
)
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.base import BaseWorkerResult
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

CHILD = Path(__file__).with_name("warm_child.py")

GRACE_SECONDS = 4
"""From SIGTERM to SIGKILL: half of the time in which a cancelled run must have stopped, hooks and all."""

QUERY_SECONDS = 1
"""Between two looks for work, unless PREFECT_WORKER_QUERY_SECONDS is set; Prefect's 10 are longer than many a seam."""


@dataclass(frozen=True)
class Surroundings:
    """What a process is born into. Equal: a run may use a child that was started for another run."""

    variables: frozenset[tuple[str, str]]
    folder: Path | None
    shows_output: bool

    @classmethod
    def of(cls, configuration: ProcessJobConfiguration) -> Surroundings:
        variables = {name: value for name, value in configuration.env.items() if value is not None}
        del variables["PREFECT__FLOW_RUN_ID"]
        # As the stock worker has it: hooks on cancelling and crashing are the worker's to run.
        variables["PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS"] = "false"
        return cls(frozenset(variables.items()), configuration.working_dir, configuration.stream_output)


class Child:
    """A process of ``warm_child``, from the first run that it is handed to the last."""

    def __init__(
        self,
        process: Process,
        channel: Connection[Any, Any],
        born: Surroundings,
        folder: TemporaryDirectory[str] | None,
    ) -> None:
        self.process = process
        self.is_free = True
        self.has_hooks = True
        self._channel = channel
        self._born = born
        self._folder = folder
        self._recipe: str | None = None

    @classmethod
    async def start(cls, born: Surroundings) -> Child:
        folder = None if born.folder else TemporaryDirectory(suffix="prefect", ignore_cleanup_errors=True)
        output = None if born.shows_output else subprocess.DEVNULL
        ours, theirs = Pipe()
        with theirs:
            # Here in the main thread: it is with the *thread* that started it that the kernel ends the child.
            process = await anyio.open_process(
                # -P: what lies beside the script is no module of the flow's.
                [sys.executable, "-P", str(CHILD), str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                cwd=folder.name if folder else born.folder,
                env=dict(born.variables),
                start_new_session=True,  # Ctrl-C is for the worker
            )
        return cls(process, ours, born, folder)

    def suits(self, wanted: Surroundings, recipe: str | None) -> bool:
        is_alive = self.process.returncode is None
        return is_alive and self._born == wanted and (None in (recipe, self._recipe) or recipe == self._recipe)

    async def do(self, *request: Any) -> int:
        """Hand over a request and wait until it is done; the exit status that a process of its own would have had."""
        self.is_free, self.has_hooks = False, True
        try:
            self._channel.send(request)
            while True:
                await anyio.wait_readable(self._channel)
                said = self._channel.recv()
                self.has_hooks = said.get("has_hooks", self.has_hooks)
                if "status" in said:
                    self.is_free, self._recipe = said["is_free"], said.get("recipe")
                    return int(said["status"])
        except (EOFError, ConnectionError):
            return await self.end()
        except asyncio.CancelledError:
            self.send_signal(signal.SIGTERM)  # the worker ends: time for the flow to say that it crashed
            raise

    def send_signal(self, number: signal.Signals) -> None:
        """To the process and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    async def end(self) -> int:
        """Let the process come to its end, or bring it about after a while; returns its exit status."""
        with anyio.CancelScope(shield=True):
            if not self._channel.closed:
                self._channel.close()
                with anyio.move_on_after(GRACE_SECONDS):
                    await self.process.wait()
                self.send_signal(signal.SIGKILL)
            status = await self.process.wait()
        if self._folder:
            self._folder.cleanup()
        return status


class PromptTermination(_PosixProcessGroupTerminationScope):
    """How Prefect ends a cancelled run's process; by itself it would look every 3 s, and give it 30."""

    wait_after_graceful_kill = False
    _timer: asyncio.TimerHandle | None = None

    def graceful_kill(self, pid: int) -> None:
        super().graceful_kill(pid)
        self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self.hard_kill, pid)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()


@dataclass
class RunInChild:
    """What Prefect takes for the run's process: the child, until the run is over."""

    pid: int
    returncode: int | None = None


class WarmRun:
    """One flow run: Prefect's ProcessStarter and FlowRunHookRunner for it."""

    def __init__(
        self, worker: WarmWorker, wanted: Surroundings, channel: ControlChannel, told: TaskStatus[int]
    ) -> None:
        self._worker = worker
        self._wanted = wanted
        self._channel = channel
        self._told = told
        self._child: Child | None = None

    async def start(self, flow_run: FlowRun, task_status: TaskStatus[ProcessHandle] = TASK_STATUS_IGNORED) -> None:
        """Have a child run it; returns when the run is over, and the child free or gone."""
        child = self._child = await self._worker.take_child(self._wanted, flow_run)
        run = RunInChild(child.process.pid)
        try:
            port, token = self._channel.register(flow_run.id)
            task_status.started(ProcessHandle(run, PromptTermination()))  # type: ignore[arg-type] # all that it uses
            self._told.started(run.pid)
            run.returncode = await child.do("run", flow_run.id, port, token)
            if run.returncode and await self._is_cancelling(flow_run):
                run.returncode = 0  # no crash: Prefect, which had it killed, says how it ends
        finally:
            await self._worker.give_back(child)

    async def _is_cancelling(self, flow_run: FlowRun) -> bool:
        state = (await self._worker.client.read_flow_run(flow_run.id)).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        await self._run_hooks(flow_run, state)

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        await self._run_hooks(flow_run, state)

    async def _run_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        assert self._child, "there is nothing to cancel, and nothing crashes, before it starts"
        await self._child.process.wait()
        if self._child.has_hooks:
            child = await Child.start(self._wanted)
            try:
                await child.do("hooks", flow_run.model_dump_json(), state.model_dump_json())
            finally:
                await child.end()


# ABC keeps Prefect from listing it as *the* worker of type "process", which the stock one remains.
class WarmWorker(ProcessWorker, ABC):
    """A process worker that keeps its processes, at most as many as it may run flows at once."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._free: list[Child] = []

    async def run(
        self, flow_run: FlowRun, configuration: ProcessJobConfiguration, task_status: TaskStatus[int] | None = None
    ) -> ProcessWorkerResult:
        if configuration._command_configured:
            return await super().run(flow_run, configuration, task_status)
        wanted, told = Surroundings.of(configuration), task_status or TASK_STATUS_IGNORED
        async with FlowRunExecutorContext() as context, anyio.create_task_group() as beside:
            beside.start_soon(self._send_heartbeats, flow_run, configuration)
            warm_run = WarmRun(self, wanted, context.control_channel, told)
            executor = context.create_executor(flow_run, warm_run, hook_runner=warm_run, propose_submitting=False)
            execution = await executor.submit()
            beside.cancel_scope.cancel()
        if execution is None or execution.status_code is None:
            raise RuntimeError(f"flow run {flow_run.name} was not started: its logs say why")
        return ProcessWorkerResult(status_code=execution.status_code, identifier=str(execution.handle.pid))

    async def _submit_run_and_capture_errors(self, *arguments: Any, **more: Any) -> BaseWorkerResult | Exception:
        """Overridden to look for work as soon as a slot is free again; by itself the worker waits for its next turn."""
        result = await super()._submit_run_and_capture_errors(*arguments, **more)
        with suppress(httpx.HTTPError):  # the next turn comes in any case
            await self.get_and_submit_flow_runs()
        return result

    async def take_child(self, wanted: Surroundings, flow_run: FlowRun) -> Child:
        """A free child that the run may use, or a fresh one, for which a free one gives way."""
        recipe = flow_run.parameters.get("recipe")
        for child in self._free:
            if child.suits(wanted, recipe):
                self._free.remove(child)
                return child
        if self._free:
            reason = "has died, was started with another environment, or has loaded another recipe version"
            self._logger.info("Flow run %s gets a fresh process: the one at hand %s", flow_run.name, reason)
            await self._free.pop(0).end()
        return await Child.start(wanted)

    async def give_back(self, child: Child) -> None:
        if child.is_free:
            self._free.append(child)
        else:
            await child.end()

    async def _send_heartbeats(self, flow_run: FlowRun, configuration: ProcessJobConfiguration) -> None:
        """What Prefect's engine sends from the run's own process, until cancelled."""
        setting = PREFECT_FLOWS_HEARTBEAT_FREQUENCY
        seconds = float(configuration.env.get(setting.name) or setting.value() or 0)
        resource = {
            "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
            "prefect.resource.name": flow_run.name,
            "prefect.version": prefect.__version__,
        }
        while seconds:
            related = self._event_related_resources(configuration)
            emit_event("prefect.flow-run.heartbeat", resource=resource, related=related)
            await anyio.sleep(seconds)

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            await super().__aexit__(*exc_info)
        finally:
            for child in self._free:
                await child.end()


def main(
    pool: Annotated[str, typer.Option(help="The work pool to serve, of type process.")],
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at once, each in a child process of its own.")] = 1,
    name: Annotated[str | None, typer.Option(help="Of this worker in the UI; must be unique.")] = None,
    with_healthcheck: Annotated[bool, typer.Option(help="Answer at :8080/health while it polls.")] = False,
) -> None:
    """Serve a work pool, with the model kept loaded between runs."""
    # Where the deployments' pull step is to find the code.
    os.environ.setdefault("JOIN_CLIPS_HOME", str(CHILD.parent.parent))
    # A shell script's & lets a process ignore SIGINT, and SIGTERM with it, which Prefect turns into SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with temporary_settings(set_defaults={PREFECT_WORKER_QUERY_SECONDS: QUERY_SECONDS}):
        asyncio.run(work(WarmWorker(work_pool_name=pool, limit=limit, name=name), with_healthcheck))


async def work(worker: WarmWorker, with_healthcheck: bool) -> None:
    """Until SIGINT or SIGTERM; a second one kills."""
    # Inside the loop, as the stock command: it forwards to the handler that asyncio has set by now.
    setup_signal_handlers_worker(os.getpid(), "the warm worker", print)
    # In a log file, too, at once: Python would keep it until there is more.
    say = partial(print, flush=True)
    with suppress(asyncio.CancelledError):
        await worker.start(with_healthcheck=with_healthcheck, printer=say)
    say(f"Worker {worker.name!r} stopped!")


if __name__ == "__main__":
    typer.run(main)
