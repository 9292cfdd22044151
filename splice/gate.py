"""The gate: a seam that scores worse than ``max_seam_score`` is made again with another seed; the best try is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from splice.errors import GenerationError
from splice.layout import RunFolder
from splice.media import PARTIAL_PREFIX, VideoFrame, read_frames, read_output
from splice.quality import NEIGHBOURS, SeamTooShort, measure_signals, score_signals
from splice.seam_view import look
from splice.types import FrameRange, Timeline, Transition

Made = TypeVar("Made")


@dataclass(frozen=True)
class Attempt:
    """One try at a seam. score: 0 or more, the less the better; None where it can't be told, and why."""

    seed: int
    score: float | None
    unscored: str = ""


def make_best(
    timeline: Timeline,
    transition: Transition,
    folder: RunFolder,
    make: Callable[[Transition, RunFolder], Made],
    hands: AbstractContextManager[object] | None = None,
) -> tuple[Made, tuple[Attempt, ...]]:
    """Let ``make`` write the units of a seam into a folder, again with other seeds while its score is beyond the
    gate's; the units of the best try go to ``folder``. Returns what ``make`` said of that one, and all the tries.

    The same frames of the tries make the same choice: of equals the first. hands: held while a try is measured.
    Raises what ``make`` raises at the first try; where a model fails at a later one, there is a seam already. Raises
    MediaError where a clip or a unit can't be read.
    """
    limit = transition.settings.max_seam_score
    if limit is None:
        return make(transition, folder), ()
    folder.path.mkdir(parents=True, exist_ok=True)
    best: tuple[float, Made] | None = None
    tried: list[Attempt] = []
    # A folder of its own: another process may be at the same seam.
    with TemporaryDirectory(prefix=f"{PARTIAL_PREFIX}join_{transition.join}-", dir=folder.path) as scratch:
        new, kept = RunFolder(Path(scratch) / "new"), RunFolder(Path(scratch) / "kept")
        for attempt in _attempts(transition):
            seed = attempt.settings.model_settings.seed
            try:
                made = make(attempt, new)
            except GenerationError as error:
                if best is None:
                    raise
                tried.append(Attempt(seed, None, str(error)))
                continue
            with hands or nullcontext():
                tried.append(_scored(timeline, transition, seed, new))
            score = tried[-1].score
            if best is None or (score is not None and score < best[0]):
                best = (0.0 if score is None else score), made
                _move_units(timeline, transition, new, kept)
            if best[0] <= limit:
                break
        _move_units(timeline, transition, kept, folder)
    assert best is not None, "there is always a first attempt"
    return best[1], tuple(tried)


def _attempts(transition: Transition) -> Iterator[Transition]:
    """The transition as it was planned, then with other seeds."""
    yield transition
    settings = transition.settings
    for number in range(1, settings.quality_retries + 1 if transition.spec.reads_seed else 1):
        seed = _seed_of(settings.model_settings.seed, number)
        yield replace(
            transition, settings=replace(settings, model_settings=replace(settings.model_settings, seed=seed))
        )


def _seed_of(seed: int, attempt: int) -> int:
    """32 bits that depend on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{attempt}".encode()).digest()[:4], "big")


def _move_units(timeline: Timeline, transition: Transition, source: RunFolder, target: RunFolder) -> None:
    for piece in timeline.pieces_of(transition):
        target.unit(piece).parent.mkdir(parents=True, exist_ok=True)
        source.unit(piece).replace(target.unit(piece))


def _scored(timeline: Timeline, transition: Transition, seed: int, folder: RunFolder) -> Attempt:
    """Measure a try whose units were encoded, between its clips' own frames."""
    left, right = _neighbours(timeline, transition)

    def frames() -> Iterator[VideoFrame]:
        yield from read_frames(timeline.clips[transition.left.clip], timeline.format, left)
        for piece in timeline.pieces_of(transition):
            whole = FrameRange(0, piece.frame_count)
            yield from read_output(folder.unit(piece), timeline.format, piece.frame_count, whole)
        yield from read_frames(timeline.clips[transition.right.clip], timeline.format, right)

    signals = measure_signals(look(frame, timeline.format)[1] for frame in frames())
    try:
        return Attempt(seed, score_signals(signals, len(left), len(left) + transition.frame_count).total)
    except SeamTooShort as error:
        return Attempt(seed, None, str(error))


def _neighbours(timeline: Timeline, transition: Transition) -> tuple[FrameRange, FrameRange]:
    """The frames of the two clips beside a transition, as far as no other transition takes them."""
    left_stop, right_start = _taken_left(transition), _taken_right(transition)
    others = [each for each in timeline.transitions if each.join != transition.join]
    first = max((_taken_right(each) for each in others if each.right.clip == transition.left.clip), default=0)
    last = min(
        (_taken_left(each) for each in others if each.left.clip == transition.right.clip),
        default=timeline.frame_counts[transition.right.clip],
    )
    return (
        FrameRange(max(first, left_stop - NEIGHBOURS), left_stop),
        FrameRange(right_start, min(last, right_start + NEIGHBOURS)),
    )


def _taken_left(transition: Transition) -> int:
    """The first frame of the left clip that is not shown as it is."""
    return transition.left.frames.stop - len(transition.blend_left)


def _taken_right(transition: Transition) -> int:
    """The first frame of the right clip that is."""
    return transition.right.frames.start + len(transition.blend_right)
