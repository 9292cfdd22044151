"""Peak memory of a join of two 1080p clips, by their length: ``python -m bench.memory``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from bench.footage import Video
from splice.format import choose_format
from splice.media import Part, encode_frames, join_parts, probe_clip, read_frames
from splice.request import parse_request
from splice.types import FrameRange

TITLE_CARD = Video("gradio", "a.mp4", Fraction(30))
"""1080p, 209 frames."""

MINUTES = (1, 10)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        folder = Path(name)
        print("| two clips of | frames | seconds | peak memory MB |\n|---|---|---|---|")
        for minutes in MINUTES:
            clip, frames = make_clip(folder, minutes)
            seconds, peak_mb = measure(clip, folder, minutes)
            print(f"| {minutes} min 1080p | {2 * frames} | {seconds:.0f} | {peak_mb:.0f} |", flush=True)


def make_clip(folder: Path, minutes: int) -> tuple[Path, int]:
    """A real 1080p shot, over and over until it lasts that long; and its length in frames."""
    source = str(TITLE_CARD.path())
    shot = probe_clip(0, "a", source)
    request = parse_request({"clip_list": [{"url": source}] * 2, "run_id": "bench", "model": "crossfade"})
    video_format = choose_format(request, [shot])
    unit = folder / "unit.mp4"
    encode_frames(
        read_frames(shot, video_format, FrameRange(0, shot.frame_count)), unit, video_format, shot.frame_count
    )
    times = round(minutes * 60 * shot.rate / shot.frame_count)
    clip = folder / f"{minutes}.mp4"
    join_parts([Part(unit, FrameRange(0, shot.frame_count))] * times, clip, shot.rate)
    return clip, times * shot.frame_count


def measure(clip: Path, folder: Path, minutes: int) -> tuple[float, float]:
    """(seconds, peak resident megabytes) of the process that joins the clip with itself."""
    command = [sys.executable, "-m", "flows.join_clips", str(clip), str(clip), "--model", "flow_morph"]
    command += ["--run-id", f"m{minutes}", "--output-base-dir", str(folder)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
