"""The gate: a seam worse than asked for is made again with another seed, and the best try is what the video shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from splice.errors import GenerationError
from splice.gate import Attempt, make_best
from splice.layout import RunFolder
from splice.media import probe_clip, read_output, to_rgb
from splice.models.crossfade import Crossfade
from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering, TransitionModel
from splice.plan import plan_timeline
from splice.request import parse_request
from splice.types import FrameRange, Timeline, Transition
from splice.units import write_transition
from tests.footage import make_clip

GAP = 6


class Flasher:
    """A dissolve that is too bright, by how much its seed decides; notes the seeds it was asked for."""

    def __init__(self, flashes: Sequence[int], reads_seed: bool = True) -> None:
        self.spec = ModelSpec("flasher", "1", renders_context=False, reads_seed=reads_seed)
        self.flashes = flashes
        self.seeds: list[int] = []

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        flash = self.flashes[len(self.seeds)]
        self.seeds.append(settings.seed)
        dissolved = Crossfade().render(guide, settings).frames
        bright = (cv2.add(frame, np.full_like(frame, flash)) for frame in dissolved)
        return Rendering(bright, {"flash": flash})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_clip(folder / f"{i}.mp4", clip_id=i, frame_count=24) for i in range(2)]


def _plan(clips: Sequence[Path], model: TransitionModel, **parameters: Any) -> Timeline:
    sources = [{"url": str(path)} for path in clips]
    wanted = {"clip_list": sources, "run_id": "gate", "model": "flasher", "gap_frame_count": GAP, "seed": 7}
    probed = [probe_clip(i, path.name, str(path)) for i, path in enumerate(clips)]
    return plan_timeline(parse_request({**wanted, **parameters}), probed, {"flasher": model.spec})


def _make(clips: Sequence[Path], model: Flasher, folder: Path, **parameters: Any) -> tuple[int, tuple[Attempt, ...]]:
    """The flash of the try that was kept, by the model's notes, and all the tries."""
    timeline = _plan(clips, model, **parameters)

    def make(attempt: Transition, into: RunFolder) -> Any:
        return write_transition(timeline, attempt, model, into)

    notes, attempts = make_best(timeline, timeline.transitions[0], RunFolder(folder), make)
    (piece,) = timeline.pieces_of(timeline.transitions[0])
    frames = read_output(RunFolder(folder).unit(piece), timeline.format, GAP, FrameRange(0, GAP))
    shown = np.mean([to_rgb(frame, timeline.format) for frame in frames])
    assert [path.name for path in folder.iterdir()] == ["join_0"], "no try is left behind"
    model.shown = float(shown)  # type: ignore[attr-defined]
    return notes["flash"], attempts


def test_without_a_gate_one_try_is_made(clips: list[Path], tmp_path: Path) -> None:
    model = Flasher([60])
    assert _make(clips, model, tmp_path) == (60, ())


def test_the_best_of_all_tries_is_kept(clips: list[Path], tmp_path: Path) -> None:
    model, plain = Flasher([60, 40, 0, 25]), Flasher([0])
    _make(clips, plain, tmp_path / "plain")
    flash, attempts = _make(clips, model, tmp_path / "best", max_seam_score=0, quality_retries=3)
    assert flash == 0
    assert model.shown == pytest.approx(plain.shown, abs=0.01)  # type: ignore[attr-defined]
    assert [attempt.seed for attempt in attempts] == model.seeds and model.seeds[0] == 7
    assert len(set(model.seeds)) == 4
    scores = [attempt.score for attempt in attempts]
    assert None not in scores and min(range(4), key=lambda n: scores[n] or 0.0) == 2


def test_a_try_that_is_good_enough_is_the_last(clips: list[Path], tmp_path: Path) -> None:
    _, (first, *_) = _make(clips, Flasher([0]), tmp_path / "known", max_seam_score=1000)
    limit = first.score
    assert limit is not None
    model = Flasher([60, 0, 60, 60])
    flash, attempts = _make(clips, model, tmp_path / "run", max_seam_score=limit, quality_retries=3)
    assert flash == 0 and len(attempts) == 2


def test_the_same_request_makes_the_same_tries(clips: list[Path], tmp_path: Path) -> None:
    gate = {"max_seam_score": 0, "quality_retries": 2}
    runs = [_make(clips, Flasher([60, 25, 40]), tmp_path / str(n), **gate) for n in range(2)]
    assert runs[0] == runs[1]


def test_a_model_without_randomness_is_not_asked_again(clips: list[Path], tmp_path: Path) -> None:
    model = Flasher([60, 0], reads_seed=False)
    flash, attempts = _make(clips, model, tmp_path, max_seam_score=0, quality_retries=3)
    assert flash == 60 and len(attempts) == 1


def test_a_seam_that_cannot_be_measured_is_kept(tmp_path: Path) -> None:
    short = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=2) for i in range(2)]
    model = Flasher([60, 0])
    flash, attempts = _make(short, model, tmp_path / "run", max_seam_score=0, quality_retries=3)
    assert flash == 60
    assert attempts == (Attempt(7, None, "2 and 2 frames beside the span, needed are 4 on each side"),)


class Failing(Flasher):
    """Fails from its second try on, at once or at its third frame."""

    def __init__(self, error: Exception, good_frames: int) -> None:
        super().__init__([60, 0])
        self.error, self.good_frames = error, good_frames

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        is_first = not self.seeds
        if not is_first and not self.good_frames:
            raise self.error
        rendering = super().render(guide, settings)
        return rendering if is_first else Rendering(self.broken_off(rendering.frames), rendering.notes)

    def broken_off(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        yield from islice(frames, self.good_frames)
        raise self.error


@pytest.mark.parametrize("good_frames", [0, 2])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GenerationError("out of memory"), "out of memory"),
        (RuntimeError("CUDA error"), "flasher failed: CUDA error"),
    ],
)
def test_a_later_try_that_fails_loses_nothing(
    clips: list[Path], tmp_path: Path, error: Exception, said: str, good_frames: int
) -> None:
    model = Failing(error, good_frames)
    flash, (first, second) = _make(clips, model, tmp_path, max_seam_score=0, quality_retries=1)
    assert flash == 60 and first.score and (second.score, second.unscored) == (None, said)
