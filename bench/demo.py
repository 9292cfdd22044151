"""``make demo``: one real shot, cut into three clips with pieces missing, joined again by the flow."""

from __future__ import annotations

from pathlib import Path

from bench.footage import BIG_BUCK_BUNNY
from flows.command_line import app
from splice.format import choose_format
from splice.media import encode_frames, probe_clip, read_frames
from splice.request import parse_request
from splice.types import FrameRange

PIECES = (FrameRange(0, 36), FrameRange(48, 84), FrameRange(96, 132))
"""Of the shot's 132 frames; the 12 between each two are missing, and generated anew."""

FOLDER = Path("outputs")


def main() -> None:
    clips = cut(BIG_BUCK_BUNNY.path(), FOLDER / "demo_clips")
    gap = str(PIECES[1].start - PIECES[0].stop)
    print(f"joining {', '.join(clips)}: {gap} frames are missing between each two", flush=True)
    app([*clips, "--model", "flow_morph", "--gap-frames", gap, "--run-id", "demo", "--output-base-dir", str(FOLDER)])


def cut(source: Path, folder: Path) -> list[str]:
    """The pieces of the shot as files of their own; those that are there from an earlier demo are kept."""
    shot = probe_clip(0, source.name, str(source))
    request = parse_request({"clip_list": [{"url": str(source)}] * 2, "run_id": "demo", "model": "flow_morph"})
    video_format = choose_format(request, [shot])
    paths = [folder / f"piece_{letter}.mp4" for letter in "ABC"]
    for path, frames in zip(paths, PIECES, strict=True):
        if not path.exists():
            encode_frames(read_frames(shot, video_format, frames), path, video_format, len(frames))
    return [str(path) for path in paths]


if __name__ == "__main__":
    main()
