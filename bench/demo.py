"""``make demo``: one real shot with its sound, cut into three clips with pieces missing, joined again by the flow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from bench.footage import BIG_BUCK_BUNNY
from flows.command_line import app
from splice.format import choose_format, choose_sound_format
from splice.media import (
    Part,
    VideoFrame,
    add_sound_stream,
    encode_frames,
    encode_sound,
    join_parts,
    probe_clip,
    read_frames,
    read_sound,
)
from splice.request import parse_request
from splice.sound import Samples
from splice.types import FrameRange, SoundFormat, VideoFormat

PIECES = (FrameRange(0, 36), FrameRange(48, 84), FrameRange(96, 132))
"""Of the shot's 132 frames; the 12 between each two are missing, and generated anew."""

FOLDER = Path("outputs")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    clips = cut(BIG_BUCK_BUNNY.path(), FOLDER / "demo_clips")
    gap = str(PIECES[1].start - PIECES[0].stop)
    print(f"joining {', '.join(clips)}: {gap} frames are missing between each two", flush=True)
    options = ["--model", "flow_morph", "--gap-frames", gap, "--run-id", "demo_sound", "--output-base-dir", str(FOLDER)]
    # Prefect would keep them in the user's home, where the demo of another checkout has this run_id.
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: (FOLDER / "demo_clips" / "records").absolute()}):
        app([*clips, *options])


def cut(source: Path, folder: Path) -> list[str]:
    """The pieces of the shot as files of their own; those that are there from an earlier demo are kept."""
    shot = probe_clip(0, source.name, str(source))
    request = parse_request({"clip_list": [{"url": str(source)}] * 2, "run_id": "demo", "model": "flow_morph"})
    video_format, sound_format = choose_format(request, [shot]), choose_sound_format(request, [shot])
    assert sound_format is not None, "the shot has sound"
    samples_per_frame = round(sound_format.sample_rate / shot.rate)
    sound = np.concatenate(list(read_sound(shot, sound_format, shot.frame_count * samples_per_frame)), axis=1)
    paths = [folder / f"piece_{letter}.mp4" for letter in "ABC"]
    for path, frames in zip(paths, PIECES, strict=True):
        if not path.exists():
            heard = sound[:, frames.start * samples_per_frame : frames.stop * samples_per_frame]
            write_piece(path, read_frames(shot, video_format, frames), video_format, heard, sound_format)
    return [str(path) for path in paths]


def write_piece(
    path: Path,
    pictures: Iterator[VideoFrame],
    video_format: VideoFormat,
    sound: Samples,
    sound_format: SoundFormat,
) -> None:
    """Pictures and their sound, as a camera would have recorded them."""
    frame_count = round(sound.shape[1] / sound_format.sample_rate * video_format.rate)
    with TemporaryDirectory(dir=path.parent.parent) as name:
        silent = Path(name) / path.name
        encode_frames(pictures, silent, video_format, frame_count)
        join_parts(
            [Part(silent, FrameRange(0, frame_count))],
            path,
            video_format.rate,
            add_sound=lambda output: encode_sound(add_sound_stream(output, sound_format, "aac"), iter([sound])),
        )


if __name__ == "__main__":
    main()
