"""Sound that says when it is heard: clicks at known times, muxed beside numbered pictures, and found again.

Nothing here uses the project's own media code, so that it can be its judge.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

FFMPEG, FFPROBE = shutil.which("ffmpeg", path="/usr/bin"), shutil.which("ffprobe", path="/usr/bin")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None or FFPROBE is None, reason="needs Debian's ffmpeg as judge")

RATE = 48_000
CLICKS = (0.1, 0.7, 1.5, 1.95)
CLICK_SECONDS = 0.0005

Sound = npt.NDArray[np.float32]


def clicks(rate: int = RATE, seconds: float = 2, times: Sequence[float] = CLICKS, channels: int = 2) -> Sound:
    """Gaussian pulses half a millisecond wide, of height 0.5, in every channel."""
    at = np.arange(round(seconds * rate)) / rate
    wave = sum((0.5 * np.exp(-(((at - time) / CLICK_SECONDS) ** 2) / 2) for time in times), np.zeros(at.size))
    return np.tile(wave.astype(np.float32), (channels, 1))


def misses(wave: Sound, times: Sequence[float] = CLICKS, rate: int = RATE) -> list[float]:
    """By how many seconds each click is later than it should be, looked for within 40 ms of its place."""
    around = np.arange(-round(0.005 * rate), round(0.005 * rate) + 1) / rate
    likeness = np.correlate(wave, np.exp(-((around / CLICK_SECONDS) ** 2) / 2), "same")
    found = []
    for time in times:
        first = max(0, round((time - 0.04) * rate))
        window = likeness[first : round((time + 0.04) * rate)]
        assert window.max() > 0.3 * likeness.max(), f"no click near {time} s"
        found.append((first + int(window.argmax())) / rate - time)
    return found


def worst(found: Sequence[float]) -> float:
    return max(map(abs, found))


def encoded(
    stream: Any, sound: Sound, rate: int, layout: str, delay_seconds: Fraction = Fraction(0)
) -> list[av.Packet[Any]]:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T).reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    packets = [packet for packet in [*stream.encode(frame), *stream.encode(None)] if packet.size]
    for packet in packets:
        packet.pts += round(delay_seconds * rate)
        packet.dts += round(delay_seconds * rate)
    return packets


def mux(
    path: Path,
    pictures: Path,
    sound: Sound,
    encoder: str,
    rate: int = RATE,
    layout: str = "stereo",
    delay_seconds: Fraction = Fraction(0),
    dropped: Sequence[int] = (),
    garbled: Sequence[int] = (),
) -> Path:
    """The pictures with a sound track. dropped: packets to leave out; garbled: packets to fill with noise."""
    with av.open(str(pictures)) as source, av.open(str(path), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0])
        audio: Any = output.add_stream(encoder, rate=rate, layout=layout)
        if not encoder.startswith(("pcm", "flac")):
            audio.codec_context.bit_rate = {"ac3": 448_000}.get(encoder, 128_000 * len(sound))
        shown = [packet for packet in source.demux(video=0) if packet.size]
        for packet in shown:
            packet.stream = video
        heard = encoded(audio, sound, rate, layout, delay_seconds)
        for number in garbled:
            heard[number] = noise_instead_of(heard[number])
        heard = [packet for number, packet in enumerate(heard) if number not in dropped]
        for packet in sorted([*shown, *heard], key=lambda packet: packet.dts * packet.time_base):
            output.mux_one(packet)
    return path


def noise_instead_of(packet: Any) -> Any:
    noise: Any = av.Packet(np.random.default_rng(0).bytes(packet.size))
    noise.stream, noise.time_base = packet.stream, packet.time_base
    noise.pts, noise.dts, noise.duration = packet.pts, packet.dts, packet.duration
    return noise


def decoded_by_debian(path: Path, channels: int = 2) -> Sound:
    """What Debian's ffmpeg decodes; it must have nothing to complain of."""
    command = [str(FFMPEG), "-v", "warning", "-i", str(path), "-map", "0:a", "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b"", done.stderr.decode()
    return np.frombuffer(done.stdout, np.float32).reshape(-1, channels).T


def probed_by_debian(path: Path, selector: str = "a:0") -> dict[str, str]:
    entries = "stream=duration_ts,start_time,codec_name"
    command = [str(FFPROBE), "-v", "error", "-select_streams", selector, "-show_entries", entries]
    done = subprocess.run([*command, "-of", "default=nw=1", str(path)], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())
