"""Seams on a pool: handles out, a child run for each, windows back. Children are found by what they are to make."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from threading import BoundedSemaphore, Lock
from typing import Any, cast

from prefect import Flow, get_run_logger, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkPoolStatus
from prefect.deployments import run_deployment
from prefect.exceptions import CancelledRun, CrashedRun, ObjectNotFound
from prefect.states import Cancelling
from splice.errors import GenerationError, MediaError, RequestError, TransferError
from splice.gate import make_best
from splice.handles import lay_window, write_handles
from splice.layout import RunFolder
from splice.recipe import recipe_version
from splice.records import StepRecord, bring_back, publish_file
from splice.storage import remove, upload
from splice.types import Timeline, Transition
from splice.units import write_generated

from tasks.access import access_to
from tasks.guard import is_at_work, run_tag
from tasks.progress import interrupted, tracked
from tasks.records import read_record
from tasks.steps import STEP, warn_of_seam
from tasks.window import recall_window, window_key

POLL_SECONDS = 2.0
IDLE_POOL_SECONDS = 60.0
"""How long a seam may wait for a machine before the log says that the pool has none."""

LIVE = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
"""What a child may still come from to a window; from Cancelling it won't."""

REMEDIES = {
    WorkPoolStatus.NOT_READY: "no worker of it is online; start one: prefect worker start --pool {}",
    WorkPoolStatus.PAUSED: "it is paused; resume it: prefect work-pool resume {}",
}

_hands = BoundedSemaphore(os.cpu_count() or 1)
"""Waiting for the pool costs nothing, reading and encoding cost a core and memory."""

_one_at_a_time = Lock()
_idle_pools: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Order:
    """One seam as the pool is asked for it."""

    key: str
    run_id: str
    deployment: str
    transition: Transition
    folder: RunFolder

    @property
    def here(self) -> Path:
        """The folder of the seam's files; its name holds the digest of all that they depend on."""
        return self.folder.path / "seams" / PurePosixPath(self.key).name

    @property
    def handles(self) -> Path:
        return self.here / "handles.mkv"

    @property
    def window(self) -> str:
        """Where its machine is to put the window."""
        return self.folder.location(self.here / "window.mkv")

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "handles": self.folder.location(self.handles),
            "window": self.window,
            "model": self.transition.settings.model,
            "recipe": recipe_version(),
            "run_id": self.run_id,
            "join_index": self.transition.join,
        }

    @property
    def record_key(self) -> str:
        return window_key(
            self.run_id, self.transition.join, self.window, self.transition.settings.model, recipe_version()
        )

    @property
    def tag(self) -> str:
        return f"seam:{self.key}"


@task(**STEP, name="generate-on-pool")
def generate_on_pool(
    key: str, timeline: Timeline, transition_index: int, folder: RunFolder, *, deployment: str, run_id: str
) -> StepRecord:
    """Let the pool render one seam, and encode it: the units and the record of ``generate_transition``.

    Raises GenerationError: the child run failed, and why; CrashedRun, CancelledRun: it ended otherwise, even when
    tried again; RequestError: there is no such deployment.
    """
    transition = timeline.transitions[transition_index]
    orders: list[Order] = []

    def make(attempt: Transition, into: RunFolder) -> dict[str, str | float]:
        orders.append(Order(f"{key}-{len(orders)}" if orders else key, run_id, deployment, attempt, folder))
        return make_window(orders[-1], timeline, into)

    notes, attempts = make_best(timeline, transition, folder, make, _hands)
    warn_of_seam(transition, attempts)
    pieces, access = timeline.pieces_of(transition), access_to(folder.url)
    outputs = tuple(publish_file(folder, folder.unit(piece), piece.frame_count, access) for piece in pieces)
    for order in orders:
        discard_files(order)
    return StepRecord(outputs=outputs, notes=notes, attempts=attempts)


def make_window(order: Order, timeline: Timeline, into: RunFolder) -> dict[str, str | float]:
    """Let the pool render a seam once, and encode it into ``into``; what the model has to say for the report."""
    window = recall_window(order.record_key, order.window) or wait_for_window(order, timeline)
    try:
        encode_window(order, timeline, window, into)
    except MediaError as error:
        if recall_window(order.record_key, order.window):
            raise
        raise TransferError(f"{order.window} vanished: another run has made use of it; trying again") from error
    return window.notes


def wait_for_window(order: Order, timeline: Timeline) -> StepRecord:
    """Attach to the child run that is making the window, or start one, and wait for its end."""
    with get_client(sync_client=True) as client:
        children = find_children(client, order)
        live = [child for child in children if child.state and child.state.type in LIVE]
        if live:
            get_run_logger().info("seam %d: run %r is under way already", order.transition.join, live[0].name)
        child = live[0] if live else send(order, timeline, attempt=len(children) + 1)
        ended = wait_for_child(client, order, child)
    return delivered(order, ended)


def find_children(client: SyncPrefectClient, order: Order) -> list[FlowRun]:
    """Every child run that was ever started for this very seam."""
    tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[order.tag]))
    return client.read_flow_runs(flow_run_filter=tagged)


def send(order: Order, timeline: Timeline, attempt: int) -> FlowRun:
    """Write the handles, and submit a child run for them."""
    with _hands:
        write_handles(timeline, order.transition, order.handles)
    if order.folder.url:
        upload(order.handles, order.parameters["handles"], access_to(order.folder.url))
    # Prefect numbers the children of a flow run without a lock.
    with _one_at_a_time:
        try:
            child = run_deployment(
                order.deployment,
                parameters=order.parameters,
                flow_run_name=f"{order.run_id} seam {order.transition.join}",
                timeout=0,
                idempotency_key=f"{order.key}-{attempt}",
                tags=[run_tag(order.run_id), order.tag],
            )
        except ObjectNotFound as error:
            raise RequestError(
                f"gpu_deployment: {order.deployment} is not on this server; deploy it, or leave gpu_deployment out"
            ) from error
    return cast(FlowRun, child)


def wait_for_child(client: SyncPrefectClient, order: Order, child: FlowRun) -> FlowRun:
    """Until the child run has ended, however long its pool takes; says so if that has nobody to do it."""
    asked = time.monotonic()
    while not (child.state and child.state.is_final()):
        if interrupted.wait(POLL_SECONDS):
            # At once; the hooks below do it where this process was killed, in one that takes seconds to start.
            stop(client, child, order.run_id)
            raise InterruptedError("interrupted")
        child = client.read_flow_run(child.id)
        if child.start_time is None and time.monotonic() - asked > IDLE_POOL_SECONDS:
            asked = time.monotonic()
            warn_of_idle_pool(client, order, child)
    return child


def warn_of_idle_pool(client: SyncPrefectClient, order: Order, child: FlowRun) -> None:
    """Say, once in a run, that its seams wait for a pool that has no worker, and what to do."""
    pool = child.work_pool_name
    if pool is None or (order.run_id, pool) in _idle_pools:
        return
    status = client.read_work_pool(pool).status
    if status not in REMEDIES:
        return
    with _one_at_a_time:
        is_told = (order.run_id, pool) in _idle_pools
        _idle_pools.add((order.run_id, pool))
    if not is_told:
        get_run_logger().warning(
            "seam %d waits for work pool %s: %s", order.transition.join, pool, REMEDIES[status].format(pool)
        )


def delivered(order: Order, child: FlowRun) -> StepRecord:
    """The record of the window that a child run has made. Raises as ``generate_on_pool`` does, where it has not."""
    assert child.state is not None
    what = f"seam {order.transition.join}: run {child.name!r} of {order.deployment}"
    reason = str(child.state.message).removeprefix("Flow run encountered an exception: ")
    if child.state.is_failed():
        raise GenerationError(f"{what} failed: {reason}")
    if child.state.is_cancelled():
        raise CancelledRun(f"{what} was cancelled: {reason}")
    if child.state.is_crashed():
        raise CrashedRun(f"{what} crashed: {reason}")
    if record := recall_window(order.record_key, order.window):
        return record
    if read_record(order.record_key, StepRecord) is None:
        raise GenerationError(
            f"{what} is {child.state.name}, but has no record here; give both work pools the same result storage"
        )
    # Or another process, at the same work, has used it already: then trying again finds what that one has made.
    raise TransferError(
        f"{what} is {child.state.name}, but {order.window} is not there, or not as recorded; give both work pools an "
        f"output_base_dir that both see"
    )


def encode_window(order: Order, timeline: Timeline, window: StepRecord, into: RunFolder) -> None:
    """Lay the rendered frames between the originals, and encode them as the units that the transition fills."""
    transition = order.transition
    path = bring_back(order.folder, window.outputs[0], access_to(order.folder.url))
    watch = partial(tracked, description=f"seam {transition.join}", total=transition.frame_count)
    with _hands:
        write_generated(timeline, transition, lay_window(timeline, transition, path), into, watch)


def discard_files(order: Order) -> None:
    """Delete the handles and the window; if this process dies right after that, they are made again."""
    shutil.rmtree(order.here, ignore_errors=True)
    if order.folder.url:
        for location in (order.parameters["handles"], order.window):
            try:
                remove(location, access_to(location))
            except (RequestError, TransferError) as error:
                # The seam is made: it is not to be lost for what is left lying about.
                get_run_logger().warning("seam %d: left behind: %s", order.transition.join, error)


def cancel_children(run_id: str) -> int:
    """Cancel every child run of a ``run_id`` that has not ended; how many there were."""
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[run_tag(run_id)]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=LIVE)),
    )
    with get_client(sync_client=True) as client:
        of_seams = FlowFilter(name=FlowFilterName(any_=["generate-transition"]))
        children: Sequence[FlowRun] = client.read_flow_runs(flow_filter=of_seams, flow_run_filter=wanted)
        for child in children:
            stop(client, child, run_id)
    return len(children)


def stop(client: SyncPrefectClient, child: FlowRun, run_id: str) -> None:
    """Cancel one child run."""
    client.set_flow_run_state(child.id, Cancelling(message=f"run {run_id} was stopped"))


def cancel_children_of(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of ``join-clips``, for on_cancellation and on_crashed.

    Where the flow's process was killed, its worker calls this in a process of its own: nothing but the arguments
    can be relied on. A second submission that is cancelled before it knows that it is one leaves the first's children
    alone.
    """
    with get_client(sync_client=True) as client:
        now = client.read_flow_run(flow_run.id)
    if is_at_work(now):
        cancel_children(str(flow_run.parameters["run_id"]))
