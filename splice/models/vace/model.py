"""A Wan VACE model as a transition model: its engine is loaded at the first seam that it renders. Needs no torch."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from splice.errors import RequestError
from splice.models.protocol import Guide, ModelSettings, ModelSpec, Rendering, WindowRule
from splice.models.vace.conditions import lay_conditions, lay_start, working_size
from splice.models.vace.finish import finish
from splice.models.vace.presets import Preset, find_preset
from splice.models.vace.schedule import plan_steps
from splice.models.weights import (
    REPOSITORY,
    check_classes,
    check_loras,
    digest_contents,
    home_of,
    pinned,
    repositories_of,
    require_weights,
)
from splice.stride import fill_frames, stride_guide

if TYPE_CHECKING:
    from splice.models.vace.engine import Engine

REVISION = "1"
"""To be raised with any change here, of a preset or of what is done with its frames, that makes other frames."""

RATE_TOLERANCE = 0.1

ANYWHERE = "or choose model=flow_morph, which runs anywhere"

OVERRIDES = frozenset(field.name for field in fields(ModelSettings) if field.default is not MISSING)


class Vace:
    """A preset, or a saved pipeline; what makes it what it is stands in its preset."""

    def __init__(self, preset: Preset, source: str) -> None:
        """source: what the revision is made of, beyond the code."""
        self._preset = preset
        self._source = source
        self._making = Lock()
        self._made: Engine | None = None

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            name=self._preset.name,
            revision=f"{REVISION} {self._source}",
            renders_context=True,
            window=WindowRule(4, self._preset.max_window),
            overrides=OVERRIDES,
            step_multiple=max(1, len(self._preset.phases)),
            takes_tensors=True,
        )

    def require(self) -> None:
        """Raises RequestError where it can't run on this machine: what is missing, and what to do."""
        name = self._preset.name
        if find_spec("torch") is None or find_spec("diffusers") is None:
            raise RequestError(
                f"model {name} needs torch and diffusers: pip install -c constraints.txt '.[gpu]'; {ANYWHERE}"
            )
        if self._preset.needs_gpu:
            import torch

            if not torch.cuda.is_available():
                raise RequestError(
                    f"model {name} needs a CUDA GPU, and torch finds none here; send its seams to one by "
                    f"gpu_deployment=generate-transition/gpu, {ANYWHERE}"
                )
        try:
            self._folder  # noqa: B018 - raises
        except RequestError as error:
            raise RequestError(f"{error}; {ANYWHERE}") from error

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        check_loras(settings.additional_loras)
        from splice.models.vace.engine import Job

        preset = self._preset
        whole, guide = guide, stride_guide(guide, settings.time_stride)
        prompt = self._prompt(guide, settings)
        height, width = guide.left.shape[1:3]
        size = working_size(width, height, preset.native_pixels, settings.generation_resolution)
        steps = plan_steps(preset, settings.num_inference_steps, settings.guidance_scale) if preset.phases else ()
        guidance = preset.guidance_scale if settings.guidance_scale is None else settings.guidance_scale
        job = Job(
            conditions=lay_conditions(guide, size),
            prompt=prompt,
            negative_prompt=settings.negative_prompt or preset.negative_prompt,
            seed=settings.seed,
            step_count=settings.num_inference_steps or preset.num_inference_steps,
            guidance=guidance,
            steps=steps,
            loras=settings.additional_loras,
            start=None if guide.replaced is None else lay_start(guide, guide.replaced, size),
            strength=1.0 if settings.vid2vid_strength is None else settings.vid2vid_strength,
        )
        rendered, notes = self._engine.run(job)
        finished = finish(guide, size, rendered)
        asked = {"prompt": prompt, **self._rate_note(guide)}
        return Rendering(
            fill_frames(whole, settings.time_stride, finished.frames), {**notes, **finished.notes, **asked}
        )

    def _prompt(self, guide: Guide, settings: ModelSettings) -> str:
        if settings.prompt_model is None:
            return settings.prompt
        from splice.models.prompt_writer import write_prompt

        return write_prompt(guide, settings.prompt, settings.prompt_model)

    def _rate_note(self, guide: Guide) -> dict[str, str | float]:
        """Where the model sees another rate than its own, at which things move at another speed than it knows."""
        if abs(guide.rate / self._preset.model_fps - 1) < RATE_TOLERANCE:
            return {}
        return {"rate": f"{float(guide.rate):g} frames a second, the model was made for {self._preset.model_fps}"}

    @cached_property
    def _folder(self) -> Path:
        saved = Path(self._preset.repository)
        if saved.is_dir():
            check_classes(saved)
            return saved
        return require_weights(self._preset)

    @property
    def _engine(self) -> Engine:
        from splice.models.vace.engine import Engine

        with self._making:
            if self._made is None:
                self.require()
                loras = {lora.name: home_of(lora.repository) / lora.file for lora in self._preset.loras}
                # A repository of the hub is known to hold what only its folder says.
                preset = self._preset if self._preset.weights_gb else _as_saved(self._preset.name, self._folder)
                self._made = Engine(preset, self._folder, loras)
            return self._made


def find_vace(name: str) -> Vace | None:
    """The model of a preset's name, of a saved pipeline's folder, or of a repository of the hub.

    None where the name is like none of these. Raises RequestError where it is a folder of something else, or it can't
    be known which commit of a repository is meant.
    """
    if preset := find_preset(name):
        return Vace(preset, " ".join([preset.name, *repositories_of(preset)]))
    if Path(name).is_dir():
        folder = Path(name).resolve()
        check_classes(folder)
        return Vace(_as_saved(name, folder), _contents(folder))
    if not REPOSITORY.fullmatch(name):
        return None
    try:
        return Vace(Preset(name, name, needs_gpu=False), pinned(name))
    except RequestError as error:
        raise RequestError(f"{error}; {ANYWHERE}") from error


def _as_saved(name: str, folder: Path) -> Preset:
    experts = [part for part in ("transformer", "transformer_2") if (folder / part).is_dir()]
    return Preset(
        name,
        str(folder),
        needs_gpu=False,
        expert_count=len(experts),
        weights_gb=sum(_weights_gb(folder / part) for part in experts),
        text_encoder_gb=_weights_gb(folder / "text_encoder"),
    )


def _weights_gb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9


def _contents(folder: Path) -> str:
    return digest_contents({str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()})
