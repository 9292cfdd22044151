"""What goes into the pipeline: the context as float pictures, mid-grey in the gap, and a mask of what to generate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from splice.models.protocol import Frame, Guide, Pictures

SIZE_MULTIPLE = 16
"""Of width and height: the VAE's 8, the transformer's patches of 2."""

GREY = np.float32(127.5 / 255)


@dataclass(frozen=True)
class WorkingSize:
    """Pixels. width, height: of the pictures that the model works at; padded_*: with edges, in its multiples."""

    width: int
    height: int

    @property
    def padded_width(self) -> int:
        return math.ceil(self.width / SIZE_MULTIPLE) * SIZE_MULTIPLE

    @property
    def padded_height(self) -> int:
        return math.ceil(self.height / SIZE_MULTIPLE) * SIZE_MULTIPLE


@dataclass(frozen=True)
class Conditions:
    """video: (1, N, 3, H, W), in 0..1. mask: the same shape, 1 where a frame is to be generated, 0 where it is kept."""

    video: NDArray[np.float32]
    mask: NDArray[np.float32]


def working_size(width: int, height: int, native_pixels: int, asked: tuple[int, int] | None = None) -> WorkingSize:
    """The size at which a model works on pictures of width x height.

    asked: (width, height) that the request names. Else about the model's native number of pixels, at the picture's own
    shape and in multiples of 16; never larger than the picture, which is padded instead.
    """
    if asked:
        return WorkingSize(min(asked[0], width), min(asked[1], height))
    scale = math.sqrt(native_pixels / (width * height))
    if scale >= 1:
        return WorkingSize(width, height)
    scaled_width, scaled_height = (round(side * scale / SIZE_MULTIPLE) * SIZE_MULTIPLE for side in (width, height))
    return WorkingSize(max(SIZE_MULTIPLE, scaled_width), max(SIZE_MULTIPLE, scaled_height))


def to_float(frames: Frame) -> Pictures:
    """uint8 or uint16 -> 0..1."""
    pictures: Pictures = (frames / np.float32(np.iinfo(frames.dtype).max)).astype(np.float32)
    return pictures


def scale_pictures(pictures: Pictures, size: WorkingSize) -> Pictures:
    """The pictures at the working size; averaged over areas, since that is the smaller."""
    wanted = (size.width, size.height)
    if pictures.shape[2:0:-1] == wanted:
        return pictures
    return np.stack([cv2.resize(picture, wanted, interpolation=cv2.INTER_AREA) for picture in pictures])


def lay_conditions(guide: Guide, size: WorkingSize) -> Conditions:
    """The window as the pipeline takes it. Raises AssertionError where it is no window of 4n + 1 frames."""
    assert guide.window_frames % 4 == 1, f"the plan gave a window of {guide.window_frames} frames"
    video = _lay_window(guide, np.full((guide.gap_frames, size.height, size.width, 3), GREY, np.float32), size)
    mask = np.zeros_like(video)
    mask[:, len(guide.left) : len(guide.left) + guide.gap_frames] = 1
    return Conditions(video, mask)


def lay_start(guide: Guide, replaced: Frame, size: WorkingSize) -> NDArray[np.float32]:
    """The window with the source's own frames in the gap: (1, N, 3, H, W), in 0..1."""
    return _lay_window(guide, scale_pictures(to_float(replaced), size), size)


def _lay_window(guide: Guide, gap: Pictures, size: WorkingSize) -> NDArray[np.float32]:
    left, right = (scale_pictures(to_float(side), size) for side in (guide.left, guide.right))
    edges = ((0, 0), (0, size.padded_height - size.height), (0, size.padded_width - size.width), (0, 0))
    window = np.pad(np.concatenate([left, gap, right]), edges, mode="edge")
    return np.ascontiguousarray(window.transpose(0, 3, 1, 2)[None])


@dataclass(frozen=True)
class Rendered:
    """What comes out of a pipeline, and what its VAE alone makes of the context: the best that it could do there.

    window: (N, H, W, 3), of the conditions' size. reencoded: by the number in the window of those context frames next
    to the gap that were encoded and decoded, (H, W, 3) each.
    """

    window: Pictures
    reencoded: dict[int, Pictures]


def reencoded_frames(conditions: Conditions) -> tuple[range, range]:
    """(left, right): the numbers in the window of a latent's first frame and the next group's, next to the gap."""
    is_made = conditions.mask[0, :, 0, 0, 0] > 0
    first, last = int(is_made.argmax()), len(is_made) - 1 - int(is_made[::-1].argmax())
    left = REENCODED if first >= REENCODED else 1
    right = REENCODED if len(is_made) - 1 - last >= REENCODED else 1
    return range(first - left, first), range(last + 1, last + 1 + right)


REENCODED = 5
"""Of each side: two latents of Wan's VAE."""


def kept_frames(left: int, gap: int, right: int) -> tuple[range, range]:
    """(left, right): numbers of the frames in the window whose latents the pipeline keeps, and that hold no gap frame.

    Wan's VAE: the first frame is a latent by itself, then every four are one. WanVACEPipeline.prepare_masks marks a
    latent by a single frame near it (nearest-exact).
    """
    window = left + gap + right
    latents = window // 4 + 1
    of_gap = range(left, left + gap)

    def is_kept(latent: int) -> bool:
        sampled = (2 * latent + 1) * window // (2 * latents)
        held = range(max(0, 4 * latent - 3), 4 * latent + 1)
        return sampled not in of_gap and not any(frame in of_gap for frame in held)

    kept = [latent for latent in range(latents) if is_kept(latent)]
    last_left = max((latent for latent in kept if 4 * latent < left), default=-1)
    first_right = min((latent for latent in kept if 4 * latent >= left), default=latents)
    return range(4 * last_left + 1 if last_left >= 0 else 0), range(4 * first_right - 3, window)
