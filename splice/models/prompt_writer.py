"""Prompts written by a vision-language model, from what is seen on both sides of a seam.

Runs on the CPU, always: a card is the transition model's, and the words are the same on every machine of one kind.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from splice.errors import GenerationError, RequestError
from splice.models.protocol import Frame, Guide
from splice.models.weights import require_repository

INSTRUCTION = (
    "The first picture is the last of a video clip, the second is the first of the next clip. One continuous shot is "
    "to lead from the one to the other. Describe that shot for a video generator, in at most three sentences: what is "
    "seen, where, in which light, and how things and the camera move. Answer with the description alone."
)
CONTEXT = "Its maker says of it: "

LONGEST_SIDE = 512
"""Of the pictures that it sees, in pixels: what they show is to be told, not measured."""

MOST_TOKENS = 120


def write_prompt(guide: Guide, prompt: str, model: str) -> str:
    """What happens between the two sides, in words.

    prompt: the user's, as context. model: a repository that was fetched, or a folder; it is loaded once a process.

    Raises RequestError: its weights are not here, or it is none that can be asked. GenerationError: it says nothing.
    """
    with _one_at_a_time:
        return _ask(guide, prompt, model)


def _ask(guide: Guide, prompt: str, model: str) -> str:
    writer, processor = _load(model)
    content: list[dict[str, object]] = [
        {"type": "image", "image": _to_image(frame)} for frame in (guide.left[-1], guide.right[0])
    ]
    content.append({"type": "text", "text": f"{INSTRUCTION} {CONTEXT}{prompt}" if prompt else INSTRUCTION})
    asked = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        answer = writer.generate(**asked, do_sample=False, max_new_tokens=MOST_TOKENS)
    told = processor.batch_decode(answer[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()
    if not told:
        raise GenerationError(f"enhance_prompt: {model} wrote nothing; leave enhance_prompt out, or use another model")
    return str(told)


_one_at_a_time = Lock()
"""So that it is loaded once, however many seams wait for it."""


@lru_cache(maxsize=1)
def _load(name: str) -> tuple[Any, Any]:
    folder = require_repository(name)
    local = {"local_files_only": True, "trust_remote_code": False}
    processor = AutoProcessor.from_pretrained(folder, **local)
    if not processor.chat_template:
        raise RequestError(f"enhance_prompt: {name} can't be asked anything: it has no chat template")
    writer = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.bfloat16, use_safetensors=True, low_cpu_mem_usage=True, **local
    )
    return writer.eval(), processor


def _to_image(frame: Frame) -> Image.Image:
    scale = min(1.0, LONGEST_SIDE / max(frame.shape[:2]))
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return Image.fromarray(small if small.dtype == np.uint8 else cv2.convertScaleAbs(small, alpha=1 / 257))
