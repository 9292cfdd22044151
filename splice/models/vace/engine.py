"""Runs a preset through diffusers' WanVACEPipeline. The only module of the core that imports torch."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from threading import Lock
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanVACEPipeline
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoTokenizer, UMT5EncoderModel

from splice.errors import GenerationError, RequestError
from splice.models.protocol import Pictures
from splice.models.vace.conditions import Conditions, Rendered, reencoded_frames
from splice.models.vace.memory import SAME_FRAMES, ChosenPlan, Plan, Room, choose_plans, free_host_bytes
from splice.models.vace.presets import Expert, Preset
from splice.models.vace.schedule import TRAIN_TIMESTEPS, UNGUIDED, Step, boundary_of
from splice.models.weights import digest_contents
from splice.settings import settings

LOCAL: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}

MOST_TOKENS = 512
"""Of a prompt: what WanVACEPipeline's own default is."""

TIMESTEP_TOLERANCE = 0.01

MOST_REASON = 240
"""Characters of a library's message, which may have a line for each layer."""


@dataclass(frozen=True)
class Job:
    """One window. steps: of a phased preset; else empty, and count and guidance hold for all.

    loras: (file, weight) beyond the preset's own, active in every step and expert. start: None, or the window that it
    starts from, like the conditions' video; strength: of the steps, 0..1, those that are done then.
    """

    conditions: Conditions
    prompt: str
    negative_prompt: str
    seed: int
    step_count: int
    guidance: float
    steps: tuple[Step, ...] = ()
    loras: tuple[tuple[str, float], ...] = ()
    start: NDArray[np.float32] | None = None
    strength: float = 1.0

    @property
    def skipped_steps(self) -> int:
        return self.step_count - max(1, round(self.strength * self.step_count))


_card = Lock()
"""One job at a time, whatever its model: two would need memory that was planned for one."""

MOST_TEXTS = 64
"""Prompts whose embeddings are kept, of 4 MB each."""


class Engine:
    """A saved pipeline, loaded once; whatever a job changes is put back after it."""

    def __init__(self, preset: Preset, folder: Path, loras: Mapping[str, Path]) -> None:
        """folder: of the saved pipeline. loras: the files of the preset's own, by their names."""
        self._preset = preset
        self._folder = folder
        self._loras = loras
        self._embeddings: dict[str, torch.Tensor] = {}
        self._room: Room | None = None
        self._too_much: dict[Plan, float] = {}
        self._pipeline: Any = None
        self._loaded: tuple[Plan, str] | None = None

    def run(self, job: Job) -> tuple[Rendered, dict[str, str | float]]:
        """Render a window, and notes for the report.

        Raises GenerationError: no plan has enough memory; the pipeline rendered another number or size of frames.
        RequestError: LoRA weights that are for another model, an attention that is not there.
        """
        with _card:
            return self._run(job)

    def _run(self, job: Job) -> tuple[Rendered, dict[str, str | float]]:
        texts = [job.prompt, job.negative_prompt] if job.guidance > UNGUIDED else [job.prompt]
        if self._room is None:
            self._room = _measure_room()
        embeddings = self._embed(texts)
        megapixels = _megapixels(job)
        shortage = f"free are {self._room}"
        for chosen in self._loaded_first(choose_plans(self._preset, megapixels, self._room)):
            if megapixels >= self._too_much.get(chosen.plan, math.inf):
                continue
            try:
                rendered = self._attempt(chosen.plan, job, embeddings)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                shortage = str(error).partition("\n")[0]
            else:
                failed = ", ".join(plan.value for plan in self._too_much if megapixels >= self._too_much[plan])
                reason = f"{chosen.reason}; ran out of memory: {failed}" if failed else chosen.reason
                return rendered, {"memory_plan": chosen.plan.value, "memory_reason": reason}
            # Not before here: the traceback of the error holds the tensors.
            self._too_much[chosen.plan] = megapixels
            self._drop()
        # The next job may find more: another program may have held it.
        self._room, self._too_much = None, {}
        raise GenerationError(
            f"model {self._preset.name} has not enough memory for a window of {megapixels:.0f} megapixels in any way "
            f"of using this machine ({shortage}); use a smaller generation_resolution, a smaller gap_frame_count, or "
            f"another machine"
        )

    def _loaded_first(self, plans: list[ChosenPlan]) -> list[ChosenPlan]:
        """The plan that is laid out already comes first, where that makes the same frames: loading takes minutes."""
        loaded = self._loaded[0] if self._loaded else None
        if not plans or not {plans[0].plan, loaded} <= SAME_FRAMES:
            return plans
        return sorted(plans, key=lambda chosen: chosen.plan is not loaded)

    def _attempt(self, plan: Plan, job: Job, embeddings: list[torch.Tensor]) -> Rendered:
        pipeline = self._require(plan, tuple(file for file, _ in job.loras))
        try:
            return self._generate(pipeline, job, embeddings)
        finally:
            # The pipeline does so where it ends well, and before its VAE is used again; what a failure left on the
            # card would be missing there for the next job.
            pipeline.maybe_free_model_hooks()

    def _generate(self, pipeline: Any, job: Job, embeddings: list[torch.Tensor]) -> Rendered:
        _check_steps(pipeline.scheduler, job.step_count)
        video = job.conditions.video
        frames, _, height, width = video.shape[1:]
        device = pipeline._execution_device
        call: dict[str, Any] = {
            "video": torch.from_numpy(video),
            "mask": torch.from_numpy(job.conditions.mask),
            "prompt_embeds": embeddings[0].to(device),
            "negative_prompt_embeds": embeddings[1].to(device) if len(embeddings) > 1 else None,
            "height": height,
            "width": width,
            "num_frames": frames,
            "num_inference_steps": job.step_count,
            "guidance_scale": job.guidance,
            "generator": torch.Generator("cpu").manual_seed(job.seed),
            "output_type": "pt",
        }
        with self._adapters(pipeline, job), _starting_late(pipeline.scheduler, job.skipped_steps):
            if job.steps:
                call |= self._phased(pipeline, job)
            if job.start is not None:
                call["latents"] = _noised(pipeline, job, call["generator"])
            rendered = pipeline(**call).frames[0]
        if tuple(rendered.shape) != (frames, 3, height, width):
            raise GenerationError(
                f"model {self._preset.name} rendered {tuple(rendered.shape)}, needed is {(frames, 3, height, width)}"
            )
        return Rendered(_to_pictures(rendered), _reencode(pipeline, job.conditions))

    def _phased(self, pipeline: Any, job: Job) -> dict[str, Any]:
        """How the pipeline is made to follow the steps. Raises AssertionError where its schedule is another one."""
        pipeline.scheduler.set_timesteps(job.step_count)
        steps = job.steps[job.skipped_steps :]
        planned = torch.tensor([step.timestep for step in steps])
        assert torch.allclose(pipeline.scheduler.timesteps.cpu(), planned, atol=TIMESTEP_TOLERANCE)
        # Where the second expert takes over depends on how many steps there are: the phases are equally long.
        pipeline.register_to_config(boundary_ratio=boundary_of(job.steps))

        def enter_next(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if index + 1 < len(steps):
                step = steps[index + 1]
                # The weight is a local of the pipeline's: from here it can only be switched off.
                pipe._guidance_scale = step.guidance
                self._activate(pipe, step.expert, dict(step.loras), job)
            return tensors

        return {
            "guidance_scale": steps[0].guidance,
            "guidance_scale_2": UNGUIDED,
            "callback_on_step_end": enter_next,
        }

    @contextmanager
    def _adapters(self, pipeline: Any, job: Job) -> Iterator[None]:
        """The LoRA weights of the first step; afterwards all are there with no weight."""
        try:
            for expert in _experts(pipeline):
                first = next((step for step in job.steps[job.skipped_steps :] if step.expert == expert), None)
                self._activate(pipeline, expert, dict(first.loras) if first else {}, job)
            yield
        finally:
            for expert in _experts(pipeline):
                names = list(getattr(getattr(pipeline, expert), "peft_config", {}))
                if names:
                    getattr(pipeline, expert).set_adapters(names, [0.0] * len(names))

    def _activate(self, pipeline: Any, expert: Expert, weights: Mapping[str, float], job: Job) -> None:
        """Set the weights of all adapters of an expert by name: only those that are named are active."""
        added = {_adapter_name(index): weight for index, (_, weight) in enumerate(job.loras)}
        wanted = {**weights, **added}
        if wanted:
            getattr(pipeline, expert).set_adapters(list(wanted), list(wanted.values()))

    def _require(self, plan: Plan, loras: tuple[str, ...]) -> Any:
        """The pipeline, loaded anew where it was laid out by another plan or with other LoRA files."""
        wanted = plan, digest_contents({file: Path(file) for file in loras})
        if self._loaded != wanted:
            self._drop()
            self._pipeline, self._loaded = self._load(plan, loras), wanted
        return self._pipeline

    def _load(self, plan: Plan, loras: tuple[str, ...]) -> Any:
        """The pipeline without its text encoder, by ``plan``: LoRA, casting, offload, compiling, in this order."""
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        vae = AutoencoderKLWan.from_pretrained(self._folder, subfolder="vae", dtype=torch.float32, **LOCAL)
        pipeline = WanVACEPipeline.from_pretrained(
            self._folder, vae=vae, text_encoder=None, tokenizer=None, dtype=dtype, **LOCAL
        )
        pipeline.set_progress_bar_config(disable=True)
        self._set_schedule(pipeline)
        for lora in self._preset.loras:
            _load_lora(pipeline, self._loras[lora.name], lora.name, lora.expert)
        for index, file in enumerate(loras):
            for expert in _experts(pipeline):
                _load_lora(pipeline, Path(file), _adapter_name(index), expert)
        _set_attention(pipeline)
        if settings().channels_last:
            _keep_channels_together(pipeline.vae)
        _lay_out(pipeline, plan)
        if settings().compile:
            for expert in _experts(pipeline):
                getattr(pipeline, expert).compile_repeated_blocks()
        return pipeline

    def _set_schedule(self, pipeline: Any) -> None:
        preset = self._preset
        if preset.scheduler == "euler":
            # Made with its shift it would be shifted twice.
            pipeline.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_TIMESTEPS)
            pipeline.scheduler.set_shift(preset.shift)
        elif preset.shift is not None:
            config = pipeline.scheduler.config
            pipeline.scheduler = type(pipeline.scheduler).from_config(config, flow_shift=preset.shift)

    def _embed(self, texts: list[str]) -> list[torch.Tensor]:
        """(1, MOST_TOKENS, width) each. On the CPU: the card is the transformer's, and the numbers stay the same."""
        if unknown := [text for text in dict.fromkeys(texts) if text not in self._embeddings]:
            if len(self._embeddings) > MOST_TEXTS:
                self._embeddings.clear()
                unknown = list(dict.fromkeys(texts))
            if free_host_bytes() < self._preset.text_encoder_gb * 1e9:
                self._drop()
            tokenizer = AutoTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
            _check_lengths(tokenizer, unknown)
            encoder = UMT5EncoderModel.from_pretrained(self._folder / "text_encoder", dtype=torch.bfloat16, **LOCAL)
            reader = WanVACEPipeline(tokenizer=tokenizer, text_encoder=encoder, vae=None, scheduler=None)
            for text in unknown:
                with torch.no_grad():
                    self._embeddings[text], _ = reader.encode_prompt(
                        text,
                        do_classifier_free_guidance=False,
                        max_sequence_length=MOST_TOKENS,
                        device=torch.device("cpu"),
                    )
            del reader, encoder
            _collect()
        return [self._embeddings[text] for text in texts]

    def _drop(self) -> None:
        """Give back all memory, hooks and all: a pipeline that was offloaded can't be laid out anew."""
        if self._pipeline is not None:
            self._pipeline.remove_all_hooks()
        self._pipeline = self._loaded = None
        _collect()


def _check_lengths(tokenizer: Any, texts: list[str]) -> None:
    """Raises RequestError where one is longer than the model reads: the pipeline would cut it without a word."""
    for text in texts:
        tokens = len(tokenizer(text).input_ids)
        if tokens > MOST_TOKENS:
            raise RequestError(
                f"prompt {shorten(text, 60)!r}: has {tokens} tokens, the model reads {MOST_TOKENS}; shorten it"
            )


def _check_steps(scheduler: Any, count: int) -> None:
    """Raises RequestError where there are too many: UniPC's timesteps are whole, and fail it where two are the same."""
    scheduler.set_timesteps(count)
    if len(set(scheduler.timesteps.tolist())) < count:
        raise RequestError(
            f"num_inference_steps is {count}: so many would be alike to this model's scheduler; use fewer"
        )


@contextmanager
def _starting_late(scheduler: Any, skipped: int) -> Iterator[None]:
    """Leave out the first steps; the pipeline itself always asks for all."""
    whole = scheduler.set_timesteps

    def shortened(*arguments: Any, **named: Any) -> None:
        whole(*arguments, **named)
        scheduler.timesteps = scheduler.timesteps[skipped:]
        scheduler.sigmas = scheduler.sigmas[skipped:]

    scheduler.set_timesteps = shortened
    try:
        yield
    finally:
        del scheduler.set_timesteps


def _noised(pipeline: Any, job: Job, generator: Any) -> torch.Tensor:
    """Latents of the frames to start from, with as much noise as the first step expects: (1 - sigma) x + sigma e.

    Flow matching's own interpolation (Lipman et al., 2023).
    """
    assert job.start is not None
    vae, device = pipeline.vae, pipeline._execution_device
    latents = _encode(pipeline, job.start).float()
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean, spread = (
        torch.tensor(values, device=device).view(shape) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    latents = (latents - mean) / spread
    noise = torch.randn(latents.shape, generator=generator, dtype=torch.float32).to(device)
    pipeline.scheduler.set_timesteps(job.step_count)
    sigma = float(pipeline.scheduler.sigmas[0])
    return (1 - sigma) * latents + sigma * noise


def _encode(pipeline: Any, video: NDArray[np.float32]) -> torch.Tensor:
    """The VAE's latents of (1, N, 3, H, W), in 0..1: the likeliest, not normalised."""
    vae = pipeline.vae
    given = torch.from_numpy(video).to(pipeline._execution_device, vae.dtype).permute(0, 2, 1, 3, 4) * 2 - 1
    with torch.no_grad():
        latents: torch.Tensor = vae.encode(given).latent_dist.mode()
    return latents


def _reencode(pipeline: Any, conditions: Conditions) -> dict[int, Pictures]:
    """The context frames next to the gap, encoded and decoded: see ``Rendered``."""
    pictures: dict[int, Pictures] = {}
    for side in reencoded_frames(conditions):
        latents = _encode(pipeline, np.ascontiguousarray(conditions.video[:, side.start : side.stop]))
        with torch.no_grad():
            decoded = pipeline.vae.decode(latents).sample[0]
        shown = _to_pictures((decoded.permute(1, 0, 2, 3) / 2 + 0.5).clamp(0, 1))
        pictures |= dict(zip(side, shown, strict=True))
    return pictures


def _to_pictures(frames: torch.Tensor) -> Pictures:
    """(N, 3, H, W) -> (N, H, W, 3)."""
    pictures: Pictures = np.ascontiguousarray(frames.float().cpu().numpy().transpose(0, 2, 3, 1))
    return pictures


def _lay_out(pipeline: Any, plan: Plan) -> None:
    card = torch.device("cuda")
    if plan is Plan.CARD:
        pipeline.to(card)
    elif plan is Plan.MODEL_OFFLOAD:
        pipeline.enable_model_cpu_offload()
    elif plan in (Plan.GROUP_OFFLOAD, Plan.GROUP_OFFLOAD_FP8):
        if plan is Plan.GROUP_OFFLOAD_FP8:
            for expert in _experts(pipeline):
                getattr(pipeline, expert).enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
        pipeline.enable_group_offload(card, offload_type="leaf_level", use_stream=True, exclude_modules=["vae"])
        pipeline.vae.to(card)
        pipeline.vae.enable_tiling()


def _keep_channels_together(vae: Any) -> None:
    """The memory format that tensor cores want; a module's own ``to`` can't do it where there are two kinds."""
    formats = {torch.nn.Conv2d: torch.channels_last, torch.nn.Conv3d: torch.channels_last_3d}
    for module in vae.modules():
        for kind, memory_format in formats.items():
            if isinstance(module, kind):
                module.to(memory_format=memory_format)


def _load_lora(pipeline: Any, file: Path, name: str, expert: Expert) -> None:
    """Raises RequestError where the file holds nothing for such a model: diffusers would only warn."""
    in_second = expert == "transformer_2"
    try:
        pipeline.load_lora_weights(
            file.parent, weight_name=file.name, adapter_name=name, load_into_transformer_2=in_second, **LOCAL
        )
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _is_out_of_memory(error):
            raise
        reason = shorten(str(error), MOST_REASON)
        raise RequestError(f"{file}: can't be loaded as LoRA weights ({reason})") from error
    if name not in getattr(getattr(pipeline, expert), "peft_config", {}):
        raise RequestError(f"{file}: holds no LoRA weights of a Wan transformer")


def _set_attention(pipeline: Any) -> None:
    if attention := settings().attention:
        if "hub" in attention.lower():
            raise RequestError(
                f"JOIN_CLIPS_ATTENTION={attention}: is code that would be downloaded; install the package itself, and "
                f"name that: flash, sage"
            )
        try:
            for expert in _experts(pipeline):
                getattr(pipeline, expert).set_attention_backend(attention)
        except (ValueError, RuntimeError, ImportError) as error:
            raise RequestError(f"JOIN_CLIPS_ATTENTION={attention}: {error}") from error


def _experts(pipeline: Any) -> list[Expert]:
    names: tuple[Expert, ...] = ("transformer", "transformer_2")
    return [name for name in names if getattr(pipeline, name) is not None]


def _adapter_name(index: int) -> str:
    """Of a job's own LoRA: never that of a preset's, whatever the file is called."""
    return f"added_{index}"


def _megapixels(job: Job) -> float:
    frames, _, height, width = job.conditions.video.shape[1:]
    return float(frames * height * width / 1e6)


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.accelerator.empty_host_cache()


def _measure_room() -> Room:
    """What is free before anything is loaded; what another model of this process has left behind is collected first."""
    _collect()
    card = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    return Room(card, free_host_bytes())


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """CUDA's own, cuBLAS's, that of pinned memory and that of the host: each has another class."""
    known = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in known)
