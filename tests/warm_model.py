"""A model for ``warm_flows``: loaded once a process, and counted where it is loaded."""

from __future__ import annotations

import os
from functools import cache

loads = 0


@cache
def load() -> str:
    global loads
    loads += 1
    return f"model of process {os.getpid()}"
