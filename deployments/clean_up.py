"""Removes what runs leave behind on the server: the limits that guarded each run_id against two runs at once.

``python -m deployments.clean_up`` now and then; no run deletes its own, since another may be waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from tasks.guard import LIMIT_PREFIX, run_tag

PAGE = 200

app: typer.Typer = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    older_than_days: Annotated[float, typer.Option(min=0, help="Leave alone what was used since.")] = 7,
    dry_run: Annotated[bool, typer.Option(help="Say what would be removed, and remove nothing.")] = False,
) -> None:
    """Remove the run guards' concurrency limits that are idle, old, and without a live run."""
    before = datetime.now(UTC) - timedelta(days=older_than_days)
    with get_client(sync_client=True) as client:
        limits = list(guards(client))
        unused = [limit for limit in limits if is_idle(limit, before) and not is_needed(client, limit)]
        for limit in unused:
            if not dry_run:
                client.delete_global_concurrency_limit_by_name(limit.name)
            typer.echo(f"{'would remove' if dry_run else 'removed'} {limit.name}")
    typer.echo(f"{len(unused)} of {len(limits)} limits {'to remove' if dry_run else 'removed'}")


def guards(client: SyncPrefectClient) -> Iterator[GlobalConcurrencyLimitResponse]:
    """Every limit that guards a run_id, page by page."""
    offset = 0
    while page := client.read_global_concurrency_limits(limit=PAGE, offset=offset):
        yield from (limit for limit in page if limit.name.startswith(LIMIT_PREFIX))
        offset += len(page)


def is_idle(limit: GlobalConcurrencyLimitResponse, before: datetime) -> bool:
    """Whether nobody holds it, or has taken it or let it go since ``before``."""
    used = limit.updated or limit.created
    return limit.active_slots == 0 and used is not None and used < before


def is_needed(client: SyncPrefectClient, limit: GlobalConcurrencyLimitResponse) -> bool:
    """Whether a run that is not over belongs to it: one that waits may come to need it."""
    tag = run_tag(limit.name.removeprefix(LIMIT_PREFIX))
    live = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]), state=live), limit=1)
    return bool(runs)


if __name__ == "__main__":
    app()
