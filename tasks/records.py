"""Records of finished steps: results of Prefect tasks in Prefect's result storage, under readable keys."""

from __future__ import annotations

from typing import TypeVar

from prefect.results import ResultStore, get_result_store
from pydantic import BaseModel

Record = TypeVar("Record", bound=BaseModel)


def record_key(run_id: str, step: str, digest: str = "") -> str:
    """``join-clips/{run_id}/{step}``, and a digest of the step's inputs where those may change."""
    return f"join-clips/{run_id}/{step}-{digest}" if digest else f"join-clips/{run_id}/{step}"


def read_record(key: str, kind: type[Record]) -> Record | None:
    """The record under ``key``; None where there is none, or a killed process left half of one."""
    # A store of its own: the flow's is for its own result, and remembers what it has read.
    store = ResultStore(result_storage=get_result_store().result_storage, cache_result_in_memory=False)
    if not store.exists(key):
        return None
    try:
        record = store.read(key).result
    except ValueError:
        return None
    return record if isinstance(record, kind) else None
