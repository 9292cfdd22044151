"""VACE through diffusers, with random weights on the CPU: what goes in, which steps run, what is done with what comes
out, and what happens when memory runs out."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanVACEPipeline, WanVACETransformer3DModel
from safetensors.torch import save_file

from splice.errors import GenerationError, RequestError
from splice.models import find_model
from splice.models.protocol import Guide, ModelSettings, ModelSpec, WindowRule
from splice.models.vace import engine as engines
from splice.models.vace.conditions import kept_frames
from splice.models.vace.engine import Engine
from splice.models.vace.memory import GIB, ChosenPlan, Plan, Room, choose_plans
from splice.models.vace.model import Vace
from splice.models.vace.presets import LIGHTNING, PRESETS
from splice.plan import keeps_whole_latents, window_context
from splice.request import parse_request
from splice.survey import find_specs
from splice.transition import render_guide
from tests.conftest import ROOT
from tests.tiny_vace import save_lora, save_pipeline

SETTINGS = ModelSettings(prompt="a calm sea", negative_prompt="", seed=5, num_inference_steps=2)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture(scope="session")
def tiny_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "experts", experts=2)


@pytest.fixture
def guide() -> Guide:
    return make_guide()


def make_guide() -> Guide:
    random = np.random.default_rng(1)
    left, right = (random.integers(0, 256, (8, 50, 70, 3), dtype=np.uint8) for _ in range(2))
    return Guide(left, right, 5, Fraction(16))


def render(model: Any, guide: Guide, settings: ModelSettings = SETTINGS) -> np.ndarray:
    return np.stack(list(render_guide(guide, settings, model).frames))


def test_a_saved_pipeline_renders_the_whole_window(tiny: Path, guide: Guide) -> None:
    model = find_model(str(tiny))
    assert model.spec.renders_context and model.spec.window
    rendering = render_guide(guide, SETTINGS, model)
    frames = np.stack(list(rendering.frames))
    assert frames.shape == (21, 50, 70, 3) and frames.dtype == np.uint8
    assert rendering.notes["memory_plan"] == "on the CPU" and rendering.notes["worked_at"] == "70x50"
    assert rendering.notes["prompt"] == "a calm sea" and "drift_left" in rendering.notes


def test_ten_bit_stays_ten_bit(tiny: Path, guide: Guide) -> None:
    deep = Guide(guide.left.astype(np.uint16) * 257, guide.right.astype(np.uint16) * 257, 5, guide.rate)
    frames = render(find_model(str(tiny)), deep)
    assert frames.dtype == np.uint16 and len(np.unique(frames)) > 256


def test_the_same_seed_gives_the_same_frames_whatever_was_done_before(tiny: Path, guide: Guide, tmp_path: Path) -> None:
    alone = render(find_model(str(tiny)), guide)
    warm = find_model(str(tiny))
    lora = save_lora(tmp_path / "lora.safetensors")
    other = render(warm, guide, replace(SETTINGS, prompt="fire", additional_loras=((str(lora), 1.0),)))
    assert (render(warm, guide) == alone).all()
    assert (other != alone).any() and (render(warm, guide, replace(SETTINGS, seed=6)) != alone).any()


def print_digest(folder: str) -> None:
    """What a new process renders."""
    print(hashlib.sha256(render(find_model(folder), make_guide()).tobytes()).hexdigest())


def test_a_new_process_gives_the_same_frames(tiny: Path, guide: Guide) -> None:
    here = hashlib.sha256(render(find_model(str(tiny)), guide).tobytes()).hexdigest()
    code = f"from tests.test_vace import print_digest; print_digest({str(tiny)!r})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == [here]


class Recorder:
    """Notes each call of both experts, and what the pipeline was given."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, float, float, dict[str, float]]] = []
        self.given: dict[str, Any] = {}
        load = engine._load

        def recording(plan: Plan, loras: tuple[str, ...]) -> Any:
            pipeline = load(plan, loras)
            self._listen(pipeline)
            return pipeline

        monkeypatch.setattr(engine, "_load", recording)

    def _listen(self, pipeline: Any) -> None:
        for name in ("transformer", "transformer_2"):
            if expert := getattr(pipeline, name):
                expert.register_forward_pre_hook(self._note(pipeline, name, expert), with_kwargs=True)
        prepare = pipeline.prepare_video_latents

        def noting(video: Any, mask: Any, *rest: Any) -> Any:
            self.given = {"video": video.clone(), "mask": mask.clone()}
            return prepare(video, mask, *rest)

        pipeline.prepare_video_latents = noting

    def _note(self, pipeline: Any, name: str, expert: Any) -> Callable[..., None]:
        def note(module: Any, arguments: Any, named: Any) -> None:
            guidance = 1.0 if not pipeline.do_classifier_free_guidance else pipeline.guidance_scale
            self.calls.append((name, round(float(named["timestep"][0]), 1), guidance, adapter_weights(expert)))

        return note


def adapter_weights(expert: Any) -> dict[str, float]:
    """Of the active adapters, as the layers have them; each counts by its alpha over its rank."""
    layer = expert.blocks[0].attn1.to_q
    active = getattr(layer, "active_adapters", [])
    return {name: round(layer.scaling[name] * layer.r[name] / layer.lora_alpha[name], 4) for name in active}


def phased(folder: Path, tmp_path: Path) -> Vace:
    """The default preset on a tiny pipeline."""
    lora = save_lora(tmp_path / "loras" / "lora.safetensors", 0.1)
    small = {"weights_gb": 0.001, "text_encoder_gb": 0.001, "needs_gpu": False}
    model = Vace(replace(LIGHTNING, repository=str(folder), **small), "tiny")
    model._made = Engine(model._preset, folder, {each.name: lora for each in LIGHTNING.loras})
    return model


def test_the_default_preset_runs_its_six_steps_in_three_phases(
    tiny_experts: Path, tmp_path: Path, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = phased(tiny_experts, tmp_path)
    recorder = Recorder(model._engine, monkeypatch)
    expected = [
        *[("transformer", t, 3.0, {"lightning_high": 0.75}) for t in (1000.0, 1000.0, 952.4, 952.4)],
        *[("transformer", t, 1.0, {"lightning_high": 1.0}) for t in (882.5, 769.7)],
        *[("transformer_2", t, 1.0, {"lightning_low": 1.0}) for t in (556.8, 5.0)],
    ]
    settings = replace(SETTINGS, num_inference_steps=None)
    for _ in range(2):  # what the first job leaves behind would spoil the second
        recorder.calls.clear()
        render(model, guide, settings)
        assert recorder.calls == expected
    extra = save_lora(tmp_path / "mine.safetensors", 0.2)
    recorder.calls.clear()
    render(model, guide, replace(settings, additional_loras=((str(extra), 0.5),), guidance_scale=4.0))
    assert [call[2] for call in recorder.calls] == [4.0] * 4 + [1.0] * 4
    assert all(call[3]["added_0"] == 0.5 for call in recorder.calls)
    # Where the second expert takes over is a matter of the phases, however many steps they have.
    for count in (3, 9, 12):
        recorder.calls.clear()
        render(model, guide, replace(settings, num_inference_steps=count, guidance_scale=1.0))
        assert [call[0] for call in recorder.calls] == ["transformer"] * (2 * count // 3) + ["transformer_2"] * (
            count // 3
        )


def test_a_lora_that_is_for_another_model_is_refused(tiny: Path, guide: Guide, tmp_path: Path) -> None:
    model, expected = find_model(str(tiny)), render(find_model(str(tiny)), guide)
    foreign = tmp_path / "unet.safetensors"
    save_file({"unet.down.lora_A.weight": torch.zeros(4, 24), "unet.down.lora_B.weight": torch.zeros(24, 4)}, foreign)
    with pytest.raises(RequestError, match=r"unet.safetensors: (holds no|can't be loaded as) LoRA weights"):
        render(model, guide, replace(SETTINGS, additional_loras=((str(foreign), 1.0),)))
    assert (render(model, guide) == expected).all(), "the next job is as if that one had never been"
    other_size = save_lora(tmp_path / "other_size.safetensors", width=48)
    with pytest.raises(RequestError, match=r"other_size.safetensors: can't be loaded as LoRA weights .*size mismatch"):
        render(model, guide, replace(SETTINGS, additional_loras=((str(other_size), 1.0),)))
    with pytest.raises(RequestError, match="needed is a safetensors file that is there"):
        render(model, guide, replace(SETTINGS, additional_loras=((str(tmp_path / "none.safetensors"), 1.0),)))


def test_two_loras_of_one_name_are_two(tiny_experts: Path, tmp_path: Path, guide: Guide) -> None:
    model = phased(tiny_experts, tmp_path)
    settings = replace(SETTINGS, num_inference_steps=None)
    plain = render(model, guide, settings)
    files = [save_lora(tmp_path / folder / "lightning_high.safetensors", 0.2) for folder in ("a", "b")]
    both = render(model, guide, replace(settings, additional_loras=tuple((str(file), 0.5) for file in files)))
    once = render(model, guide, replace(settings, additional_loras=((str(files[0]), 0.5),)))
    assert (both != once).any() and (once != plain).any()
    assert (render(model, guide, settings) == plain).all()


def test_other_lora_weights_of_the_same_name_are_another_model(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    clips = [{"url": "a.mp4"}, {"url": "b.mp4"}]
    values = {"clip_list": clips, "run_id": "x", "model": str(tiny), "additional_loras": {str(file): 0.5}}
    request = parse_request(values)

    def spec() -> ModelSpec:
        return find_specs(request)[str(tiny)]

    save_lora(file, 0.2)
    before = spec()
    assert spec() == before != find_specs(parse_request({**values, "additional_loras": {}}))[str(tiny)]
    save_lora(file, 0.3)
    assert spec() != before


def test_channels_kept_together_make_the_same_pictures(
    tiny: Path, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = render(find_model(str(tiny)), guide)
    monkeypatch.setenv("JOIN_CLIPS_CHANNELS_LAST", "1")
    model = find_model(str(tiny))
    together = render(model, guide)
    assert isinstance(model, Vace)
    kernels = [each.weight for each in model._engine._pipeline.vae.modules() if isinstance(each, torch.nn.Conv3d)]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last_3d) for kernel in kernels)
    assert np.abs(together.astype(int) - plain).max() <= 1


SIZES = [(48, 64), (50, 70), (33, 47), (64, 16)]
"""Of pictures: in the model's multiples, even, odd, upright."""


def test_what_goes_into_the_pipeline_is_the_guide_to_the_bit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = find_model(str(tiny))
    assert isinstance(model, Vace)
    recorder = Recorder(model._engine, monkeypatch)
    for context, (height, width) in zip(range(1, 17), itertools.cycle(SIZES), strict=False):
        left, right = window_context(context, gap := 4 + context % 4, 5 * context, WindowRule(4, 81))
        random = np.random.default_rng(context)
        before, after = (random.integers(0, 256, (n, height, width, 3), dtype=np.uint8) for n in (left, right))
        render(model, Guide(before, after, gap, Fraction(16)), replace(SETTINGS, num_inference_steps=1))
        video, mask = (recorder.given[name][0].permute(1, 2, 3, 0).numpy() for name in ("video", "mask"))
        assert video.shape == (left + gap + right, -(-height // 16) * 16, -(-width // 16) * 16, 3)
        assert (video[:left, :height, :width] == before / np.float32(255) * 2 - 1).all()
        assert (video[left + gap :, :height, :width] == after / np.float32(255) * 2 - 1).all()
        assert np.abs(video[left : left + gap]).max() == 0, "127.5 of 255 is nought"
        assert (mask[left : left + gap] == 1).all() and mask[:left].max() == mask[left + gap :].max() == 0


def test_no_window_that_is_planned_keeps_a_latent_of_the_gap(tiny: Path) -> None:
    """By the pipeline's own preparation of masks: that the plan's arithmetic is the pipeline's."""
    pipeline = WanVACEPipeline.from_pretrained(tiny, text_encoder=None, tokenizer=None)
    rule, checked = WindowRule(4, 81), 0
    for context, gap in itertools.product(range(1, 17), range(1, 62)):
        left, right = window_context(context, gap, 100, rule)
        if left + gap + right > rule.max_frames or not keeps_whole_latents(left, gap, right, rule.multiple):
            continue
        mask = torch.zeros(1, 3, left + gap + right, 16, 16)
        mask[:, :, left : left + gap] = 1
        made = pipeline.prepare_masks(mask)[0, 0, :, 0, 0].bool()  # with a reference's place in front
        made = made[-(mask.shape[2] // 4 + 1) :]
        held = [range(max(0, 4 * latent - 3), 4 * latent + 1) for latent in range(len(made))]
        for is_made, frames in zip(made.tolist(), held, strict=True):
            assert is_made or not set(frames) & set(range(left, left + gap)), (context, gap)
        kept_left, kept_right = kept_frames(left, gap, right)
        assert len(kept_left) >= 1 and len(kept_right) >= 4
        checked += 1
    assert checked > 700


def test_vid2vid_does_the_last_steps_of_the_schedule_whose_phases_follow_the_timesteps(
    tiny_experts: Path, tmp_path: Path, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = phased(tiny_experts, tmp_path)
    recorder = Recorder(model._engine, monkeypatch)
    replaced = replace(guide, replaced=guide.left[:5])
    settings = replace(SETTINGS, num_inference_steps=None, vid2vid_strength=0.5)
    frames = render(model, replaced, settings)
    assert recorder.calls == [
        ("transformer", 769.7, 1.0, {"lightning_high": 1.0}),
        ("transformer_2", 556.8, 1.0, {"lightning_low": 1.0}),
        ("transformer_2", 5.0, 1.0, {"lightning_low": 1.0}),
    ]
    other = render(model, replace(guide, replaced=guide.right[:5]), settings)
    assert (other != frames).any(), "what is replaced is what it starts from"
    recorder.calls.clear()
    render(model, guide, replace(SETTINGS, num_inference_steps=None))
    assert len(recorder.calls) == 8, "the next job has the whole schedule"


def test_a_stride_shows_the_model_a_longer_window(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    left, right = (random.integers(0, 256, (15, 32, 48, 3), dtype=np.uint8) for _ in range(2))
    guide = Guide(left, right, 11, Fraction(32))
    model = find_model(str(tiny))
    recorder = Recorder(model._engine, monkeypatch)
    rendering = render_guide(guide, replace(SETTINGS, time_stride=2), model)
    assert np.stack(list(rendering.frames)).shape == (41, 32, 48, 3)
    shown = recorder.given["video"][0].permute(1, 2, 3, 0).numpy()
    assert len(shown) == 21 and (shown[:8] == left[::2] / np.float32(255) * 2 - 1).all()
    assert "rate" not in rendering.notes, "every second of 32 frames is its own 16"
    assert "32 frames a second" in str(render_guide(replace(guide, rate=Fraction(32)), SETTINGS, model).notes["rate"])


def test_what_the_vae_alone_does_to_the_context_is_in_the_report(tiny: Path, guide: Guide) -> None:
    notes = render_guide(guide, SETTINGS, find_model(str(tiny))).notes
    assert float(notes["drift_vae"]) > 1, "a VAE of random weights keeps no colour"
    assert 0 <= float(notes["sharpening"]) <= 1.5


STAGES = {
    "load": (WanVACEPipeline, "from_pretrained"),
    "encode": (AutoencoderKLWan, "encode"),
    "step": (WanVACETransformer3DModel, "forward"),
    "decode": (AutoencoderKLWan, "decode"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("plans", [1, 2])
@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_ends_in_the_next_plan_or_a_clear_error(
    tiny: Path, guide: Guide, stage: str, plans: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = render(find_model(str(tiny)), guide)
    # Both run on the CPU here.
    plan = [ChosenPlan(Plan.CPU, "a test"), ChosenPlan(Plan.MODEL_OFFLOAD, "a test")]
    monkeypatch.setattr(engines, "choose_plans", lambda *_: plan[:plans])
    monkeypatch.setattr(engines, "_lay_out", lambda *_: None)
    owner, name = STAGES[stage]
    whole, failures = getattr(owner, name), []

    def fails_once(*arguments: Any, **named: Any) -> Any:
        if not failures:
            failures.append(stage)
            raise kind("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(*arguments, **named)

    monkeypatch.setattr(owner, name, fails_once)
    model = find_model(str(tiny))
    if plans == 1:
        with pytest.raises(GenerationError, match=r"not enough memory .*2\.00 GiB.*; use a smaller"):
            render(model, guide)
    else:
        rendering = render_guide(guide, SETTINGS, model)
        assert (np.stack(list(rendering.frames)) == expected).all()
        assert "ran out of memory" in str(rendering.notes["memory_reason"])
    assert (render(model, guide) == expected).all(), "the process can do the next job"


def test_a_plan_that_is_laid_out_is_kept_where_it_makes_the_same_frames(
    tiny: Path, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[Plan] = []
    monkeypatch.setattr(engines, "choose_plans", lambda *_: [ChosenPlan(plan, "a test") for plan in fits])
    monkeypatch.setattr(engines, "_lay_out", lambda *_: None)
    model = find_model(str(tiny))

    def plan_of_a_job(*wanted: Plan) -> object:
        fits[:] = wanted
        return render_guide(guide, replace(SETTINGS, num_inference_steps=1), model).notes["memory_plan"]

    assert plan_of_a_job(Plan.CARD, Plan.MODEL_OFFLOAD) == Plan.CARD.value
    assert plan_of_a_job(Plan.MODEL_OFFLOAD, Plan.GROUP_OFFLOAD) == Plan.MODEL_OFFLOAD.value, "the other does not fit"
    assert plan_of_a_job(Plan.CARD, Plan.MODEL_OFFLOAD) == Plan.MODEL_OFFLOAD.value, "it would be loaded anew"
    assert plan_of_a_job(Plan.GROUP_OFFLOAD) == Plan.GROUP_OFFLOAD.value
    assert plan_of_a_job(Plan.CARD, Plan.MODEL_OFFLOAD, Plan.GROUP_OFFLOAD) == Plan.CARD.value, "tiles are other frames"


def test_more_steps_than_the_schedule_has_are_refused_before_the_first(tiny: Path, guide: Guide) -> None:
    with pytest.raises(RequestError, match=r"num_inference_steps is 400: .*; use fewer"):
        render(find_model(str(tiny)), guide, replace(SETTINGS, num_inference_steps=400))


def test_a_prompt_longer_than_the_model_reads_is_refused_not_cut(tiny: Path, guide: Guide) -> None:
    with pytest.raises(RequestError, match=r"prompt '.*\[\.\.\.\]': has \d{4} tokens, the model reads 512; shorten it"):
        render(find_model(str(tiny)), guide, replace(SETTINGS, prompt="a calm sea " * 200))


@pytest.mark.parametrize(("name", "why"), [("nonsense", "must be one of"), ("flash_hub", "would be downloaded")])
def test_an_attention_that_is_not_here_is_refused(
    tiny: Path, guide: Guide, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOIN_CLIPS_ATTENTION", name)
    with pytest.raises(RequestError, match=f"JOIN_CLIPS_ATTENTION={name}: .*{why}"):
        render(find_model(str(tiny)), guide)


def test_plans_go_from_fast_to_frugal() -> None:
    big, host = PRESETS["vace_14b"], 256 * GIB

    def names(card: float, host_free: int = host) -> list[Plan]:
        return [each.plan for each in choose_plans(big, 32.0, Room(int(card * GIB), host_free))]

    assert names(80) == [Plan.CARD, Plan.MODEL_OFFLOAD, Plan.GROUP_OFFLOAD, Plan.GROUP_OFFLOAD_FP8]
    assert names(24)[0] == Plan.GROUP_OFFLOAD
    assert names(8) == [Plan.GROUP_OFFLOAD_FP8]
    assert choose_plans(LIGHTNING, 32.0, Room(80 * GIB, host))[0].plan == Plan.MODEL_OFFLOAD
    assert names(24, 40 * GIB) == [Plan.GROUP_OFFLOAD_FP8], "pinned memory takes more than the weights"
    assert names(24, 16 * GIB) == [], "what does not fit the host can't be loaded at all"


def test_a_preset_says_what_it_needs_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOIN_CLIPS_MODELS", str(tmp_path))
    with pytest.raises(RequestError, match=r"was never fetched; fetch it: python -m splice.models fetch vace_1_3b"):
        Vace(replace(PRESETS["vace_1_3b"], needs_gpu=False), "").require()


def test_a_pipeline_with_foreign_code_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "foreign"))
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder"] = ["my_code", "Stealer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(RequestError, match=r"text_encoder is a Stealer; allowed are"):
        find_model(str(folder))
