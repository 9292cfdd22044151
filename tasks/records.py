"""Records of finished steps: results of Prefect tasks in Prefect's result storage, under readable keys."""

from __future__ import annotations

from typing import TypeVar

from prefect.results import ResultStore, get_result_store
from pydantic import BaseModel
from splice.errors import RequestError

Record = TypeVar("Record", bound=BaseModel)


def record_key(run_id: str, step: str, digest: str = "") -> str:
    """``join-clips/{run_id}/{step}``, and a digest of the step's inputs where those may change."""
    return f"join-clips/{run_id}/{step}-{digest}" if digest else f"join-clips/{run_id}/{step}"


def read_record(key: str, kind: type[Record]) -> Record | None:
    """The record under ``key``; None where there is none, or a killed process left half of one."""
    store = _store()
    if not store.exists(key):
        return None
    try:
        record = store.read(key).result
    except ValueError:
        return None
    return record if isinstance(record, kind) else None


def require_record(key: str) -> None:
    """Raises RequestError where a record that was just kept is not there: Prefect only logs that, and goes on."""
    store = _store()
    if not store.exists(key):
        storage = store.result_storage
        place = getattr(storage, "basepath", None) or type(storage).__name__
        raise RequestError(
            f"the record {key} can't be kept in Prefect's result storage ({place}), the log says why; without records "
            f"work would be done twice: make that writable, or choose another: JOIN_CLIPS_RESULTS=... make deploy on a "
            f"fleet, else PREFECT_LOCAL_STORAGE_PATH"
        )


def _store() -> ResultStore:
    """A store of its own: the flow's is for its own result, and remembers what it has read."""
    return ResultStore(result_storage=get_result_store().result_storage, cache_result_in_memory=False)
