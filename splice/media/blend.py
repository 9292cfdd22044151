"""Mixing two frames in YUV at their own depth."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from splice.errors import MediaError


def mix_frames(original: av.VideoFrame, generated: av.VideoFrame, share: Fraction) -> av.VideoFrame:
    """(1 - share) of ``original`` and ``share`` of ``generated``, 0..1, rounded to the nearest level.

    Raises MediaError where size or pixel format differ.
    """
    kinds = [(frame.format.name, frame.width, frame.height) for frame in (original, generated)]
    if kinds[0] != kinds[1]:
        raise MediaError(f"frames of different kinds can't be mixed: {kinds[0]} and {kinds[1]}")
    ours, theirs = (frame.to_ndarray().astype(np.uint32) for frame in (original, generated))
    whole, part = share.denominator, share.numerator
    mixed = (ours * (whole - part) + theirs * part + whole // 2) // whole
    is_8_bit = original.format.components[0].bits == 8
    levels = mixed.astype(np.uint8) if is_8_bit else mixed.astype(np.uint16)
    return av.VideoFrame.from_ndarray(levels, format=original.format.name)
