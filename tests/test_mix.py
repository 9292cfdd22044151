"""Sound of whole videos: in its place to the sample after many joins, level across seams, under music, in a loop."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from bench.chain import join
from tests.footage import make_clip
from tests.sounds import Sound, clicks, decoded_by_debian, misses, mux, probed_by_debian, worst

RATE = 48_000
NTSC = Fraction(30_000, 1001)
MILLISECOND = 0.001
FADE = 0.02


def add_sound(folder: Path, name: str, sound: Sound, encoder: str = "aac", hertz: int = RATE, **options: Any) -> Path:
    """A clip of numbered frames with ``sound``."""
    silent = make_clip(folder / f"silent_{name}", **options)
    layout = "mono" if len(sound) == 1 else "stereo"
    return mux(folder / name, silent, sound, encoder, hertz, layout)


def decode(path: Path, channels: int = 2) -> Sound:
    """The sound of a video by PyAV, as long as its track says."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.duration is not None and stream.time_base is not None
        count = round(stream.duration * stream.time_base * stream.sample_rate)
        blocks = [frame.to_ndarray() for frame in av_float(container, stream)]
    return np.concatenate(blocks, axis=1)[:, :count]


def av_float(container: Any, stream: Any) -> Any:
    resampler = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        yield from resampler.resample(frame)


CLICK_TIMES = (0.1, 0.53, 0.9)


def many_clips(folder: Path) -> list[tuple[Path, Fraction, int]]:
    """17 clips of about a second at four rates, some silent, with clicks; (path, rate, frames) each."""
    rates = [Fraction(24), Fraction(25), NTSC, Fraction(30)]
    kinds: dict[tuple[Fraction, str], Path] = {}
    clips = []
    for index in range(17):
        rate = rates[index % 4]
        frames = {24: 25, 25: 26, 30: 31}[round(rate)]
        kind = ("48k", "44k", "silent")[index % 3]
        made: dict[str, Any] = {"clip_id": 1, "frame_count": frames, "rate": rate, "size": (64, 48), "gop_frames": 12}
        if (rate, kind) not in kinds:
            name = f"{round(rate * 100)}_{kind}.mp4"
            sample_rate = 44_100 if kind == "44k" else RATE
            kinds[rate, kind] = (
                make_clip(folder / name, **made)
                if kind == "silent"
                else add_sound(folder, name, clicks(sample_rate, frames / rate, CLICK_TIMES), hertz=sample_rate, **made)
            )
        clips.append((kinds[rate, kind], rate, frames))
    return clips


@pytest.mark.parametrize("replace_mode", [False, True], ids=["insert", "replace"])
@pytest.mark.parametrize("first", [0, 2], ids=["24", "29.97"])
def test_clicks_are_in_their_place_after_16_joins(tmp_path: Path, replace_mode: bool, first: int) -> None:
    clips = many_clips(tmp_path)[first:] + many_clips(tmp_path)[:first]
    gap = 4
    video = join([path for path, _, _ in clips], tmp_path / "run", gap_frame_count=gap, replace_mode=replace_mode)

    rate = clips[0][1]
    start_frame, expected = 0, []
    for path, own_rate, frames in clips:
        if "silent" not in path.name:
            expected += [float(start_frame / rate) + time for time in CLICK_TIMES]
        start_frame += round(frames * rate / own_rate) + (0 if replace_mode else gap)
    total = start_frame - (0 if replace_mode else gap)

    heard = decode(video)
    found = misses(heard[0], expected, sample_rate_of(video))
    assert worst(found) < MILLISECOND
    stream = {kind: probed_by_debian(video, kind) for kind in ("a:0", "v:0")}
    assert float(stream["a:0"]["start_time"]) == float(stream["v:0"]["start_time"]) == 0
    assert abs(heard.shape[1] / sample_rate_of(video) - total / rate) <= 1024 / sample_rate_of(video)


def sample_rate_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return container.streams.audio[0].sample_rate


MATERIAL = {
    "like noise": ("noise", "noise"),
    "unlike": ("noise", "tone"),
    "the same tone": ("tone", "tone"),
    "the same tone in opposite phase": ("tone", "opposite tone"),
}


def material(kind: str, seconds: float, seed: int) -> Sound:
    count = round(seconds * RATE)
    if kind == "noise":
        return (0.1 * np.random.default_rng(seed).standard_normal((2, count))).astype(np.float32)
    wave = 0.1 * 2**0.5 * np.sin(2 * np.pi * 500 * np.arange(count) / RATE) * (-1 if "opposite" in kind else 1)
    return np.tile(wave.astype(np.float32), (2, 1))


@pytest.mark.parametrize("replace_mode", [False, True], ids=["insert", "replace"])
@pytest.mark.parametrize("kinds", MATERIAL)
def test_the_level_stays_and_nothing_clicks_across_a_seam(tmp_path: Path, kinds: str, replace_mode: bool) -> None:
    made = {"frame_count": 50, "size": (64, 48), "gop_frames": 12}
    sounds = [material(kind, 2, seed) for seed, kind in enumerate(MATERIAL[kinds])]
    clips = [add_sound(tmp_path, f"{i}.mov", sound, "pcm_s24le", clip_id=i, **made) for i, sound in enumerate(sounds)]
    # FLAC, so that the last encoding adds no steps of its own.
    video = join(clips, tmp_path / "run", gap_frame_count=15, replace_mode=replace_mode, audio_codec="flac")

    heard = decode(video)
    window = round(0.05 * RATE)
    levels = [float(np.sqrt(np.mean(heard[:, at : at + window] ** 2))) for at in range(0, heard.shape[1] - window, 480)]
    decibels = 20 * np.log10(np.array(levels) / 0.1)
    assert np.abs(decibels).max() < 3
    largest = max(np.abs(np.diff(sound, axis=1)).max() for sound in sounds)
    assert np.abs(np.diff(heard, axis=1)).max() < 1.25 * largest
    gap = 0 if replace_mode else round(0.6 * RATE)
    own = 2 * RATE - round(FADE * RATE)
    assert heard.shape[1] == 4 * RATE + gap
    assert np.abs(heard[:, :own] - sounds[0][:, :own]).max() < 2**-22, "sound away from the seam is as it was"
    assert np.abs(heard[:, -own:] - sounds[1][:, -own:]).max() < 2**-22


def test_loud_sounds_that_meet_never_exceed_full_scale_and_are_untouched_elsewhere(tmp_path: Path) -> None:
    at = np.arange(2 * RATE) / RATE
    loud = [np.tile((0.99 * np.sin(2 * np.pi * pitch * at)).astype(np.float32), (2, 1)) for pitch in (440, 660)]
    clips = [
        add_sound(tmp_path, f"{i}.mov", sound, "pcm_s24le", clip_id=i, frame_count=50, size=(64, 48))
        for i, sound in enumerate(loud)
    ]
    heard = decode(join(clips, tmp_path / "run", gap_frame_count=20, audio_codec="flac"))
    # A sum that was merely cut off would lie flat at full scale.
    assert np.abs(heard).max() <= 1 and np.mean(np.abs(heard) > 0.9999) < 0.01
    own = 2 * RATE - round(FADE * RATE)
    assert np.abs(heard[:, :own] - loud[0][:, :own]).max() < 2**-22


def test_silence_mode_fades_and_is_silent_in_the_gap(tmp_path: Path) -> None:
    clips = [
        add_sound(tmp_path, f"{i}.mov", material("noise", 1, i), "pcm_s24le", clip_id=i, frame_count=25, size=(64, 48))
        for i in range(2)
    ]
    heard = decode(join(clips, tmp_path / "run", gap_frame_count=10, audio="silence", audio_codec="flac"))
    fade, gap = round(FADE * RATE), round(0.4 * RATE)
    assert not heard[:, RATE : RATE + gap].any()
    first, last = heard[:, RATE - fade : RATE], heard[:, RATE + gap : RATE + gap + fade]
    assert np.abs(first[:, :10]).mean() > 5 * np.abs(first[:, -10:]).mean()
    assert np.abs(last[:, -10:]).mean() > 5 * np.abs(last[:, :10]).mean()


@pytest.mark.parametrize("replace_mode", [False, True], ids=["insert", "replace"])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_loop_is_heard_without_a_step_where_it_closes(tmp_path: Path, strategy: str, replace_mode: bool) -> None:
    tone = material("tone", 1, 0)
    clips = [
        add_sound(tmp_path, f"{i}.mov", tone, "pcm_s24le", clip_id=i, frame_count=25, size=(64, 48), gop_frames=5)
        for i in range(3)
    ]
    video = join(
        clips, tmp_path / "run", gap_frame_count=6, loop=True, replace_mode=replace_mode, strategy=strategy,
        audio_codec="flac",
    )  # fmt: skip
    heard = decode(video)
    assert heard.shape[1] == (3 if replace_mode else 3.72) * RATE
    around = np.concatenate([heard[:, -RATE // 2 :], heard[:, : RATE // 2]], axis=1)
    assert np.abs(np.diff(around, axis=1)).max() < 1.25 * np.abs(np.diff(tone, axis=1)).max()
    assert np.sqrt(np.mean(around**2)) == pytest.approx(0.1, rel=0.1)


def test_chain_and_stitch_sound_the_same_to_the_bit(tmp_path: Path) -> None:
    clips = [
        add_sound(tmp_path, f"{i}.mp4", material(kind, 1, i), clip_id=i, frame_count=25, size=(64, 48))
        for i, kind in enumerate(("noise", "tone", "noise"))
    ]
    for codec in ("aac", "flac", "opus"):
        videos = [
            join(clips, tmp_path / f"{codec}_{strategy}", gap_frame_count=5, strategy=strategy, audio_codec=codec)
            for strategy in ("sequential", "parallel")
        ]
        chain, stitch = (decode(video) for video in videos)
        assert np.array_equal(chain, stitch), codec


def test_no_sound_no_track_and_drop_means_drop(tmp_path: Path) -> None:
    silent = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=12, size=(64, 48)) for i in range(2)]
    with_sound = add_sound(tmp_path, "sound.mp4", clicks(RATE, 0.5, (0.2,)), clip_id=2, frame_count=12, size=(64, 48))
    for name, clips, audio in (("silent", silent, "bridge"), ("dropped", [silent[0], with_sound], "drop")):
        with av.open(str(join(clips, tmp_path / name, gap_frame_count=3, audio=audio))) as container:
            assert not container.streams.audio


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_music_is_laid_under_the_result_repeated_and_faded_out(tmp_path: Path, suffix: str) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=50, size=(64, 48)) for i in range(2)]
    at = np.arange(RATE) / RATE
    wave = (0.2 * np.sin(2 * np.pi * 300 * at)).astype(np.float32)
    music = tmp_path / f"music.{suffix}"
    if suffix == "m4a":
        mux(music.with_suffix(".mp4"), clips[0], np.tile(wave, (2, 1)), "aac").rename(music)
    else:
        soundfile.write(music, np.tile(wave, (2, 1)).T, RATE)
    heard = decode(join(clips, tmp_path / "run", gap_frame_count=5, soundtrack=str(music), soundtrack_gain_db=-6.0))
    assert abs(heard.shape[1] - 4.2 * RATE) <= 1024
    level = [np.sqrt(np.mean(heard[:, start : start + RATE // 10] ** 2)) for start in range(0, 4 * RATE, RATE // 10)]
    # 0.2 at -6 dB; the 4.2 s are four times the music; the last second fades.
    assert level[:31] == pytest.approx([0.1 / 2**0.5] * 31, rel=0.15)
    assert level[-1] < 0.5 * level[30] and np.abs(heard[:, -100:]).max() < 0.01


def test_music_over_loud_clips_never_exceeds_full_scale(tmp_path: Path) -> None:
    loud = np.tile((0.9 * np.sin(2 * np.pi * 200 * np.arange(2 * RATE) / RATE)).astype(np.float32), (2, 1))
    clips = [
        add_sound(tmp_path, f"{i}.mov", loud, "pcm_s24le", clip_id=i, frame_count=50, size=(64, 48)) for i in range(2)
    ]
    soundfile.write(tmp_path / "music.wav", loud.T, RATE)
    video = join(clips, tmp_path / "run", gap_frame_count=5, soundtrack=str(tmp_path / "music.wav"), audio_codec="flac")
    heard = decode(video)
    # Merely cut off, the sum would lie at full scale for more than half of the time.
    assert np.abs(heard).max() <= 1 and np.mean(np.abs(heard) > 0.9999) < 0.02
    assert np.array_equal(heard, decoded_by_debian(video)[:, : heard.shape[1]])
