"""Which transition models there are. A package adds its own through the entry-point group below."""

from __future__ import annotations

from importlib.metadata import entry_points

from splice.errors import RequestError
from splice.models.protocol import ModelSpec, TransitionModel
from splice.models.vace.presets import PRESETS

ENTRY_POINTS = "join_clips.transition_models"
"""Each entry point is a callable without arguments that returns a TransitionModel; its name is the model's."""

EMBEDDED_MODELS = ("flow_morph", "crossfade")


def find_model(name: str) -> TransitionModel:
    """The model of that name, ready to render. Raises RequestError: unknown, or not able to run here."""
    from splice.models.vace.model import Vace

    model = _find(name)
    if isinstance(model, Vace):
        model.require()
    return model


def spec_of(name: str) -> ModelSpec:
    """What the planner needs to know of a model, wherever it is to run. Raises RequestError where it is unknown."""
    return _find(name).spec


def _find(name: str) -> TransitionModel:
    if name == "flow_morph":
        from splice.models.flow_morph import FlowMorph

        return FlowMorph()
    if name == "crossfade":
        from splice.models.crossfade import Crossfade

        return Crossfade()
    added = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in added:
        model: TransitionModel = added[name].load()()
        return model
    from splice.models.vace.model import find_vace

    if vace := find_vace(name):
        return vace
    raise RequestError(
        f"model {name} is unknown; known are {', '.join([*EMBEDDED_MODELS, *added])}, which run anywhere, "
        f"{', '.join(PRESETS)}, and the folder of any saved WanVACEPipeline"
    )
