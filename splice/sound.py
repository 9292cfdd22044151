"""The sound of a seam, and music under the result: pure arithmetic on samples, deterministic, no files.

Samples are (channels, samples) float32, full scale -1..1. Room tone continues a clip's sound over a gap without
repeating speech: short grains out of its last second, in random order, each laid where it fits best. The two sides
cross over the gap at a level that stays, whether they are alike or not.

Sources: waveform similarity overlap-add (WSOLA), Verhelst & Roelands, ICASSP 1993; linear prediction by the
autocorrelation method, Makhoul, Proc. IEEE 1975; analytic signal, Gabor 1946; sliding minimum, van Herk 1992 and
Gil & Werman 1993. All sums are float64; the answers are float32.

Room tone is made for what is stationary: of a melody or a single word it keeps the colour, not the sense.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from splice.errors import MediaError

Samples = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]
Analytic = npt.NDArray[np.complex128]

FADE_SECONDS = Fraction(20, 1000)
EXTENSION_SECONDS = 1  # how much of a clip's end the room tone is made of

GRAIN_SECONDS = 0.09  # long enough for a low tone's period, too short for a syllable to be understood
SEARCH_SECONDS = 0.01  # to either side: one whole period down to 50 Hz
CANDIDATES = 3  # places tried for every grain: more fit better, and sooner repeat themselves
LEVEL_GRID_SECONDS = 0.001  # levels are averages over a grain and change little in between
USUAL_SHARE = 0.75  # of all grains: what sounds for a fourth of the time is usual
MAX_USUAL_RATIO = 2.0  # 6 dB; the rms of speech with long pauses is less than that above its usual level
STEADY_DB = 1.5  # a grain's quarters this near to the level wanted make a level that stays, as those of noise do
STEADY_SHARE = 0.1  # of all places; in speech so many are taken whatever they deviate, lest few grains buzz
MAX_DEVIATION_DB = 20.0  # a pause is as far off as can be
GLIDE_SECONDS = 0.3  # from the level at the very end to that of the last second
MAX_BOOST = 2**0.5  # more would bring up the noise of pauses
MIN_LEVELLED_SECONDS = 0.04  # two periods of 50 Hz: the level of a shorter grain is not that of its material
GRAIN_SEED = 20  # any constant: the same material always makes the same room tone
PREDICTOR_ORDER = 32  # two formants and the slope of the spectrum at 48 kHz
MIN_HOP_SAMPLES = PREDICTOR_ORDER  # a buzz of 1.5 kHz at 48 kHz; below that there is nothing to align
PREDICTOR_FLOOR = 1e-9  # of the power: what a pure tone lacks to have a well-conditioned predictor
SETTLE_SECONDS = 0.01  # in which room tone forgets the clip's last samples
HILBERT_MARGIN_SECONDS = 0.1  # of real sound beyond the seam, for a quarter turn that is right from its first sample
CORRELATION_SECONDS = 0.05  # over which two sounds add up to one loudness
MIN_CORRELATION = -0.9  # 10 dB: a deeper notch is left as it is, rather than its noise brought up
LOOKAHEAD_SECONDS = Fraction(10, 1000)
LOOKAHEAD_SAMPLES = 480  # of the music's limiter, which is told no rate: 10 ms at 48 kHz
BLOCK_SAMPLES = 16384  # fixed, so that sums are the same however the sound arrives
SCALE_24_BIT = 2.0**23
ROUNDING = 1e-9  # of the whole power: what differences of running sums, and transforms, can't tell from silence
TINY = 1e-30  # against division by zero, far below the power of one 24-bit step


def bridge_seam(left: Samples, right: Samples, gap_samples: int, fade_samples: int, sample_rate: int) -> Samples:
    """Both sides' room tone, crossing over: exactly ``fade_samples + gap_samples + fade_samples`` samples.

    left: the end of the left clip's sound, its last EXTENSION_SECONDS and the fade, or less if it is shorter; right:
    the beginning of the right clip's. The result replaces the last ``fade_samples`` of left, the gap, and the first
    ``fade_samples`` of right; its first sample is left's and its last one right's. Raises ValueError where a side is
    shorter than the fade.
    """
    _check_sides(left, right, gap_samples, fade_samples)
    outgoing = _line(left, gap_samples, fade_samples, sample_rate)
    # Backwards, the right side ends where it begins. An analytic signal turns the other way round in reversed time.
    incoming = _line(right[:, ::-1], gap_samples, fade_samples, sample_rate)[:, ::-1].conj()
    outgoing, incoming = _brought_in_phase(outgoing, incoming)
    correlation = _running_correlation(outgoing, incoming, round(CORRELATION_SECONDS * sample_rate) // 2)
    crossed = _crossed(outgoing.real, incoming.real, correlation)
    return limit_peaks(crossed.astype(np.float32), sample_rate)


def silence_seam(left: Samples, right: Samples, gap_samples: int, fade_samples: int) -> Samples:
    """Left fades out, ``gap_samples`` zeros, right fades in; lengths and errors as of ``bridge_seam``."""
    _check_sides(left, right, gap_samples, fade_samples)
    fade_out, fade_in = _quarter_circle(fade_samples)
    silence = np.zeros((len(left), gap_samples))
    faded = [_last(left, fade_samples) * fade_out, silence, right[:, :fade_samples] * fade_in]
    return np.concatenate(faded, axis=1).astype(np.float32)


def extend(source: Samples, count_samples: int, sample_rate: int) -> Samples:
    """Room tone, ``count_samples`` of it, that continues ``source`` (channels, any length) from its last sample on.

    Its level glides to that of the source's last second, rare loud moments left out, and stays there. Deterministic.
    A source too short for grains (under 128 samples) holds its last sample; without samples there is silence.
    """
    material = _last(source, EXTENSION_SECONDS * sample_rate).astype(np.float64)
    hop = min(round(GRAIN_SECONDS * sample_rate) // 2, material.shape[1] // 4)
    if hop < MIN_HOP_SAMPLES:
        held = material[:, -1:] if material.size else np.zeros((len(source), 1))
        return np.repeat(held, count_samples, axis=1).astype(np.float32)
    mean = material.mean(axis=1, keepdims=True)
    grains = _cut_grains(material - mean, hop, sample_rate)
    texture = np.concatenate(list(_textured(grains, count_samples)), axis=1)[:, :count_samples]
    room_tone: Samples = (mean + texture).astype(np.float32)
    return room_tone


def crossfade(left: Samples, right: Samples) -> Samples:
    """From left to right over their whole length, both (channels, samples), at a level that stays.

    Gains are a quarter circle's cosine and sine over ``sqrt(1 + 2 rho cos sin)``, rho the measured correlation: equal
    gain for what is alike, equal power for what is not.
    """
    return _crossed(left, right, _correlation(left, right)).astype(np.float32)


def limit_peaks(samples: Samples, sample_rate: int) -> Samples:
    """Samples brought within full scale by a gain that looks 10 ms ahead; the same array where nothing exceeds it.

    The gain, one for all channels, is 1 from 20 ms around a peak on, and at the first and the last sample unless
    these exceed full scale themselves. So that it is, its windows narrow towards either end, and a peak a few samples
    from an end is lowered within as few.
    """
    reductions = _reductions(samples)
    if not reductions.any():
        return samples
    reach, count = round(LOOKAHEAD_SECONDS * sample_rate), reductions.size
    from_end = np.minimum(np.arange(count), np.arange(count)[::-1])
    held = _held_to_the_ends(reductions, reach)
    # Half the distance to the end: everything that is averaged at a peak has the peak within its own window.
    reductions = _running_mean(held, np.minimum(reach, from_end // 2))
    return _lowered(samples, reductions)


def quantised(samples: Samples) -> Samples:
    """Rounded to 24-bit steps and clipped to -1 .. 1 - 2**-23: integer PCM of 24 bits keeps it exactly."""
    steps = np.clip(np.rint(samples * np.float32(SCALE_24_BIT)), -SCALE_24_BIT, SCALE_24_BIT - 1)
    rounded: Samples = (steps / SCALE_24_BIT).astype(np.float32)
    return rounded


def laid_under(
    blocks: Iterator[Samples], music: Iterator[Samples], gain_db: float, lookahead_samples: int = LOOKAHEAD_SAMPLES
) -> Iterator[Samples]:
    """The sum of ``blocks`` and of ``music`` at ``gain_db``, as long as the former; the music's end is silence.

    Both have the same channels and any block sizes; the blocks yielded have sizes of their own. Where the sum exceeds
    full scale a gain lowers it that begins ``2 * lookahead_samples`` before and ends as much after; elsewhere it is
    the plain float32 sum. Holds a few blocks, however long the sound is.
    """
    gain = np.float32(10.0 ** (gain_db / 20.0))
    return _limited(_summed(_rebuilt(_Tape(blocks)), _Tape(music), gain), lookahead_samples)


def looped(open_music: Callable[[], Iterator[Samples]], fade_samples: int) -> Iterator[Samples]:
    """The music for ever, every end crossfaded over ``fade_samples`` into the next beginning; never all in memory.

    Music shorter than two fades repeats without one. Raises MediaError, when first asked for a block, where the music
    has no samples.
    """
    ending: Samples | None = None
    while True:
        tape = _Tape(open_music())
        opening = tape.take(max(1, 2 * fade_samples))
        if not opening.size:
            raise MediaError("the music has no samples, so it can't be repeated: take a file that has sound")
        while opening.shape[1] < 2 * fade_samples:
            yield opening
        head = opening[:, :fade_samples]
        yield head if ending is None else crossfade(ending, head)
        ending = yield from _all_but_the_last(chain([opening[:, fade_samples:]], _rebuilt(tape)), fade_samples)


def faded_out(blocks: Iterator[Samples], total_samples: int, fade_samples: int) -> Iterator[Samples]:
    """Exactly ``total_samples`` of ``blocks``, silence after their end, the last ``fade_samples`` faded to zero.

    Asks for no block that it does not need. Raises ValueError where there is none that tells the channels.
    """
    fade_start = total_samples - min(fade_samples, total_samples)
    done = 0
    for block in _cut_to(blocks, total_samples):
        position = np.arange(done, done + block.shape[1])
        done += block.shape[1]
        if done <= fade_start:
            yield block
            continue
        share = np.maximum(0, position + 1 - fade_start) / (total_samples - fade_start)
        yield (block * np.cos(share * (np.pi / 2))).astype(np.float32)


# --- a seam ---------------------------------------------------------------------------------------------------------


def _check_sides(left: Samples, right: Samples, gap_samples: int, fade_samples: int) -> None:
    if min(gap_samples, fade_samples) < 0:
        raise ValueError(f"a seam needs a gap and a fade >= 0, got {gap_samples} and {fade_samples} samples")
    if len(left) != len(right) or min(left.shape[1], right.shape[1]) < fade_samples:
        raise ValueError(
            f"both sides of a seam need the same channels and at least {fade_samples} samples, "
            f"got {left.shape} and {right.shape}"
        )


def _last(samples: Samples, count: int) -> Samples:
    """At most ``count`` samples; ``samples[:, -count:]`` would be all of them for a count of 0."""
    return samples[:, max(0, samples.shape[1] - count) :]


def _line(source: Samples, gap_samples: int, fade_samples: int, sample_rate: int) -> Analytic:
    """What a side sounds like over the whole seam: its last fade, and room tone to the other end."""
    room_tone = extend(source, gap_samples + fade_samples, sample_rate)
    known = _last(source, fade_samples + round(HILBERT_MARGIN_SECONDS * sample_rate))
    whole = np.concatenate([known, room_tone], axis=1)
    return _analytic(whole)[:, known.shape[1] - fade_samples :]


def _analytic(samples: Samples) -> Analytic:
    """Samples + 1j times their Hilbert transform: a quarter turn for every frequency alike, but for the very ends."""
    count = samples.shape[1]
    size = _fast_size(2 * count)
    spectrum = np.fft.rfft(samples.astype(np.float64), size)
    spectrum[:, [0, -1]] = 0.0
    turned = np.fft.irfft(spectrum * -1j, size)[:, :count]
    analytic: Analytic = samples + 1j * turned
    return analytic


def _brought_in_phase(outgoing: Analytic, incoming: Analytic) -> tuple[Analytic, Analytic]:
    """Both turned towards each other, as far as they are related, so that like tones don't cancel where they meet.

    Neither is turned at its own, audible end.
    """
    fade_out, fade_in = _quarter_circle(outgoing.shape[1])
    weights = fade_out * fade_in
    power = np.sqrt(np.sum(weights * _power(outgoing)) * np.sum(weights * _power(incoming)))
    correlation = np.sum(weights * np.sum(outgoing * incoming.conj(), axis=0)) / (power + TINY)
    turn = np.angle(correlation) * np.abs(correlation)
    share = fade_in**2
    return outgoing * np.exp(-1j * turn * share), incoming * np.exp(1j * turn * (1.0 - share))


def _running_correlation(outgoing: Analytic, incoming: Analytic, reach: int) -> Floats:
    """Normalised correlation around every sample, MIN_CORRELATION..1: of analytic signals it does not follow waves."""
    reaches = np.full(outgoing.shape[1], reach)
    shared = _running_sum(np.sum(outgoing * incoming.conj(), axis=0).real, reaches)
    powers = _power(outgoing), _power(incoming)
    power = np.sqrt(np.prod([np.maximum(0.0, _running_sum(values, reaches)) for values in powers], axis=0))
    rounding = ROUNDING * np.sqrt(powers[0].sum() * powers[1].sum())
    correlation: Floats = np.clip(shared / (power + rounding + TINY), MIN_CORRELATION, 1.0)
    return correlation


def _power(analytic: Analytic) -> Floats:
    """Of all channels together, (samples,)."""
    power: Floats = np.sum(analytic.real**2 + analytic.imag**2, axis=0)
    return power


def _correlation(left: Floats, right: Floats) -> float:
    """Normalised, of all channels and samples together; 0 where it is negative."""
    power = np.sqrt(np.sum(np.square(left, dtype=np.float64)) * np.sum(np.square(right, dtype=np.float64)))
    return float(np.clip(np.sum(np.multiply(left, right, dtype=np.float64)) / (power + TINY), 0.0, 1.0))


def _crossed(left: Floats, right: Floats, correlation: Floats | float) -> Floats:
    fade_out, fade_in = _quarter_circle(left.shape[1])
    level = np.sqrt(1.0 + 2.0 * correlation * fade_out * fade_in)
    return left * (fade_out / level) + right * (fade_in / level)


@lru_cache(maxsize=8)
def _quarter_circle(count: int) -> tuple[Floats, Floats]:
    """Cosine from 1 to 0 and sine from 0 to 1, ``count`` of each; only to be read."""
    angle = np.linspace(0.0, np.pi / 2, count)
    return np.cos(angle), np.sin(angle)


# --- room tone ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grains:
    """Material, and how loud the grains are that can be cut out of it. A grain is two hops long.

    samples: (channels, n >= 4 hops), without their mean. guide: (n,), what places are compared by.
    levels: (places,), the rms of a grain that begins at every ``step``-th sample, and part_decibels (4, places) those
    of its quarters; all the same where grains are too short to have one. level: what they should have; end_level: what
    the material has at its very end. largest_step: from one of its samples to the next.
    search: how far from its place a grain may be moved; settle: in what time the end is forgotten; glide: in what
    time the level is reached; all in samples.
    """

    samples: Floats
    guide: Floats
    hop: int
    search: int
    settle: int
    glide: int
    step: int
    levels: Floats
    part_decibels: Floats
    level: float
    end_level: float
    largest_step: float

    def cut(self, place: int, level: float) -> Floats:
        """The grain at ``place``, brought to ``level`` unless that takes a boost that the material can't bear."""
        grain = self.samples[:, place : place + 2 * self.hop]
        gain = level / (float(self.levels[place // self.step]) + TINY)
        gained: Floats = min(gain, self.greatest_gain(grain)) * grain
        return gained

    def greatest_gain(self, grain: Floats) -> float:
        """MAX_BOOST, or as much less as leaves a grain no steps that the material does not have; at least 1."""
        return min(MAX_BOOST, max(1.0, self.largest_step / (_largest_step(grain) + TINY)))

    def level_after(self, count: int) -> float:
        """The level wanted ``count`` samples after the end."""
        return self.end_level + (self.level - self.end_level) * min(1.0, count / self.glide)


def _cut_grains(samples: Floats, hop: int, sample_rate: int) -> _Grains:
    step = max(1, round(LEVEL_GRID_SECONDS * sample_rate))
    sums = np.concatenate([[0.0], np.cumsum(np.sum(samples**2, axis=0))])
    levels, part_levels = _levels(sums, 2 * hop), _levels(sums, hop // 2)
    level, end_level = _usual_level(samples, levels), float(levels[-1])
    parts = np.stack([part_levels[part * (hop // 2) :][: levels.size] for part in range(4)])
    if 2 * hop < MIN_LEVELLED_SECONDS * sample_rate:
        levels, parts, end_level = np.full_like(levels, level), np.full_like(parts, level), level
    return _Grains(
        samples=samples,
        guide=_principal(samples),
        hop=hop,
        search=min(hop, round(SEARCH_SECONDS * sample_rate)),
        settle=min(hop, round(SETTLE_SECONDS * sample_rate)),
        glide=round(GLIDE_SECONDS * sample_rate),
        step=step,
        levels=levels[::step],
        part_decibels=_decibels(parts[:, ::step]),
        level=level,
        end_level=end_level,
        largest_step=_largest_step(samples),
    )


def _decibels(levels: Floats | float) -> Floats:
    decibels: Floats = 20.0 * np.log10(np.asarray(levels) + TINY)
    return decibels


def _usual_level(samples: Floats, levels: Floats) -> float:
    """The rms of all samples, unless rare loud moments make it: then what three grains of four don't exceed.

    A door that slams once is no part of a room's tone; words, with pauses in between, are.
    """
    rms = float(np.sqrt(np.sum(samples**2) / samples.shape[1]))
    usual = float(np.quantile(levels, USUAL_SHARE))
    return rms if rms <= MAX_USUAL_RATIO * usual else usual


def _largest_step(samples: Floats) -> float:
    return float(np.max(np.abs(np.diff(samples))))


def _levels(sums: Floats, window: int) -> Floats:
    """The rms over ``window`` samples from every one on, out of running sums of the power."""
    levels: Floats = np.sqrt(np.maximum(0.0, sums[window:] - sums[:-window]) / window)
    return levels


def _principal(samples: Floats) -> Floats:
    """The mix of all channels that has the most power, (samples,): one that opposite channels don't cancel in."""
    _, mixes = np.linalg.eigh(samples @ samples.T)
    principal: Floats = mixes[:, -1] @ samples
    return principal


def _textured(grains: _Grains, count: int) -> Iterator[Floats]:
    """At least ``count`` samples in blocks of a hop, that continue the material from its last sample on."""
    hop = grains.hop
    place = _continuation(grains)
    end, before = grains.samples[:, -hop:], grains.samples[:, place - hop : place]
    grain = grains.samples[:, place : place + 2 * hop]
    gain = min(grains.greatest_gain(grain), float(np.linalg.norm(end) / (np.linalg.norm(before) + TINY)))
    grain = gain * grain
    grain[:, : grains.settle] += _rung_out(end - gain * before, _predictor(grains.guide), grains.settle)
    yield grain[:, :hop]
    random = np.random.default_rng(GRAIN_SEED)
    for start in range(hop, count, hop):
        fading = grain[:, hop:]
        level = grains.level_after(start)
        place = _next_place(grains, place + hop, level, random)
        grain = grains.cut(place, level)
        yield _crossed(fading, grain[:, :hop], _correlation(fading, grain[:, :hop]))


def _continuation(grains: _Grains) -> int:
    """Where what comes before is most like the material's end, so that what follows may follow the end, too."""
    hop, guide = grains.hop, grains.guide
    return hop + _best_fit(guide, [(0, guide.size - 2 * hop)], guide[-hop:])


def _next_place(grains: _Grains, following: int, level: float, random: np.random.Generator) -> int:
    """A random place for a grain about as loud as ``level``, that fits what would come next at ``following``."""
    off = np.clip(grains.part_decibels - _decibels(level), -MAX_DEVIATION_DB, MAX_DEVIATION_DB)
    deviations = np.mean(off * off, axis=0)
    rank = int(STEADY_SHARE * (deviations.size - 1))
    steady = np.flatnonzero(deviations <= max(STEADY_DB**2, float(np.partition(deviations, rank)[rank])))
    last_place = grains.guide.size - 2 * grains.hop
    stretches = [
        (max(0, int(drawn) - grains.search), min(last_place, int(drawn) + grains.search) + grains.hop)
        for drawn in random.choice(steady, CANDIDATES) * grains.step
    ]
    return _best_fit(grains.guide, stretches, grains.guide[following : following + grains.hop])


def _best_fit(signal: Floats, stretches: Sequence[tuple[int, int]], template: Floats) -> int:
    """Where in ``signal``, within stretches (start, stop) of it, the template fits best.

    By what the two share of their mean power. Over the product of their norms a place next to a pause would win: the
    fewer samples, the likelier chance likeness.
    """
    size = _fast_size(max(stop - start for start, stop in stretches))
    padded = np.zeros((len(stretches), size))
    for row, (start, stop) in zip(padded, stretches, strict=True):
        row[: stop - start] = signal[start:stop]
    # All at once: of transforms this short a call costs as much as the work.
    likeness = np.fft.irfft(np.fft.rfft(padded) * np.fft.rfft(template, size).conj(), size)
    sums = np.concatenate([np.zeros((len(stretches), 1)), np.cumsum(padded * padded, axis=1)], axis=1)
    power = np.maximum(0.0, sums[:, template.size :] - sums[:, : -template.size])
    floor = np.sum(template**2) + ROUNDING * sums[:, -1:] + TINY
    scores = 2.0 * likeness[:, : power.shape[1]] / (power + floor)
    for row, (start, stop) in zip(scores, stretches, strict=True):
        row[stop - start - template.size + 1 :] = -np.inf
    best = int(np.argmax(scores))
    width: int = scores.shape[1]
    return stretches[best // width][0] + best % width


def _predictor(signal: Floats) -> Floats:
    """Weights of the last PREDICTOR_ORDER samples, oldest first, that best predict the next; what it says decays."""
    order = PREDICTOR_ORDER
    size = _fast_size(2 * signal.size)
    spectrum = np.fft.rfft(signal * np.hanning(signal.size), size)
    likeness = np.fft.irfft(np.abs(spectrum) ** 2, size)[: order + 1]
    lags = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    floor = np.eye(order) * (PREDICTOR_FLOOR * likeness[0] + TINY)
    weights: Floats = np.linalg.solve(likeness[lags] + floor, likeness[1:])[::-1]
    return weights


def _rung_out(history: Floats, predictor: Floats, count: int) -> Floats:
    """How ``history`` (channels, at least the order) sounds on when nothing new comes, faded to zero in ``count``.

    Added to other material of the same kind it makes this begin as if it had that history: no step, and no thump
    as from an offset that decays.
    """
    order = predictor.size
    ringing = np.concatenate([history[:, -order:], np.zeros((len(history), count))], axis=1)
    for index in range(count):
        ringing[:, order + index] = ringing[:, index : index + order] @ predictor
    return ringing[:, order:] * _quarter_circle(count)[0] ** 2


def _fast_size(count: int) -> int:
    """The least product of 2**n and a small odd number that is at least ``count``, and even: transforms like these."""
    return min(odd << max(1, (-(-count // odd) - 1).bit_length()) for odd in (1, 3, 5, 9, 15, 25, 27))


# --- peaks ----------------------------------------------------------------------------------------------------------


def _reductions(samples: Samples) -> Floats:
    """By how much gain must be less than 1 for each sample's loudest channel, (samples,): 0 within full scale."""
    loudest = np.max(np.abs(samples), axis=0, initial=0.0).astype(np.float64)
    reductions: Floats = 1.0 - 1.0 / np.maximum(1.0, loudest)
    return reductions


def _lowered(samples: Samples, reductions: Floats) -> Samples:
    lowered = (samples * (1.0 - reductions)).astype(np.float32)
    # Rounding may leave a peak one float32 step above.
    return np.clip(lowered, -1.0, 1.0)


def _held(reductions: Floats, reach: int) -> Floats:
    """The greatest within ``reach`` samples to either side: running maxima within windows, from both of their ends."""
    window, count = 2 * reach + 1, reductions.size
    padded = np.pad(reductions, (reach, reach + -(count + 2 * reach) % window)).reshape(-1, window)
    forwards = np.maximum.accumulate(padded, axis=1).ravel()
    backwards = np.maximum.accumulate(padded[:, ::-1], axis=1)[:, ::-1].ravel()
    return np.maximum(backwards[:count], forwards[2 * reach : 2 * reach + count])


def _held_to_the_ends(reductions: Floats, reach: int) -> Floats:
    """As ``_held``, with a reach that narrows to 0 at both ends."""
    held = _held(reductions, reach)
    narrowed = np.arange(min(reach, (reductions.size + 1) // 2))
    # Within these every window begins, or ends, with the samples themselves.
    held[narrowed] = np.maximum.accumulate(reductions)[2 * narrowed]
    held[::-1][narrowed] = np.maximum.accumulate(reductions[::-1])[2 * narrowed]
    return held


def _running_sum(values: Floats, reaches: npt.NDArray[np.int_]) -> Floats:
    """Sums over ``reaches`` samples to either side, cut at the ends; exactly 0 where all of them are 0."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(values.size)
    within: Floats = sums[np.minimum(index + reaches + 1, values.size)] - sums[np.maximum(index - reaches, 0)]
    return within


def _running_mean(values: Floats, reaches: npt.NDArray[np.int_]) -> Floats:
    """Over ``2 * reaches + 1`` samples, those beyond the ends taken as 0."""
    mean: Floats = _running_sum(values, reaches) / (2 * reaches + 1)
    return mean


# --- streams --------------------------------------------------------------------------------------------------------


class _Tape:
    """Blocks of any sizes, read in pieces of wanted ones."""

    def __init__(self, blocks: Iterator[Samples]) -> None:
        self._blocks = blocks
        self._rest: Samples | None = None

    def take(self, count: int) -> Samples:
        """The next ``count`` samples, fewer at the end only; shape (0, 0) where there never was a block."""
        pieces: list[Samples] = []
        missing = count
        while missing > 0 and (block := self._next()) is not None:
            pieces.append(block[:, :missing])
            self._rest = block[:, missing:]
            missing -= pieces[-1].shape[1]
        return np.concatenate(pieces, axis=1) if pieces else np.zeros((0, 0), np.float32)

    def _next(self) -> Samples | None:
        rest, self._rest = self._rest, None
        return rest if rest is not None and rest.size else next(self._blocks, None)


def _rebuilt(tape: _Tape) -> Iterator[Samples]:
    """What is left of it in blocks of BLOCK_SAMPLES; the last one may be shorter."""
    while (block := tape.take(BLOCK_SAMPLES)).size:
        yield block


def _summed(blocks: Iterator[Samples], music: _Tape, gain: np.float32) -> Iterator[Samples]:
    for block in blocks:
        under = music.take(block.shape[1])
        summed = block.copy()
        if under.size:
            summed[:, : under.shape[1]] += gain * under
        yield summed


def _limited(blocks: Iterator[Samples], reach: int) -> Iterator[Samples]:
    """Blocks within full scale. Their sums begin where the blocks do, so these must not depend on how sound arrives."""
    margin = 2 * reach
    pending: Samples | None = None
    for block in blocks:
        before = np.zeros((len(block), margin), np.float32) if pending is None else pending
        pending = np.concatenate([before, block], axis=1)
        if pending.shape[1] > 2 * margin:
            yield _without_peaks(pending, reach)[:, margin : pending.shape[1] - margin]
            pending = _last(pending, 2 * margin)
    if pending is not None:
        pending = np.concatenate([pending, np.zeros((len(pending), margin), np.float32)], axis=1)
        yield _without_peaks(pending, reach)[:, margin : pending.shape[1] - margin]


def _without_peaks(samples: Samples, reach: int) -> Samples:
    reductions = _reductions(samples)
    if not reductions.any():
        return samples
    reaches = np.full(reductions.size, reach)
    return _lowered(samples, _running_mean(_held(reductions, reach), reaches))


def _all_but_the_last(blocks: Iterator[Samples], count: int) -> Generator[Samples, None, Samples]:
    """Yields everything but the last ``count`` samples, and returns these."""
    held = next(blocks)
    for block in blocks:
        held = np.concatenate([held, block], axis=1)
        yield held[:, : max(0, held.shape[1] - count)]
        held = _last(held, count)
    yield held[:, : max(0, held.shape[1] - count)]
    return _last(held, count)


def _cut_to(blocks: Iterator[Samples], total_samples: int) -> Iterator[Samples]:
    """Exactly ``total_samples``: cut, or padded with silence block by block."""
    missing, channels = total_samples, 0
    while missing > 0 and (block := next(blocks, None)) is not None:
        channels = len(block)
        yield block[:, :missing]
        missing -= min(missing, block.shape[1])
    if missing and not channels:
        raise ValueError(f"silence of {missing} samples needs at least one block that tells its channels")
    while missing:
        yield np.zeros((channels, min(missing, BLOCK_SAMPLES)), np.float32)
        missing -= min(missing, BLOCK_SAMPLES)
