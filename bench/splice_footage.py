"""Clips to splice, of any length: a real shot, encoded as cameras and editors do, its packets over and over.

``python -m bench.splice_footage FOLDER CLIPS SECONDS HEIGHT SOUND`` makes a task's files in a process of its own, so
that its memory does not count as that of the processes that are measured later.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream

from bench.footage import BIG_BUCK_BUNNY
from bench.rivals import CHANNELS, GAP_FRAMES, RATE, SAMPLE_RATE, Task

SHOT_FRAMES = 125
"""5 seconds, so that every length of a task is a whole number of them."""

SOUND_BITS_PER_SECOND = 192_000
AAC_FRAME_SAMPLES = 1024
TICKS = 512
"""Of a frame, in the time base of camera files: 1 / 12800 s at 25 frames per second."""


@dataclass(frozen=True)
class Camera:
    """How a clip is encoded. start: the first of its SHOT_FRAMES of Big Buck Bunny's 132."""

    start: int
    x264: str


CAMERAS = (Camera(0, "cabac=1:keyint=250:bframes=3"), Camera(7, "cabac=0:keyint=48:bframes=2:ref=2"))
"""Of even and of odd clips."""


def make_clips(task: Task) -> None:
    """The task's clips, what they are made of, and what the floor is given; what is there of the latter is kept."""
    shots = [task.folder / f"shot_{task.height}_{index}.mp4" for index in range(len(CAMERAS))]
    if not all(shot.exists() for shot in shots):
        pictures = _read_pictures(task)
        for camera, shot in zip(CAMERAS, shots, strict=True):
            _encode(pictures[camera.start : camera.start + SHOT_FRAMES], shot, camera)
        firsts = [pictures[camera.start] for camera in CAMERAS]
        lasts = [pictures[camera.start + SHOT_FRAMES - 1] for camera in CAMERAS]
        _write_seam(lasts[0], firsts[1], task.seam(0))
        _write_seam(lasts[1], firsts[0], task.seam(1))
    sound = task.folder / "sound.mp4"
    if not sound.exists():
        _write_samples(task.samples)
        _encode_sound(task.samples, sound)
    for index, clip in enumerate(task.clips):
        if index < len(shots):
            _write_clip(shots[index], sound, task, clip)
        else:
            shutil.copyfile(task.clips[index % len(shots)], clip)


def _read_pictures(task: Task) -> list[av.VideoFrame]:
    with av.open(str(BIG_BUCK_BUNNY.path())) as container:
        return [
            picture.reformat(task.width, task.height, "yuv420p", interpolation="BICUBIC")
            for picture in container.decode(video=0)
        ]


def _encode(pictures: Sequence[av.VideoFrame], path: Path, camera: Camera) -> None:
    with av.open(str(path), "w") as output:
        options = {"preset": "medium", "crf": "20", "x264-params": camera.x264}
        stream = output.add_stream("libx264", rate=RATE, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture.to_ndarray(), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _write_seam(left: av.VideoFrame, right: av.VideoFrame, path: Path) -> None:
    """The dissolve of splice/models/crossfade.py, in YUV."""
    first, last = left.to_ndarray().astype(np.float32), right.to_ndarray().astype(np.float32)
    with path.open("wb") as file:
        for index in range(GAP_FRAMES):
            alpha = (index + 1) / (GAP_FRAMES + 1)
            np.rint(first * (1 - alpha) + last * alpha).astype(np.uint8).tofile(file)


def _write_samples(path: Path) -> None:
    """Big Buck Bunny's sound in stereo (the track of footage.WORLD is digital silence, which is encoded in no time)."""
    with av.open(str(BIG_BUCK_BUNNY.path())) as container:
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE)
        frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    seconds = samples.shape[1] // SAMPLE_RATE
    blocks = samples[:, : seconds * SAMPLE_RATE].reshape(CHANNELS, seconds, SAMPLE_RATE)
    np.ascontiguousarray(blocks.swapaxes(0, 1), np.float32).tofile(path)


def _encode_sound(samples: Path, path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=SAMPLE_RATE)
        assert isinstance(stream, AudioStream)
        stream.bit_rate = SOUND_BITS_PER_SECOND
        for block in np.fromfile(samples, np.float32).reshape(-1, CHANNELS, SAMPLE_RATE):
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate = SAMPLE_RATE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _write_clip(shot: Path, sound_file: Path, task: Task, path: Path) -> None:
    with (
        av.open(str(shot)) as pictures,
        av.open(str(sound_file)) as sound,
        av.open(str(path), "w", options={"video_track_timescale": str(RATE * TICKS)}) as output,
    ):
        video = output.add_stream_from_template(pictures.streams.video[0])
        tracks: list[Iterator[Packet[Any]]] = [_repeated_pictures(_packets(pictures, "video"), video, task.clip_frames)]
        if task.has_sound:
            audio = output.add_stream_from_template(sound.streams.audio[0])
            tracks.append(_repeated_sound(_packets(sound, "audio"), audio, task.seconds))
        for packet in merge(*tracks, key=_decode_seconds):
            output.mux(packet)


def _decode_seconds(packet: Packet[Any]) -> float:
    assert packet.dts is not None, "set by us"
    return float(packet.dts * packet.time_base)


def _packets(container: av.container.InputContainer, kind: str) -> list[Packet[Any]]:
    return [packet for packet in container.demux(**{kind: 0}) if packet.size]


def _repeated_pictures(
    packets: Sequence[Packet[VideoStream]], stream: VideoStream, frame_count: int
) -> Iterator[Packet[VideoStream]]:
    """A shot that begins with a keyframe follows itself; what a muxer changes of a packet is set anew."""
    tick = Fraction(1, RATE * TICKS)
    times = []
    for packet in packets:
        assert packet.pts is not None and packet.dts is not None, "encoded by us"
        times.append((round(packet.pts * packet.time_base / tick), round(packet.dts * packet.time_base / tick)))
    for start in range(0, frame_count, SHOT_FRAMES):
        for packet, (pts, dts) in zip(packets, times, strict=True):
            packet.stream, packet.time_base = stream, tick
            packet.pts, packet.dts, packet.duration = pts + start * TICKS, dts + start * TICKS, TICKS
            yield packet


def _repeated_sound(
    packets: Sequence[Packet[AudioStream]], stream: AudioStream, seconds: int
) -> Iterator[Packet[AudioStream]]:
    for number in count():
        if number * AAC_FRAME_SAMPLES >= seconds * SAMPLE_RATE:
            return
        packet = packets[number % len(packets)]
        packet.stream, packet.time_base = stream, Fraction(1, SAMPLE_RATE)
        packet.pts = packet.dts = number * AAC_FRAME_SAMPLES
        packet.duration = AAC_FRAME_SAMPLES
        yield packet


if __name__ == "__main__":
    make_clips(Task.parse(sys.argv[1:]))
