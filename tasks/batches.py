"""The steps of a batch run: look for batches, have each joined by a run of its own, show what became of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, cast

from prefect import Flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State
from prefect.deployments import run_deployment
from prefect.runtime import task_run
from prefect.states import Cancelling, Failed
from splice.batches import Batch, BatchRecord, Outcome, difference, find_batches, normal_source, slug_and_hash
from splice.errors import RequestError
from splice.records import JoinResult
from splice.storage import list_folder

from tasks.access import access_to
from tasks.guard import run_tag
from tasks.pool import IDLE_POOL_SECONDS, REMEDIES
from tasks.progress import interrupted
from tasks.records import read_record, record_key
from tasks.retry import may_pass
from tasks.steps import STEP

POLL_SECONDS = 2.0
WATCH_SECONDS = 2.0
"""How long a batch is watched before it is joined: a file of which the clock tells nothing may be growing still."""
TAKEN = "is taken by another request"
"""What join-clips says where a run_id was begun with other clips or settings."""

_one_at_a_time = Lock()


# Every run looks anew: nothing of this is to be taken from a run before, nor from a try before.
STEP_OF_ONE_RUN: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 3,
    "retry_delay_seconds": [5, 30, 120],
    "retry_condition_fn": may_pass,
}


def batch_key(run_id: str) -> str:
    """The key of a batch's record."""
    return f"timelapse-batch/{run_id}"


@task(**STEP_OF_ONE_RUN, name="look-for-batches")
def look_for_batches(source: str) -> tuple[Batch, ...]:
    """Every folder directly under ``source``, and what is in it. Raises RequestError where there is no such source."""
    place = normal_source(source)
    return tuple(_look_into(batch) for batch in find_batches(list_folder(place, access_to(place))))


def recall_batch(batch: Batch) -> BatchRecord | None:
    """What is kept of a batch that was done before."""
    return read_record(batch_key(batch.run_id), BatchRecord)


@task(**STEP_OF_ONE_RUN, name="join-batch", task_run_name="join {batch.name}")
def join_batch(batch: Batch, settings: dict[str, Any], deployment: str) -> Outcome | State[Any]:
    """Have one batch joined by a run of its own, and wait for it. Ends as Failed where that run does not end well."""
    if change := _watch(batch):
        return Outcome(batch=batch, status="still being written", detail=f"{change} since this run began")
    child = _start_run(batch, settings, deployment)
    get_run_logger().info("%s: %d clips, joined by the run %s", batch.name, len(batch.clips), child.name)
    state = _await_end(child, batch.name)
    if state.name == "AlreadyInProgress":
        return Outcome(batch=batch, status="in progress", detail=str(state.message))
    if not state.is_completed():
        return Failed(message=_reason_of(state))
    result = read_record(record_key(batch.run_id, "result"), JoinResult)
    if result is None:
        return Failed(
            message=f"{state.message}, but its record can't be found from here: give the work pool of this flow the "
            f"result storage that the pool of {deployment} has, and run it again: nothing is joined twice"
        )
    record = BatchRecord(run_id=batch.run_id, url=batch.url, clips=batch.clips, result=result.output.path)
    record_batch.with_options(refresh_cache=True)(batch_key(batch.run_id), record)
    return Outcome(batch=batch, status="done", detail=record.result)


@task(**STEP, name="record-batch")
def record_batch(key: str, record: BatchRecord) -> BatchRecord:
    """Keep what a batch was when it was done: later runs leave it alone."""
    return record


def show_outcomes(source: str, outcomes: Sequence[Outcome]) -> None:
    """The table of a run; runs over the same source keep theirs under one key, so that the UI shows their history."""
    place = normal_source(source)
    create_table_artifact(
        table=[outcome.as_row() for outcome in outcomes],
        key=f"timelapse-batch-{slug_and_hash(Path(place).name, place)}",
        description=f"The batches of `{place}`",
    )


def cancel_runs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancel the runs that a cancelled batch run has started and that have not ended."""
    live = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]), state=live)
    with get_client(sync_client=True) as client:
        for child in client.read_flow_runs(flow_run_filter=children):
            client.set_flow_run_state(child.id, Cancelling())


def _look_into(batch: Batch) -> Batch:
    try:
        return batch.with_files(list_folder(batch.url, access_to(batch.url)))
    except RequestError as error:
        return batch.with_problem(str(error))


def _watch(batch: Batch) -> str | None:
    """How the clips changed since they were listed; None where they did not."""
    time.sleep(WATCH_SECONDS)
    now = _look_into(batch)
    if now.unfinished:
        return f"{now.unfinished[0]} is new"
    return difference(batch.clips, now.clips)


def _start_run(batch: Batch, settings: dict[str, Any], deployment: str) -> FlowRun:
    clips = [{"url": clip.url} for clip in batch.clips]
    # Prefect numbers the children of a flow run without a lock.
    with _one_at_a_time:
        child = run_deployment(
            deployment,
            parameters={**settings, "clip_list": clips, "run_id": batch.run_id},
            timeout=0,
            flow_run_name=f"join-clips {batch.run_id}",
            tags=["timelapse-batch", run_tag(batch.run_id)],
            # This task, tried again after the network failed, finds the run that it started.
            idempotency_key=f"timelapse-batch/{task_run.id}",
        )
    return cast(FlowRun, child)


def _await_end(child: FlowRun, batch: str) -> State[Any]:
    """The state in which a run ends, however long that takes; says so once where nobody is there to take it up."""
    asked, is_told = time.monotonic(), False
    with get_client(sync_client=True) as client:
        while not (child.state and child.state.is_final()):
            if interrupted.wait(POLL_SECONDS):
                raise InterruptedError("interrupted")
            child = client.read_flow_run(child.id)
            if child.start_time is None and not is_told and time.monotonic() - asked > IDLE_POOL_SECONDS:
                asked = time.monotonic()
                is_told = _warn_of_idle_pool(client, child, batch)
    return child.state


def _reason_of(state: State[Any]) -> str:
    ended = "" if state.name == "Failed" else f"its run is {state.name}: "
    reason = ended + str(state.message).removeprefix("Flow run encountered an exception: ")
    # It was begun with other clips or settings. The name makes the run_id, which is all that join-clips knows of.
    return f"{reason}; that is: give the folder another name" if TAKEN in reason else reason


def _warn_of_idle_pool(client: SyncPrefectClient, child: FlowRun, batch: str) -> bool:
    """Say what to do where the pool has no worker; True where that was said."""
    pool = child.work_pool_name
    status = client.read_work_pool(pool).status if pool else None
    if pool is None or status not in REMEDIES:
        return False
    remedy = REMEDIES[status]
    get_run_logger().warning("%s: run %r waits for work pool %s: %s", batch, child.name, pool, remedy.format(pool))
    return True
