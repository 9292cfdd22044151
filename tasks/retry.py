"""Which failures are tried again: those that may pass by themselves, and no others."""

from __future__ import annotations

from typing import Any

import httpx
from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import CancelledRun, CrashedRun, PrefectHTTPStatusError
from splice.errors import TransferError


def may_pass(step: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help: a transfer was cut, a machine was lost, or Prefect's server was away."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransferError | CrashedRun | CancelledRun | httpx.TransportError) or (
        isinstance(error, PrefectHTTPStatusError) and error.response.is_server_error
    )


RETRY: dict[str, Any] = {"retries": 3, "retry_delay_seconds": [2, 10, 30], "retry_condition_fn": may_pass}
