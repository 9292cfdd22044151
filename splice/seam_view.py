"""A seam as it came out: read once from the joined video, measured, and kept small enough to be looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

from splice.errors import MediaError
from splice.media import VideoFrame, read_excerpt, read_output, to_luma, to_view
from splice.models.protocol import Frame
from splice.quality import (
    NEIGHBOURS,
    Picture,
    SeamScore,
    SeamTooShort,
    Signals,
    level_step,
    measure_signals,
    score_signals,
    shrink,
)
from splice.types import FrameRange, Join, Segment, Timeline, Transition, TransitionPiece, Unit, VideoFormat

VIEW_SIDE = 480
"""Pixels of the longer side of what is kept to be looked at."""

MOST_PICTURES = 240
"""That are kept of one seam; of longer spans only some."""

SOUND_SECONDS = Fraction(4, 10)
"""Of sound on either side of an edge whose levels are compared: a momentary block of ITU-R BS.1770."""


@dataclass(frozen=True)
class SeamView:
    """What is known of one seam of an output.

    numbers: of its frames in the output: up to NEIGHBOURS before, the transition's, up to NEIGHBOURS after.
    span: positions in ``numbers`` of the transition's frames. gap: of those among them that were generated.
    pictures: by position, upright, (H, W, 3) uint8 RGB; of a long gap its first, its last, and every ``stride``-th.
    score: None where there are too few frames beside the seam; unscored says so.
    """

    numbers: Sequence[int]
    span: FrameRange
    gap: FrameRange
    pictures: Mapping[int, Frame]
    stride: int
    signals: Signals
    score: SeamScore | None
    unscored: str = ""


@dataclass(frozen=True)
class _Place:
    """Where a seam stands in an output. start: of the transition's first frame.

    before, after: how many frames of clips alone stand beside it. wraps: after it the video begins anew.
    """

    start: int
    before: int
    after: int
    wraps: bool


def view_seam(timeline: Timeline, join: Join, transition: Transition, video: Path) -> SeamView:
    """Look at one seam of ``join``. At the end of a loop the frames after the seam are the video's first ones.

    Raises MediaError where the video can't be read.
    """
    place = _find(timeline, join, transition)
    left = join.frame_count - place.start - transition.frame_count
    rest = place.start + left if place.wraps else left
    before, after = min(NEIGHBOURS, place.start), min(NEIGHBOURS, rest)
    span = FrameRange(before, before + transition.frame_count)
    gap_start = span.start + len(transition.blend_left)
    gap = FrameRange(gap_start, gap_start + transition.gap_frame_count)
    numbers = [n % join.frame_count for n in range(place.start - before, place.start + transition.frame_count + after)]
    stride = -(-len(numbers) // MOST_PICTURES)
    pictures: dict[int, Frame] = {}

    def measured() -> Iterator[Picture]:
        for position, frame in enumerate(_read(timeline, join, video, numbers)):
            view, picture = look(frame, timeline.format)
            if position % stride == 0 or not gap.start < position < gap.stop - 1:
                pictures[position] = view
            yield picture

    signals = measure_signals(measured())
    score, unscored = _score(signals, span, min(before, place.before), min(after, place.after))
    return SeamView(
        numbers=numbers,
        span=span,
        gap=gap,
        pictures=pictures,
        stride=stride,
        signals=signals,
        score=score,
        unscored=unscored,
    )


def look(frame: VideoFrame, video_format: VideoFormat) -> tuple[Frame, Picture]:
    """One frame of the timeline: to be looked at, VIEW_SIDE at most, and to be measured."""
    view = to_view(frame, video_format, VIEW_SIDE)
    return view, Picture(to_luma(frame), shrink(view))


def _score(signals: Signals, span: FrameRange, before: int, after: int) -> tuple[SeamScore | None, str]:
    """The score by that many frames beside the span, or why there is none."""
    first = span.start - before
    beside = signals.part(first, span.stop + after)
    try:
        return score_signals(beside, before, before + len(span)), ""
    except SeamTooShort as error:
        return None, str(error)


def _find(timeline: Timeline, join: Join, transition: Transition) -> _Place:
    own = [unit for unit in join.output if isinstance(unit, TransitionPiece) and unit.join == transition.join]
    if not own:
        raise MediaError(f"{join.name} shows nothing of transition {transition.join}")
    index = next(n for n, unit in enumerate(join.output) if unit in own and unit.role == "transition")
    wraps = timeline.is_loop and transition.right.clip == 0
    following = [*join.output[index + 1 :], *(join.output[:index] if wraps else ())]
    return _Place(
        start=sum(unit.frame_count for unit in join.output[:index]),
        before=_frames_of_clips(reversed(join.output[:index])),
        # Where a loop divides the transition, the rest of it begins the video.
        after=_frames_of_clips(unit for unit in following if unit not in own),
        wraps=wraps,
    )


def _frames_of_clips(units: Iterable[Unit]) -> int:
    """How many frames come before the next transition."""
    return sum(unit.frame_count for unit in takewhile(lambda unit: isinstance(unit, Segment), units))


def _read(timeline: Timeline, join: Join, video: Path, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """The frames of those numbers; a run that begins anew is read in two passes."""
    wrap = next((n for n in range(1, len(numbers)) if numbers[n] < numbers[n - 1]), len(numbers))
    for run in (numbers[:wrap], numbers[wrap:]):
        if run:
            yield from read_output(video, timeline.format, join.frame_count, FrameRange(run[0], run[-1] + 1))


def hear_seam(timeline: Timeline, view: SeamView, video: Path) -> float | None:
    """By how many dB the sound's level steps at the worse edge of a seam; None where nothing is on the other side.

    Raises MediaError: there is no sound.
    """
    edges = [edge for edge in (view.gap.start, view.gap.stop) if 0 < edge < len(view.numbers)]
    rate = timeline.format.rate
    return max(
        (_step_at((view.numbers[edge - 1] + 1) / rate, view.numbers[edge] / rate, video) for edge in edges),
        default=None,
    )


def _step_at(stop_seconds: Fraction, start_seconds: Fraction, video: Path) -> float:
    """Between the sound that stops at one time and that which starts at the other: not the same where a loop begins
    anew."""
    before, _ = read_excerpt(video, max(Fraction(0), stop_seconds - SOUND_SECONDS), stop_seconds)
    after, _ = read_excerpt(video, start_seconds, start_seconds + SOUND_SECONDS)
    return level_step(before, after)
