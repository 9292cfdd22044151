"""The errors of the core.

    SpliceError
    +-- RequestError (also a ValueError)   the request can't be carried out as it stands; the user can change it
    +-- MediaError                         a file can't be read or written as it should be
    |   +-- TransferError                  it could not be fetched or stored now; the same thing may work later
    +-- GenerationError                    a transition model failed, or did not keep its promise
        +-- RecipeMismatch                 seams are made by another version of the code here than was asked for

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


class TransferError(MediaError):
    """A file could not be fetched or stored for a cause that may pass: what a retry is for.

    A connection that was cut or timed out, a server that is overloaded or away, a file that changed meanwhile.
    """


class GenerationError(SpliceError):
    """A transition model failed, or did not keep its promise: wrong count, size or type of frames."""


class RecipeMismatch(GenerationError):
    """A seam was asked for by another version of the code than this one: its frames would not be those of the run."""
