"""The sound of a seam keeps its level and has no step in it; music lies under any result in little memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import islice, repeat

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.footage import BIG_BUCK_BUNNY
from splice.errors import MediaError
from splice.sound import (
    EXTENSION_SECONDS,
    FADE_SECONDS,
    LOOKAHEAD_SAMPLES,
    Samples,
    bridge_seam,
    crossfade,
    extend,
    faded_out,
    laid_under,
    limit_peaks,
    looped,
    quantised,
    silence_seam,
)

RATE = 48_000
FADE = int(FADE_SECONDS * RATE)
SIDE = EXTENSION_SECONDS * RATE + FADE
LEVEL = 0.1
GAPS = (0, 1920, 101_761)
CHORD_HERTZ = (220.0, 277.18, 329.63, 440.0)

pytestmark = pytest.mark.filterwarnings("error")


def noise(seed: int, count: int = SIDE, channels: int = 2) -> Samples:
    return (np.random.default_rng(seed).standard_normal((channels, count)) * LEVEL).astype(np.float32)


def pink(seed: int, count: int = SIDE) -> Samples:
    """As much power in every octave from 20 Hz on."""
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum = np.fft.rfft(noise(seed, count)) * (hertz >= 20) / np.sqrt(np.maximum(hertz, 20))
    samples = np.fft.irfft(spectrum, count)
    return (samples * (LEVEL / samples.std())).astype(np.float32)


def tone(hertz: float, phase: float = 0.0, count: int = SIDE, level: float = LEVEL) -> Samples:
    wave = np.sqrt(2) * level * np.sin(2 * np.pi * hertz * np.arange(count) / RATE + phase)
    return np.tile(wave, (2, 1)).astype(np.float32)


def chord(seed: int, count: int = SIDE) -> Samples:
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(CHORD_HERTZ))
    voices = [tone(hertz, phase, count, LEVEL / 2) for hertz, phase in zip(CHORD_HERTZ, phases, strict=True)]
    return np.sum(voices, axis=0, dtype=np.float32)


def syllables(seed: int, count: int = SIDE) -> Samples:
    """Noise as loud as speech is from one tenth of a second to the next: digital pauses, and 12 dB up and down."""
    random = np.random.default_rng(seed)
    levels = np.repeat(random.choice([0.0, 0.5, 1.0, 2.0], count // 4800 + 1), 4800)[:count]
    return noise(seed, count) * levels.astype(np.float32)


def cut(samples: Samples) -> tuple[Samples, Samples]:
    """A recording that the seam cuts in two."""
    return samples[:, :SIDE], samples[:, SIDE:]


def decibels(ratio: object) -> np.ndarray:
    return 20 * np.log10(np.maximum(ratio, 1e-9))


def level_curve(samples: Samples, window_seconds: float = 0.05) -> np.ndarray:
    """The rms of every window, in dB over LEVEL."""
    window = round(window_seconds * RATE)
    sums = np.cumsum(np.pad(np.mean(samples.astype(np.float64) ** 2, axis=0), (1, 0)))
    return decibels(np.sqrt(np.maximum(0, sums[window:] - sums[:-window]) / window) / LEVEL)


def largest_step(*parts: Samples) -> float:
    return max(float(np.abs(np.diff(part)).max()) for part in parts)


def joined(left: Samples, right: Samples, gap: int, around: int = 4800) -> Samples:
    """The seam with what is heard before and after it."""
    bridge = bridge_seam(left, right, gap, FADE, RATE)
    assert bridge.shape == (len(left), 2 * FADE + gap) and bridge.dtype == np.float32
    return np.concatenate([left[:, :-FADE][:, -around:], bridge, right[:, FADE:][:, :around]], axis=1)


def in_blocks(samples: Samples, sizes: list[int]) -> Iterator[Samples]:
    """The samples in blocks of the given sizes in turn."""
    start = 0
    while start < samples.shape[1]:
        for size in sizes:
            yield samples[:, start : start + size]
            start += size


def whole(blocks: Iterator[Samples]) -> Samples:
    return np.concatenate(list(blocks), axis=1)


def first(blocks: Iterator[Samples], count: int) -> Samples:
    """The first ``count`` samples of blocks that may never end."""
    taken: list[Samples] = []
    while sum(block.shape[1] for block in taken) < count:
        taken.append(next(blocks))
    return np.concatenate(taken, axis=1)[:, :count]


# --- a seam ---------------------------------------------------------------------------------------------------------

MATERIALS: dict[str, Callable[[], tuple[Samples, Samples]]] = {
    "two white noises": lambda: (noise(1), noise(2)),
    "one white noise": lambda: cut(noise(3, 2 * SIDE)),
    "two pink noises": lambda: (pink(1), pink(2)),
    "one pink noise": lambda: cut(pink(3, 2 * SIDE)),
    "two chords": lambda: (chord(1), chord(2)),
    "one chord": lambda: cut(chord(3, 2 * SIDE)),
    "noise and tone": lambda: (noise(4), tone(440)),
    "tone and pink noise": lambda: (tone(1000), pink(5)),
}


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("material", MATERIALS)
def test_the_level_stays_and_no_step_is_made(material: str, gap: int) -> None:
    left, right = MATERIALS[material]()
    sound = joined(left, right, gap)
    assert np.isfinite(sound).all()
    assert np.abs(level_curve(sound)).max() < 2.0
    # Noise has no largest step: two of its rarest ones may meet.
    assert largest_step(sound) <= 1.2 * largest_step(left, right)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("hertz", [50, 110, 441, 2503.3, 10_000])
def test_like_tones_meet_in_phase_whatever_their_phases(hertz: float, gap: int) -> None:
    for phase in (0.0, 2.0, np.pi):
        left, right = tone(hertz), tone(hertz, phase)
        sound = joined(left, right, gap)
        assert np.abs(level_curve(sound, 0.1 if hertz < 200 else 0.05)).max() < 0.5
        # Half a turn within the seam, at most, comes on top of the tone's own; pi / 2 times as fast in the middle.
        added_hertz = (np.pi / 2) * 0.5 * RATE / (2 * FADE + gap)
        assert largest_step(sound) <= 1.03 * (1 + added_hertz / hertz) * largest_step(left, right)


def test_without_turning_opposite_tones_would_cancel() -> None:
    """At some phase two lines are opposite where they meet, so that the test above is one."""
    left, kept, cancelled = tone(441), [], []
    for right in (tone(441, phase) for phase in np.arange(16) * (np.pi / 8)):
        outgoing = np.concatenate([left[:, -FADE:], extend(left, FADE, RATE)], axis=1)
        incoming = np.concatenate([extend(right[:, ::-1], FADE, RATE)[:, ::-1], right[:, :FADE]], axis=1)
        cancelled.append(level_curve(crossfade(outgoing, incoming), 0.01).min())
        kept.append(level_curve(bridge_seam(left, right, 0, FADE, RATE), 0.01).min())
    assert min(cancelled) < -10 and min(kept) > -1


@pytest.mark.parametrize("gap", [0, 1, 1920, 30_011])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_bridge_begins_with_left_and_ends_with_right(channels: int, gap: int) -> None:
    left, right = noise(1, channels=channels), noise(2, channels=channels)
    bridge = bridge_seam(left, right, gap, FADE, RATE)
    assert bridge.shape == (channels, 2 * FADE + gap)
    np.testing.assert_allclose(bridge[:, 0], left[:, -FADE], atol=1e-6)
    np.testing.assert_allclose(bridge[:, -1], right[:, FADE - 1], atol=1e-6)
    # The first millisecond is nearly left's alone, the last one nearly right's.
    assert np.corrcoef(bridge[0, :48], left[0, -FADE:][:48])[0, 1] > 0.95
    assert np.corrcoef(bridge[0, -48:], right[0, :FADE][-48:])[0, 1] > 0.95


def test_the_same_sides_make_the_same_bridge() -> None:
    bridges = [bridge_seam(pink(1), chord(1), 24_000, FADE, RATE).tobytes() for _ in range(2)]
    assert bridges[0] == bridges[1]


@pytest.mark.parametrize("count", [FADE, FADE + 1, 1600, 5000])
@pytest.mark.parametrize("gap", [0, 48_000])
def test_clips_of_a_few_frames_make_a_bridge(count: int, gap: int) -> None:
    left, right = noise(1, count), noise(2, count)
    sound = joined(left, right, gap)
    assert np.isfinite(sound).all()
    assert largest_step(sound) <= 1.25 * largest_step(left, right)
    assert np.abs(level_curve(bridge_seam(left, right, gap, FADE, RATE), 0.04)).max() < 2.0


def test_a_silent_side_lets_the_other_fade() -> None:
    silent = np.zeros((2, SIDE), np.float32)
    assert not bridge_seam(silent, silent, 24_000, FADE, RATE).any()
    for curve in (
        level_curve(bridge_seam(noise(1), silent, 48_000, FADE, RATE)),
        level_curve(bridge_seam(silent, noise(1), 48_000, FADE, RATE))[::-1],
    ):
        assert curve[0] == pytest.approx(0, abs=0.5) and curve[curve.size // 2] == pytest.approx(-3, abs=0.7)
        assert curve[-1] < -25


def test_sound_that_stops_before_the_seam_is_no_reason_to_boost_the_other_side() -> None:
    left = noise(1)
    left[:, -20_000:] = 0
    assert level_curve(bridge_seam(left, noise(2), 48_000, FADE, RATE)).max() < 3


def test_constant_sound_stays_between_its_constants() -> None:
    left, right = (np.full((2, SIDE), value, np.float32) for value in (0.5, 0.25))
    bridge = bridge_seam(left, right, 9600, FADE, RATE)
    assert bridge.min() > 0.24 and bridge.max() < 0.51 and largest_step(bridge) < 1e-3


def test_loud_sides_don_t_exceed_full_scale_where_they_meet() -> None:
    left, right = (limited_noise / np.abs(limited_noise).max() for limited_noise in (noise(1), noise(2)))
    for gap in (0, 24_000):
        bridge = bridge_seam(left, right, gap, FADE, RATE)
        assert np.abs(bridge).max() <= 1


def test_sides_that_don_t_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 960 samples"):
        bridge_seam(noise(1, FADE - 1), noise(2), 0, FADE, RATE)
    with pytest.raises(ValueError, match="same channels"):
        silence_seam(noise(1), noise(2, channels=1), 0, FADE)
    with pytest.raises(ValueError, match=">= 0"):
        bridge_seam(noise(1), noise(2), -1, FADE, RATE)


def test_a_silent_seam_is_silent_in_its_gap() -> None:
    left, right = noise(1), noise(2)
    seam = silence_seam(left, right, 4801, FADE)
    assert seam.shape == (2, 2 * FADE + 4801) and seam.dtype == np.float32
    assert not seam[:, FADE:-FADE].any()
    np.testing.assert_allclose(seam[:, 0], left[:, -FADE])
    np.testing.assert_allclose(seam[:, -1], right[:, FADE - 1])
    for faded, source in ((seam[:, :FADE], left[:, -FADE:]), (seam[:, -FADE:][:, ::-1], right[:, :FADE][:, ::-1])):
        gain = faded[0] / source[0]
        assert (np.diff(gain) < 1e-6).all() and abs(gain[-1]) < 1e-6
    assert silence_seam(left, right, 0, FADE).shape == (2, 2 * FADE)


def test_a_crossfade_keeps_the_level_of_like_and_unlike() -> None:
    one, other = noise(1, 9600), noise(2, 9600)
    np.testing.assert_allclose(crossfade(one, one), one, atol=1e-6)
    assert np.abs(level_curve(crossfade(one, other), 0.02)).max() < 0.7
    assert np.abs(level_curve(crossfade(one, (one + other) / np.float32(2**0.5)), 0.02)).max() < 0.7


# --- room tone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("make", [noise, pink, chord, syllables])
def test_room_tone_continues_the_very_end(make: Callable[[int], Samples], seed: int) -> None:
    source = make(seed)
    sound = np.concatenate([source[:, -1:], extend(source, 4800, RATE)], axis=1)
    assert largest_step(sound[:, :2]) <= largest_step(source)
    assert largest_step(sound) <= 1.1 * largest_step(source)


@pytest.mark.parametrize("seed", range(6))
def test_room_tone_of_speech_has_one_level(seed: int) -> None:
    source = syllables(seed)
    second = source[:, -RATE:].astype(np.float64)
    curve = level_curve(extend(source, 2 * RATE, RATE)) - decibels(np.sqrt(np.mean(second**2)) / LEVEL)
    assert np.abs(curve[RATE // 2 :]).max() < 3.0


def test_room_tone_leaves_out_what_happened_once() -> None:
    source = noise(1) * np.float32(0.01)
    source[:, 20_000:20_960] += noise(2, 960) * 3
    curve = level_curve(extend(source, 2 * RATE, RATE), 0.02)
    assert np.abs(curve + 40).max() < 2


def test_room_tone_comes_up_slowly_from_a_quiet_end() -> None:
    source = noise(1)
    source[:, -10_000:] *= np.float32(0.1)
    curve = level_curve(extend(source, RATE, RATE), 0.02)
    assert np.abs(curve[:960] + 20).max() < 2 and curve[4800] < -8 and np.abs(curve[RATE // 2 :] + 1).max() < 2
    assert (curve[RATE // 100 :] - curve[: -RATE // 100]).max() < 6


@pytest.mark.parametrize("second", [1.5, 2.2, 3.1, 4.2])
def test_room_tone_of_a_film_has_one_level(film: Samples, second: float) -> None:
    source = film[:, : round(second * RATE)]
    curve = level_curve(extend(source, 2 * RATE, RATE)) - level_curve(source[:, -RATE:], 1.0)
    assert np.abs(curve[RATE // 2 :]).max() < 3.0


def test_room_tone_is_made_of_the_last_second_alone() -> None:
    source = np.concatenate([tone(3000, count=RATE), tone(400, count=RATE)], axis=1)
    spectrum = np.abs(np.fft.rfft(extend(source, RATE, RATE)[0] * np.hanning(RATE)))
    assert spectrum[2900:3100].max() < 1e-3 * spectrum[400]


def test_room_tone_does_not_repeat_itself() -> None:
    """A loop, or a grain that comes again and again, would be like itself later on."""
    room_tone = extend(noise(1), 2 * RATE, RATE)[0].astype(np.float64)
    power = np.abs(np.fft.rfft(room_tone, 4 * RATE)) ** 2
    likeness = np.fft.irfft(power)[:RATE]
    assert np.abs(likeness[480:]).max() < 0.2 * likeness[0]


def test_grains_run_forwards_on_both_sides() -> None:
    """A sawtooth rises slowly and falls at once; reversed it would do the opposite."""
    clicks = np.random.default_rng(1).choice(np.arange(150, 400), SIDE // 150).cumsum()
    ramp = np.concatenate([np.linspace(-0.2, 0.2, count) for count in np.diff(clicks, prepend=0)])[:SIDE]
    sawtooth = np.tile(ramp, (2, 1)).astype(np.float32)
    silent = np.zeros_like(sawtooth)
    assert np.diff(sawtooth).min() < -0.35 and np.diff(sawtooth).max() < 0.01
    for left, right in ((sawtooth, silent), (silent, sawtooth)):
        steps = np.diff(bridge_seam(left, right, RATE, FADE, RATE)[0, 4800:-4800])
        assert steps.min() < -0.1 and steps.max() < 0.3 * -steps.min()


def test_opposite_channels_fit_as_well_as_equal_ones() -> None:
    equal = chord(1)
    opposite = equal * np.array([[1], [-1]], np.float32)
    np.testing.assert_allclose(np.abs(extend(opposite, 24_000, RATE)), np.abs(extend(equal, 24_000, RATE)), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 7, 127, 128, 129, 441, 800])
def test_sources_of_any_length_are_continued(count: int) -> None:
    for source in (noise(1, count), tone(440, count=count), pink(1, 800)[:, :count]):
        room_tone = extend(source, 9600, RATE)
        assert room_tone.shape == (2, 9600) and np.isfinite(room_tone).all()
        assert np.abs(room_tone).max() <= 1.5 * np.abs(source).max()
    assert not extend(np.zeros((2, count), np.float32), 9600, RATE).any()
    np.testing.assert_allclose(extend(np.full((2, count), 0.5, np.float32), 9600, RATE), 0.5, atol=1e-6)


def test_nothing_is_continued_by_silence_and_may_be_of_no_length() -> None:
    assert not extend(np.zeros((2, 0), np.float32), 100, RATE).any()
    assert extend(noise(1), 0, RATE).shape == (2, 0)


@pytest.fixture(scope="module")
def film() -> Samples:
    """Five seconds of music and atmosphere: the front channels, brought to LEVEL."""
    with av.open(str(BIG_BUCK_BUNNY.path())) as container:
        samples = np.concatenate([frame.to_ndarray()[:2] for frame in container.decode(audio=0)], axis=1)
    assert samples.dtype == np.float32
    return samples * np.float32(LEVEL / samples[:, RATE:].std())


@pytest.mark.parametrize("gap", [0, 24_000, 101_760])
@pytest.mark.parametrize("seconds", [(2.2, 2.2), (2.6, 3.9), (4.1, 2.9)])
def test_real_sound_is_bridged(film: Samples, seconds: tuple[float, float], gap: int) -> None:
    end, start = (round(second * RATE) for second in seconds)
    left, right = film[:, end - SIDE : end], film[:, start : start + SIDE]
    sound = joined(left, right, gap)
    own = np.concatenate([level_curve(side) for side in (left, right)])
    curve = level_curve(sound)
    assert own.min() - 3 < curve.min() and curve.max() < own.max() + 3
    assert largest_step(sound) <= 1.25 * largest_step(left, right)


# --- peaks and steps ------------------------------------------------------------------------------------------------


def test_sound_within_full_scale_is_left_alone() -> None:
    samples = noise(1) / np.abs(noise(1)).max()
    assert limit_peaks(samples, RATE) is samples


@pytest.mark.parametrize("count", [1, 2, 3, 100, 959, 960, 961, 2000, 2001, 9600])
@pytest.mark.parametrize("seed", range(3))
def test_no_peak_is_left_and_the_ends_are(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    samples = random.uniform(0.5, 0.9, (2, count)).astype(np.float32)
    inner = random.integers(1, max(2, count - 1), max(1, count // 300))
    samples[seed % 2, inner[inner < count - 1]] = random.uniform(1.01, 3)
    limited = limit_peaks(samples, RATE)
    assert np.abs(limited).max() <= 1
    gain = limited.astype(np.float64) / samples
    np.testing.assert_allclose(gain[0], gain[1], atol=1e-6)
    np.testing.assert_array_equal(limited[:, [0, -1]], samples[:, [0, -1]])
    over = np.flatnonzero(np.abs(samples).max(axis=0) > 1)
    far = np.array([np.abs(over - index).min(initial=count) > 960 for index in range(count)])
    np.testing.assert_array_equal(limited[:, far], samples[:, far])


def test_a_peak_is_approached_slowly() -> None:
    samples = np.full((1, 9600), 0.8, np.float32)
    samples[0, 4800] = 2.0
    gain = (limit_peaks(samples, RATE) / samples)[0].astype(np.float64)
    assert gain[4800] == pytest.approx(0.5) and np.abs(np.diff(gain)).max() <= 0.5 / 960
    samples[0, 40] = 2.0
    gain = (limit_peaks(samples, RATE) / samples)[0].astype(np.float64)
    assert gain[0] == 1 and gain[40] <= 0.5 and np.abs(np.diff(gain)).max() < 0.07


def test_an_end_that_exceeds_full_scale_is_lowered_all_the_same() -> None:
    samples = np.full((1, 4800), 0.8, np.float32)
    samples[0, [0, -1]] = 1.5, -1.25
    assert np.abs(limit_peaks(samples, RATE)).max() <= 1


def test_quantised_sound_survives_24_bit_flac() -> None:
    samples = np.concatenate([noise(1, 5000) * 5, np.array([[1, -1, 2], [-2, 0.9999999, 0]], np.float32)], axis=1)
    steps = quantised(samples)
    assert steps.dtype == np.float32 and steps.max() == 1 - 2.0**-23 and steps.min() == -1
    inside = np.abs(samples) < 1 - 2.0**-23
    assert np.abs(steps - samples)[inside].max() <= 2.0**-24
    file = io.BytesIO()
    soundfile.write(file, steps.T, RATE, format="FLAC", subtype="PCM_24")
    file.seek(0)
    np.testing.assert_array_equal(soundfile.read(file, dtype="float32")[0].T, steps)
    np.testing.assert_array_equal(quantised(steps), steps)


# --- streams --------------------------------------------------------------------------------------------------------

SIZES = st.lists(st.integers(1, 20_000), min_size=1, max_size=4)


@settings(max_examples=20)
@given(SIZES, SIZES)
def test_music_under_a_result_does_not_depend_on_blocks(block_sizes: list[int], music_sizes: list[int]) -> None:
    result, music = noise(1, 40_001) * 4, noise(2, 30_000) * 4
    sound = whole(laid_under(in_blocks(result, block_sizes), in_blocks(music, music_sizes), -6))
    assert sound.tobytes() == whole(laid_under(iter([result]), iter([music]), -6)).tobytes()
    assert sound.shape == result.shape and sound.dtype == np.float32
    plain = result.copy()
    plain[:, :30_000] += music * np.float32(10 ** (-6 / 20))
    assert np.abs(plain).max() > 1 and np.abs(sound).max() <= 1


def test_music_is_added_exactly_where_nothing_exceeds_full_scale() -> None:
    result, music = noise(1, 60_000), noise(2, 60_000)
    result[:, 20_000], result[:, 59_999] = 1.5, -1.5
    plain = result + np.float32(10 ** (-12 / 20)) * music
    sound = whole(laid_under(in_blocks(result, [777]), in_blocks(music, [1024]), -12))
    assert np.abs(sound).max() <= 1
    over = np.flatnonzero(np.abs(plain).max(axis=0) > 1)
    near = np.abs(np.arange(60_000)[:, None] - over).min(axis=1) <= 2 * LOOKAHEAD_SAMPLES
    np.testing.assert_array_equal(sound[:, ~near], plain[:, ~near])
    assert near.sum() < 10_000


def test_music_that_ends_is_silent_and_music_that_lasts_is_cut() -> None:
    result = noise(1, 30_000)
    np.testing.assert_array_equal(whole(laid_under(in_blocks(result, [1000]), iter([]), 0)), result)
    np.testing.assert_array_equal(
        whole(laid_under(in_blocks(result, [1000]), iter([noise(2, 100)]), 0))[:, 100:], result[:, 100:]
    )
    endless = repeat(noise(2, 500))
    assert whole(laid_under(in_blocks(result, [1000]), endless, 0)).shape == result.shape
    assert list(laid_under(iter([]), iter([noise(2, 100)]), 0)) == []
    assert whole(laid_under(iter([result]), iter([]), 0, lookahead_samples=0)).shape == result.shape


def test_streams_are_read_as_they_are_needed() -> None:
    """Constant memory: what was asked for is never far ahead of what came out."""
    asked = 0

    def counted() -> Iterator[Samples]:
        nonlocal asked
        while True:
            asked += 1000
            yield np.zeros((2, 1000), np.float32)

    under = laid_under(counted(), repeat(np.zeros((2, 700), np.float32)), -20)
    streams = {"laid_under": under, "looped": looped(counted, FADE), "faded_out": faded_out(counted(), 10**9, FADE)}
    for name, stream in streams.items():
        asked, given_out = 0, 0
        for block in islice(stream, 50):
            assert asked - given_out < 40_000, name
            given_out += block.shape[1]


@settings(max_examples=20)
@given(SIZES)
def test_looped_music_does_not_depend_on_blocks(sizes: list[int]) -> None:
    music = pink(1, 10_000)
    sound = first(looped(lambda: in_blocks(music, sizes), FADE), 35_000)
    assert sound.tobytes() == first(looped(lambda: iter([music]), FADE), 35_000).tobytes()


def test_looped_music_is_itself_but_for_its_ends() -> None:
    music = pink(1, 20_000)
    sound = first(looped(lambda: in_blocks(music, [4096]), FADE), 60_000)
    period = 20_000 - FADE
    np.testing.assert_array_equal(sound[:, :period], music[:, :period])
    np.testing.assert_array_equal(sound[:, 20_000 : 2 * period], music[:, FADE:period])
    np.testing.assert_array_equal(sound[:, 2 * period : 3 * period], sound[:, period : 2 * period])
    assert largest_step(sound) <= 1.1 * largest_step(music)
    curve = level_curve(sound[:, period - 4800 : 20_000 + 4800])
    assert np.ptp(curve) < 6


@pytest.mark.parametrize("count", [1, 100, 2 * FADE - 1])
def test_short_music_is_repeated_as_it_is(count: int) -> None:
    music = noise(1, count)
    np.testing.assert_array_equal(first(looped(lambda: iter([music]), FADE), 5 * count), np.tile(music, 5))


def test_looping_needs_samples_and_no_fade() -> None:
    for empty in ([], [np.zeros((2, 0), np.float32)]):
        with pytest.raises(MediaError, match="no samples"):
            next(looped(lambda blocks=empty: iter(blocks), FADE))
    music = noise(1, 1000)
    np.testing.assert_array_equal(first(looped(lambda: iter([music]), 0), 2500), np.tile(music, 3)[:, :2500])
    twice = first(looped(lambda: iter([noise(1, 2 * FADE)]), FADE), 3 * FADE)
    np.testing.assert_array_equal(twice[:, :FADE], noise(1, 2 * FADE)[:, :FADE])


@settings(max_examples=20)
@given(SIZES, st.sampled_from([0, 1, 500, 960, 20_000, 35_001]))
def test_fading_out_does_not_depend_on_blocks(sizes: list[int], total: int) -> None:
    sound = list(faded_out(in_blocks(noise(1, 30_000), sizes), total, FADE))
    expected = list(faded_out(iter([noise(1, 30_000)]), total, FADE))
    assert sum(block.shape[1] for block in sound) == total
    assert b"".join(block[0].tobytes() for block in sound) == b"".join(block[0].tobytes() for block in expected)


def test_the_last_fade_goes_to_zero() -> None:
    ones = np.ones((2, 30_000), np.float32)
    sound = whole(faded_out(in_blocks(ones, [700]), 20_000, FADE))
    assert (sound[:, : 20_000 - FADE] == 1).all() and np.abs(sound[:, -1]).max() < 1e-6
    gain = sound[0, -FADE:]
    assert (np.diff(gain) < 0).all() and gain[FADE // 2 - 1] == pytest.approx(2**-0.5, abs=1e-3)
    padded = whole(faded_out(in_blocks(ones, [700]), 50_000, FADE))
    assert (padded[:, :30_000] == 1).all() and not padded[:, 30_000:].any()


def test_fading_out_asks_for_no_block_too_many() -> None:
    blocks = iter([noise(1, 1000), noise(2, 1000)])
    assert whole(faded_out(blocks, 1000, FADE)).shape == (2, 1000)
    assert next(blocks).tobytes() == noise(2, 1000).tobytes()
    with pytest.raises(ValueError, match="channels"):
        next(faded_out(iter([]), 1000, FADE))
