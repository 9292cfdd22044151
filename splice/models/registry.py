"""Which transition models there are. A package adds its own through the entry-point group below."""

from __future__ import annotations

from importlib.metadata import entry_points

from splice.errors import RequestError
from splice.models.protocol import ModelSpec, TransitionModel

ENTRY_POINTS = "join_clips.transition_models"
"""Each entry point is a callable without arguments that returns a TransitionModel; its name is the model's."""

GPU_MODELS = (
    "lightning_baseline_2_2_2",
    "wan_2_2_vace_lightning_baseline_2_2_2",
    "vace_14b",
    "vace_1_3b",
)

EMBEDDED_MODELS = ("flow_morph", "crossfade")


def find_model(name: str) -> TransitionModel:
    """The model of that name, ready to render. Raises RequestError: unknown, or not able to run here."""
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
    here = ", ".join([*EMBEDDED_MODELS, *added])
    if name in GPU_MODELS:
        raise RequestError(
            f"model {name} needs a GPU and its weights, and is not available yet; models that run here: {here} "
            f"(for example model=flow_morph)"
        )
    if "/" in name:
        raise RequestError(f"model {name}: saved pipelines are not available yet; models that run here: {here}")
    raise RequestError(f"model {name} is unknown; known are {', '.join(GPU_MODELS)}, and those that run here: {here}")


def spec_of(name: str) -> ModelSpec:
    """What the planner needs to know of a model. Raises RequestError like ``find_model``."""
    return find_model(name).spec
