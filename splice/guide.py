"""What a model is shown at a seam, read from the two source clips."""

from __future__ import annotations

import numpy as np

from splice.media import read_frames, to_rgb
from splice.models.protocol import Frame, Guide
from splice.types import Context, Timeline, Transition


def read_guide(timeline: Timeline, transition: Transition) -> Guide:
    """The context frames of both sides as RGB. Raises MediaError where a clip can't be read."""
    left = _read_context(timeline, transition.left)
    right = _read_context(timeline, transition.right)
    return Guide(
        left=np.concatenate([left[:1]] * transition.left.padding + [left]),
        right=np.concatenate([right] + [right[-1:]] * transition.right.padding),
        gap_frames=transition.gap_frame_count,
        rate=timeline.format.rate,
    )


def _read_context(timeline: Timeline, context: Context) -> Frame:
    frames = read_frames(timeline.clips[context.clip], timeline.format, context.frames)
    return np.stack([to_rgb(frame, timeline.format) for frame in frames])
