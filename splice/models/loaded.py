"""The model that this process has loaded: a warm worker loads it once, not once for every seam."""

from __future__ import annotations

from threading import Lock

from splice.models.protocol import TransitionModel
from splice.models.registry import find_model

_loaded: dict[str, TransitionModel] = {}
_loading = Lock()


def loaded_model(name: str) -> TransitionModel:
    """The model of that name, loaded at the first call. Raises as ``find_model`` does.

    One at a time: a GPU has seldom room for two, so that another name gives up the model that was loaded before.
    """
    with _loading:
        if name not in _loaded:
            _loaded.clear()
            _loaded[name] = find_model(name)
        return _loaded[name]
