"""What the command line and the steps tell each other: progress one way, an interruption the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from typing import TypeVar

from prefect.exceptions import TerminationSignal
from rich.progress import Progress

Item = TypeVar("Item")

display: ContextVar[Progress | None] = ContextVar("display", default=None)
"""Prefect hands a copy of the context to every task that it starts in a thread."""

interrupted = Event()
"""Set once this process is to end: threads can't be stopped from outside, and an encode may take minutes."""


@contextmanager
def stopping_with_the_flow() -> Iterator[None]:
    """Steps stop, and stop waiting, once the flow's process is told to end: by whoever cancels it, say."""
    try:
        yield
    except TerminationSignal:
        interrupted.set()
        raise


def tracked(items: Iterator[Item], description: str, total: int) -> Iterator[Item]:
    """The same items; while they are drawn a bar of ``total`` steps is on show, if there is a display.

    Raises InterruptedError between two items once ``interrupted`` is set.
    """
    progress = display.get()
    bar = progress.add_task(description, total=total) if progress else None
    for item in items:
        if interrupted.is_set():
            raise InterruptedError("interrupted")
        yield item
        if progress and bar is not None:
            progress.advance(bar)
    if progress and bar is not None:
        progress.remove_task(bar)
