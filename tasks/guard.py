"""At most one process works on a run. Advisory: finished files and records survive two, who only do too much.

On one machine a lock on a file, which the kernel frees when its holder dies; between machines a leased limit of
Prefect's server, which frees itself within about a minute.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL
from splice.errors import RequestError, SpliceError
from splice.layout import RunFolder
from splice.media import PARTIAL_PREFIX

LIMIT_PREFIX = "join-clips:"
"""Of the names of the limits; they stay, and ``deployments/clean_up.py`` removes those that are old."""

LEASE_SECONDS = 60  # Prefect allows no less
PATIENCE_SECONDS = 120
"""How long to wait for a slot that no live run holds, until the dead holder's lease is freed (within 75 s)."""

POLL_SECONDS = 2
AT_WORK = "at-work:"


@contextmanager
def hold_run(run_id: str, folder: RunFolder) -> Iterator[bool]:
    """True while this flow run holds ``run_id``; False at once where another one does.

    Whoever holds it deletes the half-written files of a holder that was killed.
    Raises RequestError where the folder can't be written to; SpliceError where a dead holder's slot is not freed.
    """
    _tag_own_run(run_id)
    with ExitStack() as held:
        is_held = _lock(folder, held) and (not PREFECT_API_URL.value() or _lease(run_id, held))
        if is_held:
            _tag_own_run(run_id, _at_work())
            _delete_partials(folder)
        yield is_held


def _delete_partials(folder: RunFolder) -> None:
    for partial in list(folder.path.rglob(f"{PARTIAL_PREFIX}*")):
        # A child run that has outlived the holder may be writing its window.
        if folder.path / "seams" in partial.parents:
            continue
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def run_tag(run_id: str) -> str:
    """The tag by which the UI, and other runs, find everything that is done for a ``run_id``."""
    return f"run_id:{run_id}"


def other_live_runs(run_id: str) -> list[FlowRun]:
    """Every other run of ``join-clips`` under this ``run_id`` that has begun and not ended, those at work first."""
    own = _own_run()
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["join-clips"])),
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=[run_tag(run_id)]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])),
            ),
        )
    return sorted((run for run in runs if run.id != own.id), key=is_at_work, reverse=True)


def is_at_work(run: FlowRun) -> bool:
    """Whether a run holds its run_id, or did when it ended."""
    return any(tag.startswith(AT_WORK) for tag in run.tags)


def _at_work() -> str:
    """The tag of whoever holds its run_id: several may wait for the slot of a dead one."""
    return f"{AT_WORK}{platform.node()}"


def _own_run() -> FlowRun:
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None, "only a flow holds a run"
    return context.flow_run


def _tag_own_run(run_id: str, *more: str) -> None:
    own = _own_run()
    with get_client(sync_client=True) as client:
        client.update_flow_run(own.id, tags={*own.tags, run_tag(run_id), *more})


def _lock(folder: RunFolder, held: ExitStack) -> bool:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = held.enter_context(folder.lock.open("w"))
    except OSError as error:
        raise RequestError(
            f"{folder.path}: can't be written to ({error.strerror}); choose another output_base_dir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lease(run_id: str, held: ExitStack) -> bool:
    name = f"{LIMIT_PREFIX}{run_id}"
    _create_limit(name)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        if _is_free(name) and _take(name, held):
            return True
        # This process has the lock, so that whoever was at work on this machine is dead, whatever its state.
        if any(is_at_work(run) and _at_work() not in run.tags for run in other_live_runs(run_id)):
            return False
        time.sleep(POLL_SECONDS)
    raise SpliceError(
        f"run {run_id}: the concurrency limit {name} was not freed within {PATIENCE_SECONDS} s, and no run is at work "
        f"that could hold it; free it by hand: prefect gcl update {name!r} --active-slots 0"
    )


def _is_free(name: str) -> bool:
    """Whether it is worth trying: for one that is taken Prefect would log an error."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(name).active_slots == 0


def _take(name: str, held: ExitStack) -> bool:
    slot = concurrency(
        name,
        timeout_seconds=POLL_SECONDS,
        lease_duration=LEASE_SECONDS,
        strict=True,
        # A server that was away for a while is no reason to give up: a double run does no harm.
        raise_on_lease_renewal_failure=False,
    )
    try:
        held.enter_context(slot)
    except AcquireConcurrencySlotTimeoutError:
        return False
    return True


def _create_limit(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        except ObjectAlreadyExists:
            return
