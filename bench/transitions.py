"""Transitions against held-out truth, side by side: ``python -m bench.transitions``.

Frames are cut out of running footage, each method fills the gap from the 8 frames on either side, and what it made is
compared with what was there. Prints the table and writes it to ``bench/results/transitions.md``, with a plot. Needs
what ``bench/footage.py`` names, and torch for the learned interpolator.

PSNR and SSIM reward a blur where nothing can be known, and see no jerk: look at the pictures too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import cv2
import matplotlib.pyplot as pyplot
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from bench.footage import MORE_SHOTS, SHOTS, Shot, hold_out
from bench.learned import learned
from splice.models import motion
from splice.models.crossfade import Crossfade
from splice.models.flow_morph import FlowMorph
from splice.models.motion import Field
from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering, TransitionModel
from splice.quality import score_seam

Luma = NDArray[np.float32]

RESULTS = Path(__file__).parent / "results" / "transitions.md"
SETTINGS = ModelSettings(prompt="", negative_prompt="", seed=0)
GAPS = (9, 21, 53)
FLOW_SIDE = 320
PEAK = 255.0
MOST_PSNR = 60.0  # of frames that are equal
HEAD = """Means over the gap against held-out frames: PSNR in dB / SSIM / flow error in pixels at a width of 320 / our
seam score / seconds a frame with all analysis; `python -m bench.transitions`. Last, the truth's own seam score."""
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


def flow_error(made: Frame, truth: Frame) -> float:
    """How far the motion from frame to frame is off, (N, H, W, 3) each: mean endpoint error in pixels of a picture
    of FLOW_SIDE (Baker et al., IJCV 2011)."""
    errors = [
        np.linalg.norm(flow - wanted, axis=-1).mean() for flow, wanted in zip(_flows(made), _flows(truth), strict=True)
    ]
    return float(np.mean(errors))


def _flows(frames: Frame) -> Iterator[Field]:
    size = motion.grid_size(frames[0], FLOW_SIDE)
    greys = [motion.to_grey(frame, size) for frame in frames]
    return (motion.estimate_flow(*pair) for pair in pairwise(greys))


@dataclass(frozen=True)
class Measured:
    """A method on one gap. psnr in dB, ssim -1..1: means over the gap; motion: flow error in pixels; score: of the
    seam; seconds: a frame, with all analysis."""

    psnr: float
    ssim: float
    motion: float
    score: float
    seconds: float


def measure(model: TransitionModel, guide: Guide, truth: Frame) -> Measured:
    """What a model makes of one gap, against what was there."""
    start = time.perf_counter()
    made = np.stack(list(model.render(guide, SETTINGS).frames))
    seconds = (time.perf_counter() - start) / guide.gap_frames
    pairs = list(zip(made, truth, strict=True))
    first = len(guide.left)
    # From the last frame before the gap to the first after it.
    around = [np.concatenate([guide.left[-1:], frames, guide.right[:1]]) for frames in (made, truth)]
    return Measured(
        psnr=float(np.mean([min(psnr_db(*pair), MOST_PSNR) for pair in pairs])),
        ssim=float(np.mean([ssim(*pair) for pair in pairs])),
        motion=flow_error(*around),
        score=score_seam([*guide.left, *made, *guide.right], first, first + guide.gap_frames).total,
        seconds=seconds,
    )


class Truth:
    """What was there: the best score that a method can be expected to get."""

    spec = ModelSpec(name="truth", revision="1", renders_context=False)

    def __init__(self, truth: Frame) -> None:
        self._truth = truth

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        return Rendering(frames=iter(self._truth))


def gaps(shot: Shot) -> Iterator[Shot]:
    """The shot with gaps of every length that it has room for, each in the middle of its own; a cut as it is."""
    for frames in (shot.gap_frames,) if shot.cut else GAPS:
        if frames <= shot.gap_frames:
            yield replace(shot, gap_start=shot.gap_start + (shot.gap_frames - frames) // 2, gap_frames=frames)


def table(rows: Sequence[tuple[Shot, Sequence[Measured]]], names: Sequence[str]) -> str:
    """Markdown: one line a gap, the means of every shot, and of all; the best PSNR and SSIM of a line is bold."""
    shots = {shot.name: [each for other, each in rows if other.name == shot.name] for shot, _ in rows}
    lines = [
        f"| shot, gap | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(_line(f"{shot.name}, {shot.gap_frames}", measured) for shot, measured in rows),
        *(_line(f"{name}, mean", _means(measured)) for name, measured in shots.items()),
        _line("**mean**", _means([measured for _, measured in rows])),
    ]
    return "\n".join(lines)


def speed_table() -> str:
    """Markdown: seconds a frame at the size that footage often has, 1280x720, with all analysis."""
    lines = ["| 1280x720, gap | minterpolate | flow_morph | times as fast |", "|---|---:|---:|---:|"]
    for frames in GAPS:
        guide, truth = hold_out(replace(SHOTS[0], gap_frames=frames), None)
        rival, ours = (measure(model, guide, truth).seconds for model in (Minterpolate(), FlowMorph()))
        lines.append(f"| {SHOTS[0].name}, {frames} | {rival:.3f} | {ours:.3f} | {rival / ours:.1f} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _means(rows: Sequence[Sequence[Measured]]) -> list[Measured]:
    """Of every column."""
    return [_mean(column) for column in zip(*rows, strict=True)]


def _line(head: str, measured: Sequence[Measured]) -> str:
    # The truth, which comes last, competes with nobody.
    best = max(each.psnr for each in measured[:-1]), max(each.ssim for each in measured[:-1])
    cells = []
    for each in measured[:-1]:
        psnr, similarity = f"{each.psnr:.1f}", f"{each.ssim:.3f}"
        psnr = f"**{psnr}**" if each.psnr == best[0] else psnr
        similarity = f"**{similarity}**" if each.ssim == best[1] else similarity
        cells.append(f"{psnr} / {similarity} / {each.motion:.2f} / {each.score:.1f} / {each.seconds:.3f}")
    return f"| {' | '.join([head, *cells, f'{measured[-1].score:.1f}'])} |"


def _mean(measured: Sequence[Measured]) -> Measured:
    return Measured(*(float(np.mean([getattr(each, field.name) for each in measured])) for field in fields(Measured)))


def main() -> None:
    """Measures every method on every gap, prints the tables, and writes them, with a plot."""
    models: list[TransitionModel] = [HardCut(), Crossfade(), Minterpolate(), *learned(), FlowMorph()]
    names = [*(model.spec.name for model in models), "truth"]
    rows = []
    for shot in chain.from_iterable(map(gaps, SHOTS + MORE_SHOTS)):
        guide, truth = hold_out(shot)
        rows.append((shot, [measure(model, guide, truth) for model in (*models, Truth(truth))]))
        print(_line(f"{shot.name}, {shot.gap_frames}", rows[-1][1]), flush=True)
    text = "\n\n".join([HEAD, table(rows, names), speed_table()])
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text + "\n")
    plot(rows, names[:-1], RESULTS.with_suffix(".png"))


def plot(rows: Sequence[tuple[Shot, Sequence[Measured]]], names: Sequence[str], path: Path) -> None:
    """PSNR and SSIM over the length of the gap, means over the shots."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    related = [(shot, measured) for shot, measured in rows if not shot.cut]
    for axis, measure_name in zip(axes, ("psnr", "ssim"), strict=True):
        for n, name in enumerate(names):
            means = [
                np.mean([getattr(each[n], measure_name) for shot, each in related if shot.gap_frames == frames])
                for frames in GAPS
            ]
            axis.plot(GAPS, means, marker="o", label=name, linewidth=2.5 if name == "flow_morph" else 1.5)
        axis.set(xlabel="gap in frames", ylabel={"psnr": "PSNR in dB", "ssim": "SSIM"}[measure_name], xticks=GAPS)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
