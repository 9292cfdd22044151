"""Every s-th frame of a window for the model, and what lies between two of its frames made from them.

A model that was made for few frames a second, or for short windows, can fill a gap that is longer or at a higher rate
so. The grid of its frames starts at the seam, on each side: ... -2s, -s, 0 | gap | 0, s, 2s ...; within the gap its
frames are spread evenly, at most s apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from splice.models.flow_morph import interpolate
from splice.models.protocol import Frame, Guide


def strided_gap(gap: int, stride: int) -> int:
    """How many frames the model makes in a gap of that many: at least one."""
    return max(1, math.ceil((gap + 1) / stride) - 1)


def strided_context(frames: int, stride: int) -> int:
    """How many of a side's frames are on the grid."""
    return math.ceil(frames / stride)


def spanned_context(frames: int, stride: int) -> int:
    """How many of a side's frames the grid reaches over when that many are on it."""
    return stride * (frames - 1) + 1


def needed_context(frames: int, stride: int) -> int:
    """How many have to be on the grid for it to reach over that many of a side's frames."""
    return math.ceil((frames - 1) / stride) + 1


def stride_guide(guide: Guide, stride: int) -> Guide:
    """What the model sees of a guide; of frames being replaced those nearest to where its own will be."""
    if stride == 1:
        return guide
    return replace(
        guide,
        left=guide.left[::-1][::stride][::-1],
        right=guide.right[::stride],
        gap_frames=strided_gap(guide.gap_frames, stride),
        rate=guide.rate / stride,
        replaced=None if guide.replaced is None else guide.replaced[_nearest(guide, stride)],
    )


def fill_frames(guide: Guide, stride: int, rendered: Iterable[Frame]) -> Iterator[Frame]:
    """The guide's whole window, of a rendering of ``stride_guide``'s: (H, W, 3) each, as the model made them.

    What lies between two of the model's frames follows the motion between them.
    """
    if stride == 1:
        yield from rendered
        return
    for (start, left), (end, right) in pairwise(zip(_times(guide, stride), rendered, strict=True)):
        shown = range(math.ceil(start), math.ceil(end))
        yield from interpolate(left, right, [float((time - start) / (end - start)) for time in shown])
        last = right
    yield last


def _times(guide: Guide, stride: int) -> Iterator[Fraction]:
    """When each of the model's frames is, in frames of the window."""
    first_right = len(guide.left) + guide.gap_frames
    yield from map(Fraction, range((len(guide.left) - 1) % stride, len(guide.left), stride))
    yield from _gap_times(guide, stride)
    yield from map(Fraction, range(first_right, guide.window_frames, stride))


def _gap_times(guide: Guide, stride: int) -> Sequence[Fraction]:
    steps = strided_gap(guide.gap_frames, stride) + 1
    return [len(guide.left) - 1 + Fraction((guide.gap_frames + 1) * step, steps) for step in range(1, steps)]


def _nearest(guide: Guide, stride: int) -> list[int]:
    last = guide.gap_frames - 1
    return [min(last, max(0, round(time) - len(guide.left))) for time in _gap_times(guide, stride)]
