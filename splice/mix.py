"""What is heard when: the sound of a timeline, to the sample.

Every clip's sound lies where its frames lie: a clip whose first frame is number n of the timeline begins at
sample round(n * R / fps), so that nothing drifts, whatever the number of joins. A seam's sound replaces the
last and first ``FADE_SECONDS`` of its two clips and what lies between them. In replace mode the frames that
are gone are still heard: the sounds of both clips meet where the left one ends, within the gap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from splice.media import channel_count, read_own_sound, read_sound, read_soundtrack, require_unchanged, silence
from splice.sound import (
    EXTENSION_SECONDS,
    FADE_SECONDS,
    Samples,
    bridge_seam,
    faded_out,
    laid_under,
    looped,
    quantised,
    silence_seam,
)
from splice.types import Join, Timeline

SOUNDTRACK_FADE_SECONDS = Fraction(1)
"""How long music takes to fade at the end of the result."""


@dataclass(frozen=True)
class SoundPiece:
    """Samples start .. stop of a clip's sound, or of a seam's."""

    clip: int | None
    seam: int | None
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class JoinSound:
    """Where the samples of one output come from: pieces, then samples start .. stop of the predecessor's, then pieces.

    cut: sample of the output at which the next join will cut it; None in the last one.
    """

    before: tuple[SoundPiece, ...]
    kept: tuple[int, int]
    after: tuple[SoundPiece, ...]
    cut: int | None

    @property
    def sample_count(self) -> int:
        return sum(map(len, self.before)) + self.kept[1] - self.kept[0] + sum(map(len, self.after))


def plan_sound(timeline: Timeline, join: Join) -> JoinSound:
    """Lay the sound of one join's output to the sample."""
    layout = _Layout(timeline)
    first, last = join.transitions[0].join, join.transitions[-1].join
    closes = timeline.is_loop and last == len(timeline.clips) - 1
    pieces = layout.pieces(0 if join.kept is None else first, last)
    kept = (0, 0) if join.kept is None else (0, layout.cut_of(first))
    if closes:
        return layout.closed(pieces, kept)
    is_last = join is timeline.joins[-1]
    return JoinSound((), kept, tuple(pieces), None if is_last else layout.cut_of(last + 1))


def render_join(timeline: Timeline, join: Join, predecessor: Path | None) -> Iterator[Samples]:
    """The final sound of a join's output, block by block, music included; predecessor: its file, if it has one."""
    assert timeline.sound is not None, "without a sound format there is nothing to render"
    sound = plan_sound(timeline, join)
    if timeline.audio == "drop":
        rate = timeline.sound.sample_rate
        blocks = silence(channel_count(timeline.sound.layout), sound.sample_count, rate)
    else:
        kept: Iterable[Samples] = ()
        if predecessor is not None:
            kept = read_own_sound(predecessor, timeline.sound, *sound.kept)
        before = render_pieces(timeline, sound.before, predecessor)
        blocks = chain(before, kept, render_pieces(timeline, sound.after, predecessor))
    return _with_music(timeline, blocks, sound.sample_count)


def render_pieces(
    timeline: Timeline, pieces: Iterable[SoundPiece], predecessor: Path | None = None
) -> Iterator[Samples]:
    """The samples of ``pieces``, one after the other, in steps of 24 bits; every clip is decoded once.

    predecessor: the output of the join before, if there is one: of the clip that it ends with it has the very samples.
    """
    sources = _Sources(timeline, predecessor)
    for piece in pieces:
        if piece.clip is not None:
            yield from sources.clip(piece.clip).between(piece.start, piece.stop)
        else:
            assert piece.seam is not None, "a piece is a clip's or a seam's"
            yield quantised(_seam_sound(timeline, piece.seam, sources)[:, piece.start : piece.stop])


class _Layout:
    """Sample positions of clips and seams, in the timeline before a loop closes it."""

    def __init__(self, timeline: Timeline) -> None:
        assert timeline.sound is not None
        self._rate = timeline.sound.sample_rate
        self._per_frame = Fraction(self._rate) / timeline.format.rate
        fade_samples = round(FADE_SECONDS * self._rate)
        frame = 0
        self.clips: list[tuple[int, int]] = []
        self.gaps: list[int] = []
        for count, transition in zip(timeline.frame_counts, (*timeline.transitions, None), strict=False):
            self.clips.append((self._sample(frame), self._sample(frame + count)))
            frame += count
            if transition is not None and not transition.settings.replace_mode:
                frame += transition.gap_frame_count
            self.gaps.append(self._sample(frame) - self.clips[-1][1])
        lengths = [stop - start for start, stop in self.clips]
        following = [*lengths[1:], lengths[0]]
        # Of a clip that is shorter than two fades each seam gets one half.
        self.fades = [min(fade_samples, a // 2, b // 2) for a, b in zip(lengths, following, strict=True)]
        self._removed_head = self._sample(len(timeline.transitions[-1].removed_right)) if timeline.is_loop else 0
        self.fades[0] = min(self.fades[0], (lengths[0] - self._removed_head) // 2)

    def _sample(self, frame: int) -> int:
        return math.floor(frame * self._per_frame + Fraction(1, 2))

    def length(self, clip: int) -> int:
        start, stop = self.clips[clip]
        return stop - start

    def seam_length(self, seam: int) -> int:
        return self.fades[seam] + self.gaps[seam] + self.fades[seam]

    def wanted(self, seam: int) -> int:
        """How much of each side a seam makes use of, where there is so much; the seam behind clip n is seam n."""
        return EXTENSION_SECONDS * self._rate + self.fades[seam]

    def cut_of(self, seam: int) -> int:
        """Where the sound of a seam begins."""
        return self.clips[seam][1] - self.fades[seam]

    def pieces(self, first: int, last: int) -> list[SoundPiece]:
        """From seam ``first``, or from the start where that is 0, to the end of the clip behind seam ``last``."""
        pieces = [SoundPiece(0, None, 0, self.length(0) - self.fades[0])] if first == 0 else []
        for seam in range(first, last + 1):
            pieces.append(SoundPiece(None, seam, 0, self.seam_length(seam)))
            clip = seam + 1
            if clip < len(self.clips):
                stop = self.length(clip) - (self.fades[clip] if seam < last else 0)
                pieces.append(SoundPiece(clip, None, self.fades[seam], stop))
        return pieces

    def closed(self, pieces: list[SoundPiece], kept: tuple[int, int]) -> JoinSound:
        """A loop, turned so that it begins with the first frame of the first clip that is still shown."""
        seam = len(self.clips) - 1
        head, fade, length = self._removed_head, self.fades[seam], self.seam_length(seam)
        # What is heard of the first clip begins behind the seam's fade.
        begin = max(head, fade)
        if kept[1]:
            kept = (begin, kept[1])
        else:
            pieces[0] = SoundPiece(0, None, begin, pieces[0].stop)
        if head >= fade:
            return JoinSound((), kept, (*pieces, SoundPiece(0, None, fade, head)), None)
        wrapped = length - (fade - head)
        pieces[-1] = SoundPiece(None, seam, 0, wrapped)
        return JoinSound((SoundPiece(None, seam, wrapped, length),), kept, tuple(pieces), None)


class _Sources:
    """The sounds of a timeline's clips, for pieces in their order."""

    def __init__(self, timeline: Timeline, predecessor: Path | None) -> None:
        assert timeline.sound is not None
        self.layout = _Layout(timeline)
        self._timeline, self._format, self._predecessor = timeline, timeline.sound, predecessor
        self._open: dict[int, _ClipSound] = {}

    def clip(self, clip: int) -> _ClipSound:
        """The clip's sound, from where it was left."""
        if clip not in self._open:
            blocks = read_sound(self._timeline.clips[clip], self._format, self.layout.length(clip))
            self._open[clip] = _ClipSound(map(quantised, blocks), self.layout.wanted(clip))
        return self._open[clip]

    def sides(self, seam: int) -> tuple[Samples, Samples]:
        """The end of the clip before a seam, and the beginning of the one behind it, as long as a seam makes use of."""
        transition = self._timeline.transitions[seam]
        wanted = self.layout.wanted(seam)
        left = self._end(transition.left.clip, wanted)
        # A loop comes back to a clip that may have been read to its end.
        self._open.pop(transition.left.clip, None)
        return left, self.clip(transition.right.clip).first(wanted)

    def _end(self, clip: int, wanted: int) -> Samples:
        start, stop = self.layout.clips[clip]
        untouched = stop - start - (self.layout.fades[clip - 1] if clip else 0)
        if self._predecessor is None or clip in self._open or untouched < wanted:
            return self.clip(clip).end()
        return np.concatenate(list(read_own_sound(self._predecessor, self._format, stop - wanted, stop)), axis=1)


class _ClipSound:
    """A clip's sound, decoded once and forwards: its beginning, what is between two samples, its end."""

    def __init__(self, blocks: Iterator[Samples], end_samples: int) -> None:
        self._blocks = blocks
        self._end_samples = end_samples
        self._recent: deque[Samples] = deque()
        self._recent_samples = 0

    def first(self, count: int) -> Samples:
        """At most ``count`` samples from the first one on; to be asked before anything else."""
        held, total = [], 0
        for block in self._blocks:
            held.append(block)
            total += block.shape[1]
            if total >= count:
                break
        self._blocks = chain(held, self._blocks)
        return np.concatenate(held, axis=1)[:, :count]

    def between(self, start: int, stop: int) -> Iterator[Samples]:
        """Samples start .. stop, once."""
        position = 0
        for block in self._remembered():
            wanted = block[:, max(0, start - position) : max(0, stop - position)]
            position += block.shape[1]
            if wanted.shape[1]:
                yield wanted
            if position >= stop:
                return

    def end(self) -> Samples:
        """At most ``end_samples`` up to the last one."""
        for _ in self._remembered():
            pass
        return np.concatenate(self._recent, axis=1)[:, -self._end_samples :]

    def _remembered(self) -> Iterator[Samples]:
        """What is left, of which the end is kept."""
        for block in self._blocks:
            self._recent.append(block)
            self._recent_samples += block.shape[1]
            while self._recent_samples - self._recent[0].shape[1] >= self._end_samples:
                self._recent_samples -= self._recent.popleft().shape[1]
            yield block


def _seam_sound(timeline: Timeline, seam: int, sources: _Sources) -> Samples:
    """From ``fade`` samples before the end of the left clip to ``fade`` samples behind the start of the right one."""
    assert timeline.sound is not None
    fade, gap = sources.layout.fades[seam], sources.layout.gaps[seam]
    left, right = sources.sides(seam)
    if timeline.audio == "silence":
        return silence_seam(left, right, gap, fade)
    return bridge_seam(left, right, gap, fade, timeline.sound.sample_rate)


def _with_music(timeline: Timeline, blocks: Iterator[Samples], sample_count: int) -> Iterator[Samples]:
    soundtrack, sound = timeline.soundtrack, timeline.sound
    if soundtrack is None or sound is None:
        return blocks

    def play() -> Iterator[Samples]:
        require_unchanged(soundtrack.path, soundtrack.identity)
        return read_soundtrack(soundtrack.path, sound)

    music = looped(play, round(FADE_SECONDS * sound.sample_rate))
    fading = faded_out(music, sample_count, round(SOUNDTRACK_FADE_SECONDS * sound.sample_rate))
    return laid_under(blocks, fading, soundtrack.gain_db)
