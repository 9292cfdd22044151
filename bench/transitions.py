"""Transitions against held-out truth, side by side: ``python -m bench.transitions``.

Frames are cut out of running footage, each method fills the gap from the 8 frames on either side, and what it made is
compared with what was there: means over the gap of PSNR (RGB) and SSIM (luma), and seconds a frame with all analysis.
Prints the table and writes it to ``bench/results/transitions.md``. Needs what ``bench/footage.py`` names.

Both measures reward a blur where nothing can be known, and see no jerk: look at the pictures too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from bench.footage import SHOTS, Shot, hold_out
from splice.models.crossfade import Crossfade
from splice.models.flow_morph import FlowMorph
from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering, TransitionModel

Luma = NDArray[np.float32]

RESULTS = Path(__file__).parent / "results" / "transitions.md"
SETTINGS = ModelSettings(prompt="", negative_prompt="", seed=0)
PEAK = 255.0
SSIM_SIDE_PIXELS, SSIM_SIGMA_PIXELS = 11, 1.5  # Wang et al. 2004, section III-C
SSIM_C1, SSIM_C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


class HardCut:
    """No transition: the left side's last frame is held for half of the gap, then the right one's first."""

    spec = ModelSpec(name="hard cut", revision="1", renders_context=False)

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        half = guide.gap_frames // 2
        ends = [guide.left[-1]] * half + [guide.right[0]] * (guide.gap_frames - half)
        return Rendering(frames=iter(ends))


class Minterpolate:
    """FFmpeg's motion-compensated interpolation with its best settings, by the filter graph inside PyAV.

    Its scene detection is off: it takes long gaps for cuts, and then only holds a frame, which scores worse.
    """

    spec = ModelSpec(name="minterpolate", revision="1", renders_context=False)
    options = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        return Rendering(frames=self._frames(guide))

    def _frames(self, guide: Guide) -> Iterator[Frame]:
        """The frame at the seam and its outer neighbour of either side, one gap apart; what comes between the inner
        two is the gap. The filter looks one frame ahead and behind, so it gets the last twice."""
        steps = guide.gap_frames + 1
        graph = self._graph(guide.left[-1], steps)
        outer_left, outer_right = guide.left[max(-2, -len(guide.left))], guide.right[min(1, len(guide.right) - 1)]
        for second, frame in enumerate((outer_left, guide.left[-1], guide.right[0], outer_right, outer_right)):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = second, Fraction(1)
            graph.vpush(picture)
        graph.vpush(None)
        for made in _pulled(graph):
            if 1 < made.time < 2:
                yield made.to_ndarray(format="rgb24")

    def _graph(self, frame: Frame, steps: int) -> Graph:
        graph = Graph()
        height, width = frame.shape[:2]
        source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1))
        chain = [
            source,
            graph.add("format", "yuv444p"),
            graph.add("minterpolate", f"fps={steps}:{self.options}"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*chain).configure()
        return graph


def _pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def psnr_db(picture: Frame, truth: Frame) -> float:
    """Peak signal-to-noise ratio over all three channels of two uint8 pictures; infinite for equal ones."""
    error = float(np.mean(np.square(picture.astype(np.float32) - truth.astype(np.float32))))
    return float("inf") if error == 0 else 10.0 * float(np.log10(PEAK**2 / error))


def ssim(picture: Frame, truth: Frame) -> float:
    """Structural similarity of luma, -1..1 (Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 2004)."""
    x, y = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float32) for each in (picture, truth))
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variances = _local_mean(x * x) - mean_x**2 + _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    return float(np.mean(luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)))


def _local_mean(plane: Luma) -> Luma:
    mean: Luma = cv2.GaussianBlur(plane, (SSIM_SIDE_PIXELS, SSIM_SIDE_PIXELS), SSIM_SIGMA_PIXELS)
    return mean


def measure(model: TransitionModel, guide: Guide, truth: Frame) -> tuple[float, float, float]:
    """Mean PSNR in dB, mean SSIM and seconds a frame of a model on one gap."""
    start = time.perf_counter()
    made = list(model.render(guide, SETTINGS).frames)
    seconds = (time.perf_counter() - start) / guide.gap_frames
    pairs = list(zip(made, truth, strict=True))
    return (
        float(np.mean([psnr_db(*pair) for pair in pairs])),
        float(np.mean([ssim(*pair) for pair in pairs])),
        seconds,
    )


def row(shot: Shot, models: tuple[TransitionModel, ...]) -> str:
    """The table's row of one shot, in Markdown; the best of each measure is bold."""
    guide, truth = hold_out(shot)
    measured = [measure(model, guide, truth) for model in models]
    best_psnr, best_ssim = (max(each[column] for each in measured) for column in (0, 1))
    height, width = truth.shape[1:3]
    cells = [f"{shot.name}, {shot.gap_frames} ({width}x{height})"]
    for psnr, similarity, seconds in measured:
        psnr_cell = f"**{psnr:.1f}**" if psnr == best_psnr else f"{psnr:.1f}"
        ssim_cell = f"**{similarity:.3f}**" if similarity == best_ssim else f"{similarity:.3f}"
        cells.append(f"{psnr_cell} / {ssim_cell} / {seconds:.3f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures every method on every shot, prints the table as it grows, and writes it."""
    models: tuple[TransitionModel, ...] = (HardCut(), Crossfade(), Minterpolate(), FlowMorph())
    lines = [
        "PSNR dB / SSIM / seconds a frame against held-out frames; `python -m bench.transitions`",
        "",
        f"| shot, gap | {' | '.join(model.spec.name for model in models)} |",
        f"|---|{'---|' * len(models)}",
    ]
    print("\n".join(lines))
    for shot in SHOTS:
        lines.append(row(shot, models))
        print(lines[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
