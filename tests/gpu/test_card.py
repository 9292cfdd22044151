"""What only a card and the weights can show: ``REQUIRE_GPU=1 python -m pytest tests/gpu -s``; see docs/gpu-check.md."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from bench.footage import BIG_BUCK_BUNNY, SHOTS, hold_out
from bench.transitions import psnr_db
from splice.errors import RequestError
from splice.models import find_model
from splice.models.protocol import ModelSettings
from splice.models.vace.presets import PRESETS
from splice.transition import render_guide

SETTINGS = ModelSettings(prompt="smooth transition", negative_prompt="", seed=1)


def model_or_skip(name: str) -> Any:
    """The model; without a card or its weights the test is skipped, or fails where REQUIRE_GPU says so."""
    try:
        return find_model(name)
    except RequestError as error:
        if os.environ.get("REQUIRE_GPU") == "1":
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("name", PRESETS)
def test_a_held_out_gap_is_filled_like_the_truth(name: str) -> None:
    model = model_or_skip(name)
    shot = next(shot for shot in SHOTS if shot.video is BIG_BUCK_BUNNY)
    guide, truth = hold_out(shot)
    import torch

    torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    first = render_guide(guide, SETTINGS, model)
    frames = np.stack(list(first.frames))
    cold = time.monotonic() - started
    again = np.stack(list(render_guide(guide, SETTINGS, model).frames))
    warm = time.monotonic() - started - cold
    peak = torch.cuda.max_memory_allocated() / 2**30
    gap = frames[len(guide.left) : len(guide.left) + len(truth)]
    context = frames[: len(guide.left)]
    found = psnr_db(gap, truth)
    print(f"\n{name}: {cold:.0f} s cold, {warm:.0f} s warm, {peak:.1f} GiB, PSNR {found:.1f} dB, {dict(first.notes)}")
    assert (frames == again).all(), "the same seed gives the same frames"
    assert psnr_db(context, guide.left) > 25, "what the model was shown, it shows again"
    assert found > 12, "it is no noise"
