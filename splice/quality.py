"""How much of a seam can be seen: measured on its decoded pictures, against what is normal in the clips beside it.

Nothing here is learned, and nothing knows the truth. Every signal is a series over the frames around a seam. What it
reaches in the frames beside the seam is normal there, and what it is at the edges of the generated span and within it
is held against that: a penalty is by how much the worst frame is beyond normal. Normal is the largest value beside the
seam, not the median: what the clips do themselves, jerks too, is no fault of a seam. Untouched footage mostly has
penalties near 0; none exceeds 2 in more than one span of twenty (``bench.controls``). The score is the sum of the
penalties.

Of the sound there is the step of its level (``level_step``); how far sound and picture are apart is read off the
timestamps (``splice.media.track_offsets``). Neither is part of the score, which is of pictures. Which penalties there
are, and how they are weighted, was decided on spans of real footage with planted faults: ``python -m bench.controls``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from splice.models import motion
from splice.models.motion import Field
from splice.models.protocol import Frame
from splice.sound import Samples

Series = NDArray[np.float64]
"""Shape (N,): one value a frame."""

SMALL_SIDE = 320
"""Pixels of the longer side of the pictures that all is measured on but sharpness."""

BLOCKS = 16
"""Along the longer side, of which colours are compared."""

NEIGHBOURS = 8
"""Frames on each side of a span that say what is normal there, where there are as many."""

FEWEST_NEIGHBOURS = 4
"""Of each side: with less a second difference knows no normal."""


@dataclass(frozen=True)
class Picture:
    """A frame as it is measured. luma: (H, W) uint8, in full size. small: (h, w, 3) uint8 RGB, SMALL_SIDE at most."""

    luma: NDArray[np.uint8]
    small: Frame


@dataclass(frozen=True)
class Signals:
    """What is measured at every frame; those that compare with the frames before are nan where there are none.

    All are 0 where nothing changes, and the larger the more does; sharpness is the larger the sharper.

    difference: mean absolute difference of luma from the frame before, 0..255; of shot boundary detection (Hanjalic,
        IEEE TCSVT 2002).
    chroma: the same of both chroma planes, 0..255.
    bend: mean absolute second difference of luma, 0..510: of a jerk both edges, of a dissolve nothing.
    color: CIE76 difference of the blocks' mean colours from the frame before, median over the blocks; 2.3 can just be
        noticed (Mahy et al., Color Research & Application 1994).
    warp: mean absolute difference of luma from the frame before where that is moved along the flow, 0..255; the
        warping error of Lai et al., ECCV 2018, without their mask of what is hidden: what a ghost hides counts.
    turn: mean length by which the flow differs from that of the frame before, pixels of the small picture: the
        acceleration, as an endpoint error (Baker et al., IJCV 2011).
    flicker: absolute second difference of the mean luma, 0..510.
    sharpness: log2 of 1 + the variance of the luma's Laplacian, 0..20 (Pech-Pacheco et al., ICPR 2000).
    """

    difference: Series
    chroma: Series
    bend: Series
    color: Series
    warp: Series
    turn: Series
    flicker: Series
    sharpness: Series

    def part(self, start: int, stop: int) -> Signals:
        """Those of the frames ``start .. stop`` alone."""
        return Signals(*(getattr(self, field.name)[start:stop] for field in fields(self)))


@dataclass(frozen=True)
class SeamScore:
    """Penalties of one seam, each 0 or more without a limit, the less the better; 1 is what TOLERANCES says.

    step: difference from the frame before. chroma: of chroma. bend: second difference. color: of mean colours.
    warp: what motion does not explain. turn: change of speed and direction. flicker: of brightness.
    linear: second differences that fall short of the clips': a dissolve is linear in time, footage never is.
    sharpness: frames sharper or softer than the clips, or than their neighbours. frozen: frames that hardly differ
    from the one before.
    """

    step: float
    chroma: float
    bend: float
    color: float
    warp: float
    turn: float
    flicker: float
    linear: float
    sharpness: float
    frozen: float

    @property
    def total(self) -> float:
        """0: can't be told from the clips; the more the worse."""
        return float(sum(asdict(self).values()))


TOLERANCES = {
    "step": 0.5,
    "chroma": 1.3,
    "bend": 0.5,
    "color": 0.7,
    "warp": 0.4,
    "turn": 1.6,
    "flicker": 1.1,
    "linear": 0.4,
    "sharpness": 0.15,
    "frozen": 1.0,
}
"""What makes a penalty of 1: octaves beyond normal; of frozen, frames.

Chosen on ``bench.controls``: near to what one in twenty of the untouched spans exceeds, so that no single penalty
outweighs the others for what footage does itself.
"""

FLOORS = {
    "difference": 0.25,
    "chroma": 0.15,
    "bend": 0.25,
    "color": 0.2,
    "warp": 0.25,
    "turn": 0.05,
    "flicker": 0.1,
}
"""Of each signal what noise alone makes: what is below counts as this much."""

QUIET_DB = -70.0
"""Of full scale; what is below is silence (the absolute gate of ITU-R BS.1770)."""

FROZEN_SHARE = 0.25
"""Of the normal difference, below which a frame is the one before again."""


class SeamTooShort(ValueError):
    """There are too few frames beside a span to say what is normal."""


def picture_of(frame: Frame) -> Picture:
    """A frame, (H, W, 3) uint8 RGB, as it is measured."""
    return Picture(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), shrink(frame))


def shrink(frame: Frame, side: int = SMALL_SIDE) -> Frame:
    """A frame of any size as small as most signals are measured on. side: pixels of the longer one, at most."""
    size = motion.grid_size(frame, min(side, max(frame.shape[:2])))
    small: Frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return small


def score_seam(frames: Iterable[Frame], start: int, stop: int) -> SeamScore:
    """The score of the span ``start .. stop`` (half open) of consecutive frames, (H, W, 3) uint8 RGB.

    Raises SeamTooShort: fewer than FEWEST_NEIGHBOURS frames on a side.
    """
    return score_signals(measure_signals(picture_of(frame) for frame in frames), start, stop)


def measure_signals(pictures: Iterable[Picture]) -> Signals:
    """The signals of consecutive pictures, drawn one by one; memory is constant."""
    rows: list[tuple[float, ...]] = []
    before: _Measured | None = None
    for picture in pictures:
        now = _Measured(picture, before)
        rows.append(now.row)
        before = now
        if now.before is not None:
            now.before.before = None  # two frames back is as far as anything looks
    return Signals(*(np.array(column) for column in zip(*rows, strict=True)))


class _Measured:
    """One picture, taken apart, and its values against the two before it."""

    def __init__(self, picture: Picture, before: _Measured | None) -> None:
        planes = cv2.cvtColor(picture.small, cv2.COLOR_RGB2YCrCb)
        self.grey = np.ascontiguousarray(planes[..., 0])
        self.luma = self.grey.astype(np.float32)
        self.chroma = planes[..., 1:].astype(np.float32)
        self.colors = _block_colors(picture.small)
        self.brightness = float(self.luma.mean())
        self.sharpness = _sharpness(picture.luma)
        self.flow: Field | None = None
        self.step: NDArray[np.float32] | None = None
        self.before = before
        self.row = self._row(before)

    def _row(self, before: _Measured | None) -> tuple[float, ...]:
        if before is None:
            return (*[np.nan] * 7, self.sharpness)
        self.step = self.luma - before.luma
        # Leads from here back to the frame before, so that that one is sampled where it says.
        self.flow = motion.estimate_flow(self.grey, before.grey, finest_scale=1)
        grid = motion.positions((self.grey.shape[1], self.grey.shape[0]))
        warped = motion.sample(before.luma, grid + self.flow)
        bend = turn = flicker = np.nan
        if before.step is not None and before.flow is not None and before.before is not None:
            bend = _mean(self.step - before.step)
            turn = float(motion.length(self.flow - before.flow).mean())
            flicker = abs(self.brightness - 2 * before.brightness + before.before.brightness)
        return (
            _mean(self.step),
            _mean(self.chroma - before.chroma),
            bend,
            float(np.median(np.linalg.norm(self.colors - before.colors, axis=-1))),
            _mean(self.luma - warped),
            turn,
            flicker,
            self.sharpness,
        )


def score_signals(signals: Signals, start: int, stop: int) -> SeamScore:
    """The score of the span ``start .. stop`` of measured frames. Raises SeamTooShort as above."""
    count = len(signals.sharpness)
    if start < FEWEST_NEIGHBOURS or count - stop < FEWEST_NEIGHBOURS:
        raise SeamTooShort(
            f"{start} and {count - stop} frames beside the span, needed are {FEWEST_NEIGHBOURS} on each side"
        )
    return SeamScore(
        step=_beyond("step", _octaves(signals.difference, "difference", start, stop, 1)),
        chroma=_beyond("chroma", _octaves(signals.chroma, "chroma", start, stop, 1)),
        bend=_beyond("bend", _octaves(signals.bend, "bend", start, stop, 2)),
        color=_beyond("color", _octaves(signals.color, "color", start, stop, 1)),
        warp=_beyond("warp", _octaves(signals.warp, "warp", start, stop, 1)),
        turn=_beyond("turn", _octaves(signals.turn, "turn", start, stop, 2)),
        flicker=_beyond("flicker", _octaves(signals.flicker, "flicker", start, stop, 2)),
        linear=_beyond("linear", _too_linear(signals.bend, start, stop)),
        sharpness=_beyond("sharpness", _off_sharpness(signals.sharpness, start, stop)),
        frozen=_beyond("frozen", _frozen_frames(signals.difference, start, stop)),
    )


def level_step(before: Samples, after: Samples) -> float:
    """By how many dB the level of sound differs from one moment to the next; what is below QUIET_DB counts as that.

    before, after: (channels, samples), full scale -1..1; 0 where one of them is empty.
    """
    if not before.size or not after.size:
        return 0.0
    levels = [10 * np.log10(max(float(np.mean(np.square(each))), 10 ** (QUIET_DB / 10))) for each in (before, after)]
    return float(abs(levels[1] - levels[0]))


def _beyond(name: str, excess: float) -> float:
    return max(0.0, excess / TOLERANCES[name])


def _octaves(signal: Series, name: str, start: int, stop: int, reach: int) -> float:
    """By how much the worst frame is above normal. reach: how many frames a value looks back."""
    touched = signal[start : stop + reach]
    values = np.log2(np.maximum(signal, FLOORS[name]))
    normal = np.linspace(values[reach:start].max(), values[stop + reach :].max(), len(touched))
    return float((values[start : stop + reach] - normal).max())


def _too_linear(bend: Series, start: int, stop: int) -> float:
    """By how many octaves the middle of the span's second differences is below that of the calmer side."""
    values = np.log2(np.maximum(bend, FLOORS["bend"]))
    span = values[start + 1 : stop]
    if not len(span):
        return 0.0
    return float(min(np.median(values[2:start]), np.median(values[stop + 2 :])) - np.median(span))


def _off_sharpness(sharpness: Series, start: int, stop: int) -> float:
    """Octaves by which the worst frame is outside of what leads from one side to the other, or off its neighbours'
    mean by more than frames beside the span are."""
    left, span, right = sharpness[:start], sharpness[start:stop], sharpness[stop:]
    low = np.linspace(left.min(), right.min(), len(span) + 2)[1:-1]
    high = np.linspace(left.max(), right.max(), len(span) + 2)[1:-1]
    outside = float(np.maximum(low - span, span - high).max())
    spikes = np.abs(sharpness[1:-1] - (sharpness[:-2] + sharpness[2:]) / 2)  # of frame n + 1
    normal = max(spikes[: start - 2].max(), spikes[stop:].max())
    return max(outside, float(spikes[start - 2 : stop].max() - normal))


def _frozen_frames(difference: Series, start: int, stop: int) -> float:
    """How many frames, of the span and the first after it, are the one before again, beyond what the sides do.

    Where neither side moves, nothing is said.
    """
    beside = np.concatenate([difference[1:start], difference[stop + 1 :]])
    normal = min(float(np.median(difference[1:start])), float(np.median(difference[stop + 1 :])))
    if normal * FROZEN_SHARE < FLOORS["difference"] / 4:
        return 0.0
    limit = FROZEN_SHARE * normal
    span = difference[start : stop + 1]
    return float((span < limit).sum() - len(span) * (beside < limit).mean())


def _mean(values: NDArray[np.float32]) -> float:
    return cv2.norm(values, cv2.NORM_L1) / values.size


def _sharpness(luma: NDArray[np.uint8]) -> float:
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    return float(np.log2(float(deviation[0, 0]) ** 2 + 1))


def _block_colors(small: Frame) -> NDArray[np.float32]:
    """Mean colours in CIELAB, (h, w, 3)."""
    height, width = small.shape[:2]
    scale = BLOCKS / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    blocks = cv2.resize(small.astype(np.float32) / 255, size, interpolation=cv2.INTER_AREA)
    colors: NDArray[np.float32] = cv2.cvtColor(blocks, cv2.COLOR_RGB2LAB)
    return colors
