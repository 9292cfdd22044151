"""What becomes of the clips on either side: VC-Bench's start-end consistency (arXiv 2601.19236), by its measures that
need no weights: SSIM and flow error of a result's head and tail against the two clips. ``python -m bench.ends``.

Writes ``bench/results/ends.md``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from bench.chain import join
from bench.demo import cut
from bench.footage import BIG_BUCK_BUNNY
from bench.rivals import GAP_FRAMES, dissolve_command
from bench.transitions import flow_error, ssim
from splice.models.protocol import Frame

RESULTS = Path(__file__).parent / "results" / "ends.md"
HEAD = """SSIM and flow error (pixels at a width of 320) of the first and the last clip in a result against the clips
themselves: two pieces of Big Buck Bunny at 720p; `python -m bench.ends`

| | head: SSIM | flow error | tail: SSIM | flow error |
|---|---:|---:|---:|---:|"""


def main() -> None:
    """Join two pieces by each way, print the table and write it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        clips = [Path(path) for path in cut(BIG_BUCK_BUNNY.path(), folder)[:2]]
        sources = [read(path) for path in clips]
        filtered = folder / "filtered.mp4"
        counted = [(path, len(frames)) for path, frames in zip(clips, sources, strict=True)]
        subprocess.run(dissolve_command(counted, True, filtered), check=True)
        results = {
            "ours, flow_morph": join(clips, folder / "ours", model="flow_morph", gap_frame_count=GAP_FRAMES),
            "FFmpeg, xfade, x264 veryfast": filtered,
        }
        lines = [HEAD, *(line(name, read(path), sources) for name, path in results.items())]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n")


def read(path: Path) -> Frame:
    """All frames of a short video."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def line(name: str, result: Frame, sources: list[Frame]) -> str:
    """One row. Of a result that has other frames than it should, the ends are compared all the same."""
    ends = (result[: len(sources[0])], result[-len(sources[1]) :])
    cells = []
    for end, source in zip(ends, sources, strict=True):
        similar = np.mean([ssim(*pair) for pair in zip(end, source, strict=True)])
        cells += [f"{similar:.4f}", f"{flow_error(end, source):.3f}"]
    return f"| {' | '.join([name, *cells])} |"


if __name__ == "__main__":
    main()
