"""Whether the seam score finds what is wrong: ``python -m bench.controls``.

A span of real footage is its own best transition. It is put back as it was, and with each of the faults that
transitions have; the score has to put the truth first, and to find every fault. Prints a table of scores and of the
penalties that find each fault, with how large the penalties of untouched spans all over the footage are, and writes
them to ``bench/results/controls.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import mean

import cv2
import numpy as np

from bench.footage import MORE_SHOTS, SHOTS, WIDTH_PIXELS, Shot, read_frames
from splice.models.protocol import Frame
from splice.quality import NEIGHBOURS, TOLERANCES, SeamScore, measure_signals, picture_of, score_seam, score_signals
from splice.report_page import RED

RESULTS = Path(__file__).parent / "results" / "controls.md"
SPAN_FRAMES = 13

Fault = Callable[[Frame, Frame, Frame], Frame]
"""(frames before, the true span, frames after) -> another span of the same shape."""


def truth(before: Frame, span: Frame, after: Frame) -> Frame:
    return span


def hard_cut(before: Frame, span: Frame, after: Frame) -> Frame:
    half = len(span) // 2
    return np.concatenate([np.repeat(before[-1:], half, 0), np.repeat(after[:1], len(span) - half, 0)])


def crossfade(before: Frame, span: Frame, after: Frame) -> Frame:
    shares = (np.arange(1, len(span) + 1) / (len(span) + 1))[:, None, None, None]
    return _levels((1 - shares) * before[-1] + shares * after[0])


def held_frame(before: Frame, span: Frame, after: Frame) -> Frame:
    return np.concatenate([np.repeat(before[-1:], 4, 0), span[4:]])


def color_shift(before: Frame, span: Frame, after: Frame) -> Frame:
    return _levels(span + np.array([6, 0, -4], np.float32))


def sharpened_frame(before: Frame, span: Frame, after: Frame) -> Frame:
    changed, middle = span.copy(), len(span) // 2
    blurred = cv2.GaussianBlur(span[middle], (0, 0), 1.5)
    changed[middle] = cv2.addWeighted(span[middle], 1.8, blurred, -0.8, 0)
    return changed


def softened(before: Frame, span: Frame, after: Frame) -> Frame:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in span])


def one_frame_shift(before: Frame, span: Frame, after: Frame) -> Frame:
    return np.concatenate([before[-1:], span[:-1]])


def brightness_drift(before: Frame, span: Frame, after: Frame) -> Frame:
    return _levels(span + np.linspace(0, 8, len(span), dtype=np.float32)[:, None, None, None])


def flicker(before: Frame, span: Frame, after: Frame) -> Frame:
    signs = np.where(np.arange(len(span)) % 2, 2.0, -2.0).astype(np.float32)
    return _levels(span + signs[:, None, None, None])


def duplicated_frame(before: Frame, span: Frame, after: Frame) -> Frame:
    # Drawn footage repeats frames itself; to repeat the one beside such a frame would be no fault.
    steps = [cv2.norm(*pair, cv2.NORM_L1) for pair in pairwise(span)]
    moved = max(range(len(span) // 2, len(span) - 1), key=lambda n: min(steps[n - 1], steps[n]))
    changed = span.copy()
    changed[moved] = changed[moved - 1]
    return changed


FAULTS: Mapping[str, Fault] = {
    "truth": truth,
    "hard cut": hard_cut,
    "crossfade": crossfade,
    "held frame": held_frame,
    "colour shift": color_shift,
    "sharpened frame": sharpened_frame,
    "softened": softened,
    "one-frame shift": one_frame_shift,
    "brightness drift": brightness_drift,
    "flicker": flicker,
    "duplicated frame": duplicated_frame,
}


def _levels(values: Frame) -> Frame:
    levels: Frame = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def main() -> None:
    """Measure, print, write."""
    shots = [shot for shot in SHOTS + MORE_SHOTS if not shot.cut]
    found = [controls(shot) for shot in shots]
    text = "\n\n".join([table(shots, found), spread_table(shots)])
    print(text)
    RESULTS.write_text(text + "\n")


def controls(shot: Shot) -> dict[str, SeamScore]:
    """The score of the truth and of every fault, in the middle of a shot's gap."""
    before, span, after = cut_out(shot)
    start = len(before)
    return {
        name: score_seam([*before, *fault(before, span, after), *after], start, start + SPAN_FRAMES)
        for name, fault in FAULTS.items()
    }


def cut_out(shot: Shot) -> tuple[Frame, Frame, Frame]:
    """(frames before, the span, frames after) in the middle of a shot's gap."""
    first = shot.gap_start + (shot.gap_frames - SPAN_FRAMES) // 2
    frames = read_frames(shot.video, first - NEIGHBOURS, first + SPAN_FRAMES + NEIGHBOURS, WIDTH_PIXELS)
    before, span, after = np.split(frames, [NEIGHBOURS, NEIGHBOURS + SPAN_FRAMES])
    return before, span, after


def table(shots: Sequence[Shot], found: Sequence[Mapping[str, SeamScore]]) -> str:
    """Scores of every span on every shot; those no worse than the truth are struck out."""
    lines = [
        ["span", *(f"{shot.name}, {shot.gap_frames}" for shot in shots), "found by"],
        ["---", *["---:"] * len(shots), "---"],
    ]
    for name in FAULTS:
        scores = [each[name] for each in found]
        cells = [_cell(score, each["truth"]) for score, each in zip(scores, found, strict=True)]
        lines.append([name, *cells, _found_by(scores, [each["truth"] for each in found])])
    return _markdown(lines)


def _cell(score: SeamScore, of_truth: SeamScore) -> str:
    is_missed = score is not of_truth and score.total <= of_truth.total
    return f"~~{score.total:.1f}~~" if is_missed else f"{score.total:.1f}"


def _found_by(scores: Sequence[SeamScore], truths: Sequence[SeamScore]) -> str:
    """The penalties that are 1 or more above the truth's on average, the largest first."""
    above = {
        name: mean(asdict(score)[name] - asdict(of_truth)[name] for score, of_truth in zip(scores, truths, strict=True))
        for name in TOLERANCES
    }
    ranked = sorted(above.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {value:.1f}" for name, value in ranked if value >= 1)


def spread_table(shots: Sequence[Shot]) -> str:
    """How large every penalty of untouched footage is: the middle of all spans, what one in twenty exceeds, and how
    many spans it is red in, in a report."""
    scores = [asdict(score) for shot in shots for score in untouched(shot)]
    values = np.array([[score[name] for name in TOLERANCES] for score in scores])
    middle, high = np.quantile(values, [0.5, 0.95], axis=0)
    red = (values >= RED).mean(axis=0)
    head = ["penalty", f"median of {len(scores)} untouched spans", "one in twenty exceeds", f"{RED:.0f} or more in"]
    lines = [head, ["---", "---:", "---:", "---:"]]
    lines += [[name, f"{middle[n]:.2f}", f"{high[n]:.2f}", f"{red[n]:.0%}"] for n, name in enumerate(TOLERANCES)]
    lines.append(["any of them", "", "", f"{(values >= RED).any(axis=1).mean():.0%}"])
    return _markdown(lines)


def untouched(shot: Shot) -> Iterator[SeamScore]:
    """The scores of every span of a shot, as it is."""
    signals = measure_signals(map(picture_of, read_frames(shot.video, shot.start, shot.stop, WIDTH_PIXELS)))
    length = 2 * NEIGHBOURS + SPAN_FRAMES
    for first in range(shot.stop - shot.start - length + 1):
        part = signals.part(first, first + length)
        yield score_signals(part, NEIGHBOURS, NEIGHBOURS + SPAN_FRAMES)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
