"""The flow ``timelapse-batch``: every new folder of clips becomes one video, each by a run of ``join-clips``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from logging import ERROR, INFO
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field
from splice.batches import Batch, Outcome, check_settings, judge, summary
from tasks.batches import (
    cancel_runs,
    join_batch,
    look_for_batches,
    recall_batch,
    show_outcomes,
)
from tasks.deployments import require_deployment
from tasks.progress import stopping_with_the_flow


@flow(name="timelapse-batch", flow_run_name="timelapse-batch {source}", on_cancellation=[cancel_runs])
def timelapse_batch(
    source: str,
    max_concurrent: Annotated[int, Field(ge=1)] = 2,
    settings: dict[str, Any] = {},  # noqa: B006 - a schema needs the value; nobody changes it
    deployment: str = "join-clips/prod",
    settle_seconds: Annotated[int, Field(ge=0)] = 120,
) -> State[Any]:
    """Join the clips of every folder that is new, each into one video, by a run of join-clips.

    A batch is a folder (a prefix) directly under the source that holds at least 2 clips; they are taken in natural
    order: clip2 before clip10. A batch that is done is never done again; one that failed is tried again.

    Args:
        source: a folder's path, file:// or s3:// prefix that holds a folder of clips for each video
        max_concurrent: batches joined at once
        settings: parameters of join-clips for every batch; clip_list and run_id are each batch's own
        deployment: the deployment of join-clips that joins each batch
        settle_seconds: how long all files of a batch must have been left alone before it is taken as complete
    """
    check_settings(settings)
    require_deployment("deployment", deployment)
    batches = look_for_batches(source)
    now_seconds = time.time()
    judged = {batch.run_id: judge(batch, recall_batch(batch), now_seconds, settle_seconds) for batch in batches}
    ready = [batch for batch in batches if judged[batch.run_id] is None]
    joined = join_batches(ready, max_concurrent, settings, deployment)
    return finish(source, [judged[batch.run_id] or joined[batch.run_id] for batch in batches])


def join_batches(
    batches: Sequence[Batch], max_concurrent: int, settings: dict[str, Any], deployment: str
) -> dict[str, Outcome]:
    """A run of join-clips for each batch, so many at once; one that fails holds up no other. By run_id."""
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=max_concurrent)
    with runner, stopping_with_the_flow():
        shared = {"settings": settings, "deployment": deployment}
        futures = {batch.run_id: runner.submit(join_batch, {"batch": batch, **shared}) for batch in batches}
        wait(list(futures.values()))
    return {batch.run_id: outcome_of(batch, futures[batch.run_id]) for batch in batches}


def outcome_of(batch: Batch, future: PrefectFuture[Any]) -> Outcome:
    if future.state.is_completed():
        outcome: Outcome = future.result()
        return outcome
    return Outcome(batch=batch, status="failed", detail=str(future.state.message))


def finish(source: str, outcomes: Sequence[Outcome]) -> State[Any]:
    """Say of every batch what became of it, and how the run ends: Failed where one failed."""
    for outcome in outcomes:
        level = ERROR if outcome.status == "failed" else INFO
        get_run_logger().log(level, "%s: %s: %s", outcome.batch.name, outcome.status, outcome.detail)
    show_outcomes(source, outcomes)
    has_failed = any(outcome.status == "failed" for outcome in outcomes)
    return Failed(message=summary(outcomes)) if has_failed else Completed(message=summary(outcomes))
