"""The errors of the core.

    SpliceError
    +-- RequestError (also a ValueError)   the request can't be carried out as it stands; the user can change it
    +-- MediaError                         a file can't be read or written as it should be
    +-- GenerationError                    a transition model did not keep its promise

Every message says what, where, got, needed, and the remedy.
"""

from __future__ import annotations


class SpliceError(Exception):
    """Base of every error that this project raises on purpose."""


class RequestError(SpliceError, ValueError):
    """The request can't be carried out as it stands. Raised before anything is downloaded or written."""


class MediaError(SpliceError):
    """A media file can't be read or written as it should be."""


class GenerationError(SpliceError):
    """A transition model did not keep its promise: wrong count, size or type of frames."""
