"""A progress bar on the terminal, where the command line has put one up; nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TypeVar

from rich.progress import Progress

Item = TypeVar("Item")

display: ContextVar[Progress | None] = ContextVar("display", default=None)
"""Prefect hands a copy of the context to every task that it starts in a thread."""


def tracked(items: Iterator[Item], description: str, total: int) -> Iterator[Item]:
    """The same items; while they are drawn a bar of ``total`` steps is on show."""
    progress = display.get()
    if progress is None:
        yield from items
        return
    bar = progress.add_task(description, total=total)
    for item in items:
        yield item
        progress.advance(bar)
    progress.remove_task(bar)
