"""What a model is shown at a seam, read from the two source clips."""

from __future__ import annotations

import numpy as np

from splice.media import read_frames, to_rgb
from splice.models.protocol import Frame, Guide
from splice.types import FrameRange, Timeline, Transition


def read_guide(timeline: Timeline, transition: Transition) -> Guide:
    """The context frames of both sides as RGB, and those that are replaced where the model starts from them.

    Raises MediaError where a clip can't be read.
    """
    left = _read_frames(timeline, transition.left.clip, transition.left.frames)
    right = _read_frames(timeline, transition.right.clip, transition.right.frames)
    replaced = None
    if transition.settings.model_settings.vid2vid_strength is not None:
        removed = ((transition.left, transition.removed_left), (transition.right, transition.removed_right))
        replaced = np.concatenate(
            [_read_frames(timeline, side.clip, frames) for side, frames in removed if len(frames)]
        )
    return Guide(
        left=np.concatenate([left[:1]] * transition.left.padding + [left]),
        right=np.concatenate([right] + [right[-1:]] * transition.right.padding),
        gap_frames=transition.gap_frame_count,
        rate=timeline.format.rate,
        replaced=replaced,
    )


def _read_frames(timeline: Timeline, clip: int, wanted: FrameRange) -> Frame:
    frames = read_frames(timeline.clips[clip], timeline.format, wanted)
    return np.stack([to_rgb(frame, timeline.format) for frame in frames])
