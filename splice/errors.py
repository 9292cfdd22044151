"""The errors of the core.

    SpliceError
    +-- RequestError (also a ValueError)   the request can't be carried out as it stands; the user can change it
    +-- MediaError                         a file can't be read or written as it should be
    +-- GenerationError                    a transition model did not keep its promise

Every message says what, where, got, needed, and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SpliceError(Exception):
    """Base of every error that this project raises on purpose."""


class RequestError(SpliceError, ValueError):
    """The request can't be carried out as it stands. Raised before anything is downloaded or written.

    remedy: parameters of the request, as upper limits for every join, with which the plan works;
        empty where the message alone says what to do.
    """

    def __init__(self, message: str, remedy: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.remedy: Mapping[str, Any] = dict(remedy or {})


class MediaError(SpliceError):
    """A media file can't be read or written as it should be."""


class GenerationError(SpliceError):
    """A transition model did not keep its promise: wrong count, size or type of frames."""
