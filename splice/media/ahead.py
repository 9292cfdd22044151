"""Work done ahead in a thread of its own: FFmpeg and numpy let go of the interpreter while they work."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

BATCHES = 8


def ahead(items: Iterator[T], batch: int = 1) -> Iterator[T]:
    """The same items, at most BATCHES of ``batch`` items before they are asked for; raises what making them does."""
    with ThreadPoolExecutor(max_workers=1) as maker:
        upcoming = deque(maker.submit(_take, items, batch) for _ in range(BATCHES))
        try:
            while made := upcoming.popleft().result():
                upcoming.append(maker.submit(_take, items, batch))
                yield from made
        finally:
            for waiting in upcoming:
                waiting.cancel()


def _take(items: Iterator[T], batch: int) -> list[T]:
    return list(islice(items, batch))
