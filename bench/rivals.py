"""What the splice is held against, on the same clips: FFmpeg's filters, a chain that encodes again, and the floor.

The output is the same for all: every clip whole, and GAP_FRAMES between each two, in which the last frame of the left
one dissolves into the first of the right one; the sound falls silent for that long.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from splice.media import encode_frames
from splice.media.sound_packets import add_sound_stream, encode_sound
from splice.types import ColorTags, SoundFormat, VideoFormat

FFMPEG = "/usr/bin/ffmpeg"
"""Debian's, as a user has it."""

RATE = 25
GAP_FRAMES = 53
GAP_SECONDS = Fraction(GAP_FRAMES, RATE)
SAMPLE_RATE = 48_000
SOUND = SoundFormat(SAMPLE_RATE, "stereo")
CHANNELS = 2
COPY_BYTES = 2**30
"""At most, of one call to the kernel."""


@dataclass(frozen=True)
class Task:
    """What every rival is given: ``clip_count`` clips of ``seconds`` in a folder, and what is in memory already.

    Clips differ in their encoder's settings by odd and even.
    """

    folder: Path
    clip_count: int
    seconds: int
    height: int
    has_sound: bool

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Task:
        """The inverse of ``arguments``: tasks are handed to other processes."""
        folder, clip_count, seconds, height, has_sound = arguments
        return cls(Path(folder), int(clip_count), int(seconds), int(height), has_sound == "True")

    @property
    def arguments(self) -> list[str]:
        return [str(self.folder), *map(str, (self.clip_count, self.seconds, self.height, self.has_sound))]

    @property
    def width(self) -> int:
        return self.height * 16 // 9

    @property
    def clips(self) -> list[Path]:
        return [self.folder / f"clip_{index}.mp4" for index in range(self.clip_count)]

    @property
    def clip_frames(self) -> int:
        return self.seconds * RATE

    @property
    def frame_count(self) -> int:
        """Of the result."""
        return self.clip_count * self.clip_frames + (self.clip_count - 1) * GAP_FRAMES

    def seam(self, join: int) -> Path:
        """The frames of a gap as planes of yuv420p, one after the other: of an even clip to an odd one, or back."""
        return self.folder / f"seam_{self.height}_{join % 2}.yuv"

    @property
    def samples(self) -> Path:
        """Real sound, decoded: float32, in blocks of one second, each one channel after the other."""
        return self.folder / "samples.f32"


def filter_commands(task: Task, output: Path) -> list[list[str]]:
    """(a): everything in one go, by one filter graph."""
    return [dissolve_command([(clip, task.clip_frames) for clip in task.clips], task.has_sound, output)]


def repeated_commands(task: Task, output: Path) -> list[list[str]]:
    """(b): join after join; each decodes the output of the one before, and encodes everything again."""
    commands = []
    joined, joined_frames = task.clips[0], task.clip_frames
    for join, clip in enumerate(task.clips[1:]):
        step = output if join == task.clip_count - 2 else output.with_name(f"step_{join}.mp4")
        commands.append(dissolve_command([(joined, joined_frames), (clip, task.clip_frames)], task.has_sound, step))
        joined, joined_frames = step, joined_frames + GAP_FRAMES + task.clip_frames
    return commands


def dissolve_command(inputs: Sequence[tuple[Path, int]], has_sound: bool, output: Path) -> list[str]:
    """The command that joins files of so many frames: still frames are added at the seams, and dissolved."""
    graph = _pictures([frames for _, frames in inputs])
    if has_sound:
        graph += _sounds([frames for _, frames in inputs])
    command = [FFMPEG, "-nostdin", "-y", "-v", "error"]
    for path, _ in inputs:
        command += ["-i", str(path)]
    command += ["-filter_complex", ";".join(graph), "-map", "[video]", "-c:v", "libx264", "-preset", "veryfast"]
    if has_sound:
        command += ["-map", "[audio]", "-c:a", "aac", "-b:a", "256k"]
    return [*command, str(output)]


def _pictures(frames: Sequence[int]) -> list[str]:
    last = len(frames) - 1
    graph = []
    for index in range(len(frames)):
        before = f"start={GAP_FRAMES}:start_mode=clone" if index else ""
        after = f"stop={GAP_FRAMES}:stop_mode=clone" if index < last else ""
        graph.append(f"[{index}:v]tpad={':'.join(filter(None, (before, after)))}[v{index}]")
    labels = ["v0", *(f"x{index}" for index in range(1, last)), "video"]
    start = 0
    for index, (joined, result) in enumerate(pairwise(labels)):
        start += frames[index] + (GAP_FRAMES if index else 0)
        offset_seconds = start / RATE
        fade = f"xfade=fade:duration={float(GAP_SECONDS)}:offset={offset_seconds}"
        graph.append(f"[{joined}][v{index + 1}]{fade}[{result}]")
    return graph


def _sounds(frames: Sequence[int]) -> list[str]:
    graph = []
    for index, count in enumerate(frames):
        samples = (count + (GAP_FRAMES if index < len(frames) - 1 else 0)) * SAMPLE_RATE // RATE
        graph.append(f"[{index}:a]apad=whole_len={samples},atrim=end_sample={samples}[a{index}]")
    inputs = "".join(f"[a{index}]" for index in range(len(frames)))
    return [*graph, f"{inputs}concat=n={len(frames)}:v=0:a=1[audio]"]


def floor_command(task: Task, folder: Path) -> list[str]:
    """(c): what no splice can do without, one after the other, in a process of its own."""
    return [sys.executable, "-m", "bench.rivals", str(folder), *task.arguments]


def write_floor(task: Task, folder: Path) -> None:
    """All bytes of the clips are copied, the gaps' frames encoded, and the sound of the result; each is flushed."""
    _copy_bytes(task.clips, folder / "copy.bin")
    color = ColorTags("bt709", "bt709", "bt709", full_range=False)
    video_format = VideoFormat("h264", task.width, task.height, Fraction(RATE), 8, color)
    for join in range(task.clip_count - 1):
        encode_frames(_seam_frames(task, join), folder / f"gap_{join}.mp4", video_format, GAP_FRAMES)
    if task.has_sound:
        with av.open(str(folder / "sound.mp4"), "w") as output:
            stream = add_sound_stream(output, SOUND, "aac")
            for packet in encode_sound(stream, _blocks(task)):
                output.mux(packet)


def _copy_bytes(paths: Sequence[Path], target: Path) -> None:
    with target.open("wb") as output:
        for path in paths:
            with path.open("rb") as source:
                while os.sendfile(output.fileno(), source.fileno(), None, COPY_BYTES):
                    pass
        os.fsync(output.fileno())


def _seam_frames(task: Task, join: int) -> Iterator[av.VideoFrame]:
    planes = np.fromfile(task.seam(join), np.uint8).reshape(GAP_FRAMES, task.height * 3 // 2, task.width)
    return (av.VideoFrame.from_ndarray(each, format="yuv420p") for each in planes)


def _blocks(task: Task) -> Iterator[npt.NDArray[np.float32]]:
    """As many samples as the result lasts."""
    remaining = task.frame_count * SAMPLE_RATE // RATE
    for block in cycle(np.fromfile(task.samples, np.float32).reshape(-1, CHANNELS, SAMPLE_RATE)):
        yield block[:, :remaining]
        remaining -= min(remaining, SAMPLE_RATE)
        if not remaining:
            return


if __name__ == "__main__":
    write_floor(Task.parse(sys.argv[2:]), Path(sys.argv[1]))
