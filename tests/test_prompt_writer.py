"""A vision-language model of random weights writes prompts: what it is shown, and what happens where it can't."""

from __future__ import annotations

import string
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from splice.errors import RequestError
from splice.models import find_model, prompt_writer
from splice.models.prompt_writer import write_prompt
from splice.models.protocol import Guide, ModelSettings
from splice.models.vace import model as vace_models
from splice.transition import render_guide
from tests.tiny_vace import save_pipeline

SIDE, PATCH = 16, 8
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def save_writer(folder: Path, template: str | None = TEMPLATE) -> Path:
    torch.manual_seed(3)
    vocabulary = {piece: number for number, piece in enumerate(["<pad>", "</s>", "<image>", *string.printable])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", additional_special_tokens=["<image>"]
    )
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=vocabulary["<image>"])
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_writer(tmp_path_factory.mktemp("writer") / "model")


@pytest.fixture
def guide() -> Guide:
    """A red clip and a blue one."""
    left, right = (np.zeros((8, 32, 48, 3), np.uint8) for _ in range(2))
    left[..., 0], right[..., 2] = 255, 255
    return Guide(left, right, 5, Fraction(16))


def test_it_sees_the_two_frames_at_the_seam_in_their_colours_and_the_user_s_words(
    writer: Path, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, processor = prompt_writer._load(str(writer))
    given: dict[str, Any] = {}
    generate = loaded.generate
    monkeypatch.setattr(loaded, "generate", lambda **asked: given.update(asked) or generate(**asked))
    told = write_prompt(guide, "at dusk", str(writer))
    assert told and told == write_prompt(guide, "at dusk", str(writer))
    red, blue = given["pixel_values"].float().mean(dim=(2, 3))
    assert red.argmax() == 0 and blue.argmax() == 2
    assert processor.batch_decode(given["input_ids"])[0].replace(" ", "").endswith("atdusk")
    assert prompt_writer._load.cache_info().misses == 1, "loaded once for all joins"


def test_the_model_is_given_what_was_written_and_the_report_has_it(
    writer: Path, guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = find_model(str(save_pipeline(tmp_path / "pipeline")))
    assert isinstance(model, vace_models.Vace)
    jobs: list[Any] = []
    run = model._engine.run
    monkeypatch.setattr(model._engine, "run", lambda job: jobs.append(job) or run(job))
    settings = ModelSettings("at dusk", "", 1, num_inference_steps=1, prompt_model=str(writer))
    rendering = render_guide(guide, settings, model)
    assert jobs[0].prompt == rendering.notes["prompt"] == write_prompt(guide, "at dusk", str(writer)) != "at dusk"


def test_a_model_that_is_not_here_is_an_error_never_a_prompt_left_as_it_was(
    guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOIN_CLIPS_MODELS", str(tmp_path))
    with pytest.raises(RequestError, match=r"somebody/seer was never fetched; fetch it: .* fetch somebody/seer"):
        write_prompt(guide, "at dusk", "somebody/seer")


def test_a_model_that_can_t_be_asked_is_an_error(guide: Guide, tmp_path: Path) -> None:
    folder = save_writer(tmp_path / "mute", template=None)
    with pytest.raises(RequestError, match="no chat template"):
        write_prompt(guide, "at dusk", str(folder))
