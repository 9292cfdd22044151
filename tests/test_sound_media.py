"""Sound in and out: short clicks at known times through every codec and container, found where they were put.

The files are muxed here, not by the project; its own are judged by Debian's ffmpeg and by soundfile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from splice.errors import MediaError, RequestError
from splice.format import LAYOUTS, SAMPLE_RATES
from splice.media import Part, join_parts, probe_clip
from splice.media.encode import mux_options
from splice.media.sound import Decoded, conform_sound, read_sound
from splice.media.sound_packets import (
    SoundCodec,
    add_sound_stream,
    copied_sound,
    encode_sound,
    read_own_sound,
)
from splice.media.soundtrack import probe_soundtrack, read_soundtrack
from splice.types import Clip, FrameRange, SoundFormat
from tests.footage import make_clip, write_playlist_as_video
from tests.sounds import (
    CLICKS,
    RATE,
    Sound,
    clicks,
    decoded_by_debian,
    encoded,
    misses,
    mux,
    needs_ffmpeg,
    probed_by_debian,
    worst,
)

SECONDS = 2
STEREO = SoundFormat(RATE, "stereo")
FLAC = SoundFormat(RATE, "stereo", "flac")
SAMPLE_SECONDS = 1 / RATE
MILLISECOND = 0.001


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seconds of numbered frames without sound; the h264 has B-frames, so that decoding begins before 0."""
    folder = tmp_path_factory.mktemp("pictures")
    return {
        "h264": make_clip(folder / "h264.mp4", clip_id=1, frame_count=50, gop_frames=12),
        "vp9": make_clip(folder / "vp9.webm", codec="vp9", clip_id=1, frame_count=50),
    }


def read(clip: Clip | Path, sound_format: SoundFormat = STEREO, sample_count: int = SECONDS * RATE) -> Sound:
    clip = clip if isinstance(clip, Clip) else probe_clip(0, clip.name, str(clip))
    return joined(read_sound(clip, sound_format, sample_count))


def joined(blocks: Iterator[Sound]) -> Sound:
    return np.concatenate(list(blocks), axis=1)


def in_blocks(sound: Sound, size: int = 7001) -> Iterator[Sound]:
    return (sound[:, start : start + size] for start in range(0, sound.shape[1], size))


# --- reading --------------------------------------------------------------------------------------------------------

FILES = [
    *((ext, "aac", 48_000) for ext in ("mp4", "mov", "mkv", "ts")),
    *((ext, "aac", 44_100) for ext in ("mp4", "mkv", "ts")),
    *((ext, "libopus", 48_000) for ext in ("mp4", "mkv", "webm", "ts")),
    *((ext, "libmp3lame", 44_100) for ext in ("mp4", "mov", "mkv", "ts")),
    *((ext, "flac", 48_000) for ext in ("mp4", "mkv")),
    *((ext, "pcm_s16le", 48_000) for ext in ("mp4", "mov", "mkv")),
    *((ext, "pcm_s16le", 44_100) for ext in ("mov",)),
    *((ext, "ac3", 48_000) for ext in ("mp4", "mov", "mkv", "ts")),
    ("ts", "mp2", 48_000),
    ("mp4", "aac", 96_000),
    ("mp4", "aac", 8_000),
]


@pytest.mark.parametrize(("extension", "encoder", "rate"), FILES)
def test_a_click_is_heard_when_it_should_be(
    pictures: dict[str, Path], tmp_path: Path, extension: str, encoder: str, rate: int
) -> None:
    base = pictures["vp9" if extension == "webm" else "h264"]
    path = mux(tmp_path / f"clip.{extension}", base, clicks(rate), encoder, rate)
    sound = read(path)
    assert sound.shape == (2, SECONDS * RATE)
    assert sound.dtype == np.float32
    for channel in sound:
        assert worst(misses(channel)) < MILLISECOND
        assert channel.max() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(("extension", "encoder"), [("mp4", "flac"), ("mkv", "flac"), ("mov", "pcm_s24le")])
def test_lossless_sound_is_read_to_the_bit(
    pictures: dict[str, Path], tmp_path: Path, extension: str, encoder: str
) -> None:
    steps = np.random.default_rng(0).integers(-(2**15), 2**15, (2, SECONDS * RATE))
    sound = (steps / 2**15).astype(np.float32)
    path = mux(tmp_path / f"clip.{extension}", pictures["h264"], sound, encoder)
    np.testing.assert_array_equal(read(path), sound)


@pytest.mark.parametrize(
    ("extension", "encoder"),
    [("mp4", "aac"), ("mkv", "aac"), ("ts", "aac"), ("mp4", "flac"), ("mkv", "flac"), ("mov", "pcm_s16le")],
)
def test_sound_that_begins_late_is_preceded_by_silence(
    pictures: dict[str, Path], tmp_path: Path, extension: str, encoder: str
) -> None:
    sound = clicks(seconds=1.2, times=(0.1, 0.7))
    path = mux(tmp_path / f"late.{extension}", pictures["h264"], sound, encoder, delay_seconds=Fraction(1, 2))
    heard = read(path)[0]
    # An mp4's empty edit stands in milliseconds.
    assert worst(misses(heard, (0.6, 1.2))) < MILLISECOND
    assert not heard[: round(0.4 * RATE)].any()
    assert not heard[round(1.75 * RATE) :].any()


def test_sound_before_the_first_frame_is_cut(pictures: dict[str, Path], tmp_path: Path) -> None:
    path = mux(tmp_path / "early.mkv", pictures["h264"], clicks(), "flac")
    clip = replace(probe_clip(0, "early", str(path)), start_seconds=Fraction(1, 2))
    heard = read(clip, sample_count=2 * RATE)[0]
    assert worst(misses(heard, (0.2, 1.0, 1.45))) < 0.5 * SAMPLE_SECONDS
    assert not heard[round(1.5 * RATE) :].any()


@pytest.mark.parametrize("extension", ["mp4", "mov"])
def test_edit_lists_of_picture_and_sound_are_both_honoured(tmp_path: Path, extension: str) -> None:
    path = make_clip(tmp_path / f"hidden.{extension}", clip_id=2, frame_count=55, hidden_frames=5, tone_hz=440.0)
    tone = 0.25 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * RATE) / RATE)
    # A whole sample of delay would make a difference of 0.014.
    assert np.abs(read(path)[0] - tone)[:-2000].max() < 0.008


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_packets_that_are_missing_leave_silence(pictures: dict[str, Path], tmp_path: Path, extension: str) -> None:
    path = mux(tmp_path / f"gap.{extension}", pictures["h264"], clicks(), "flac", dropped=(9, 10))
    heard = read(path)[0]
    assert worst(misses(heard)) < 0.5 * SAMPLE_SECONDS
    hole = slice(9 * 4608, 11 * 4608)
    np.testing.assert_array_equal(heard[hole], 0)


def test_a_clip_without_sound_is_silent_in_blocks(pictures: dict[str, Path]) -> None:
    clip = probe_clip(0, "silent", str(pictures["h264"]))
    blocks = list(read_sound(clip, SoundFormat(RATE, "5.1"), 10 * RATE + 7))
    assert sum(block.shape[1] for block in blocks) == 10 * RATE + 7
    assert all(block.shape[0] == 6 and block.shape[1] <= RATE and not block.any() for block in blocks)


def test_what_is_no_number_is_silence_or_full_scale(pictures: dict[str, Path], tmp_path: Path) -> None:
    sound = clicks()
    sound[:, 1000], sound[:, 2000], sound[:, 3000] = np.nan, np.inf, -np.inf
    heard = read(mux(tmp_path / "floats.mov", pictures["h264"], sound, "pcm_f32le"))
    assert (heard[:, [1000, 2000, 3000]] == [0, 1, -1]).all()
    soundfile.write(tmp_path / "floats.wav", sound.T, RATE, subtype="FLOAT")
    music = joined(read_soundtrack(str(tmp_path / "floats.wav"), STEREO))
    assert (music[:, [1000, 2000, 3000]] == [0, 1, -1]).all()


@pytest.mark.parametrize(("seconds", "times"), [(0.3, (0.1,)), (10.0, (0.1, 1.9))])
def test_sound_shorter_or_longer_than_the_picture_is_made_to_fit(
    pictures: dict[str, Path], tmp_path: Path, seconds: float, times: Sequence[float]
) -> None:
    path = mux(tmp_path / "odd.mp4", pictures["h264"], clicks(seconds=seconds, times=times), "aac")
    heard = read(path)
    assert heard.shape == (2, SECONDS * RATE)
    assert worst(misses(heard[0], times)) < MILLISECOND


def test_sound_of_less_than_one_packet_is_read(pictures: dict[str, Path], tmp_path: Path) -> None:
    path = mux(tmp_path / "tiny.mkv", pictures["h264"], np.full((2, 5), 0.25, np.float32), "flac", rate=44_100)
    heard = read(path)
    assert heard.shape == (2, SECONDS * RATE)
    assert heard[0, :5] == pytest.approx(0.25, abs=0.05)
    assert np.abs(heard[:, 40:]).max() < 0.01


def test_one_channel_keeps_its_level_on_two_and_two_become_their_mean(
    pictures: dict[str, Path], tmp_path: Path
) -> None:
    mono = mux(tmp_path / "mono.mov", pictures["h264"], clicks(channels=1), "pcm_s24le", layout="mono")
    heard = read(mono)
    np.testing.assert_array_equal(heard[0], heard[1])
    np.testing.assert_allclose(heard[0], clicks()[0], atol=2**-22)
    sides = clicks() * np.float32([[1.0], [-0.5]])
    stereo = mux(tmp_path / "stereo.mov", pictures["h264"], sides, "pcm_s24le")
    np.testing.assert_allclose(read(stereo, SoundFormat(RATE, "mono"))[0], sides.mean(axis=0), atol=2**-22)


def test_surround_keeps_its_channels_and_is_mixed_down(pictures: dict[str, Path], tmp_path: Path) -> None:
    times = [0.2 + 0.25 * channel for channel in range(6)]
    sound = np.concatenate([clicks(times=(time,), channels=1) for time in times])
    path = mux(tmp_path / "surround.ts", pictures["h264"], sound, "ac3", layout="5.1")
    for layout in ("5.1", "5.1(side)"):
        heard = read(path, SoundFormat(RATE, layout))
        assert [int(heard[:, round(time * RATE)].argmax()) for time in times] == list(range(6))
    stereo = np.array([read(path)[:, round(time * RATE)] for time in times])
    expected = np.array([[1, 0], [0, 1], [0.707, 0.707], [0, 0], [0.707, 0], [0, 0.707]]) / 2
    np.testing.assert_allclose(stereo, expected, atol=0.01)


def test_eight_channels_are_read(pictures: dict[str, Path], tmp_path: Path) -> None:
    times = [0.2 + 0.2 * channel for channel in range(8)]
    sound = np.concatenate([clicks(times=(time,), channels=1) for time in times])
    path = mux(tmp_path / "eight.mp4", pictures["h264"], sound, "aac", layout="7.1")
    heard = read(path, SoundFormat(44_100, "7.1"), 2 * 44_100)
    assert [int(heard[:, round(time * 44_100)].argmax()) for time in times if time != 0.8] == [0, 1, 2, 4, 5, 6, 7]


def test_garbled_packets_are_an_error_but_at_the_start(pictures: dict[str, Path], tmp_path: Path) -> None:
    whole = mux(tmp_path / "joined.mkv", pictures["h264"], clicks(), "ac3", garbled=(0, 1))
    assert worst(misses(read(whole)[0], CLICKS[1:])) < MILLISECOND
    broken = mux(tmp_path / "broken.mkv", pictures["h264"], clicks(), "ac3", garbled=(30,))
    with pytest.raises(MediaError, match=r"clip 0 \(broken.mkv\).*sound \(ac3\).*export it again"):
        read(broken)
    for count in (20, 62):
        hopeless = mux(tmp_path / "hopeless.mkv", pictures["h264"], clicks(), "ac3", garbled=range(count))
        with pytest.raises(MediaError, match=r"clip 0 \(hopeless.mkv\)"):
            read(hopeless)
    short = mux(tmp_path / "short.mkv", pictures["h264"], clicks(seconds=0.1), "ac3", garbled=range(4))
    with pytest.raises(MediaError, match=r"clip 0 \(short.mkv\)"):
        read(short)


def test_a_clip_that_is_gone_is_an_error_of_its_own(pictures: dict[str, Path], tmp_path: Path) -> None:
    path = mux(tmp_path / "gone.mp4", pictures["h264"], clicks(), "aac")
    clip = probe_clip(0, "gone", str(path))
    path.unlink()
    with pytest.raises(MediaError, match=r"clip 0 \(gone\).*no such file"):
        read(clip)


@pytest.mark.parametrize("rates", [(44_100, 48_000), (48_000, 44_100), (96_000, 48_000), (8_000, 48_000)])
def test_an_impulse_keeps_its_time_through_resampling(rates: tuple[int, int]) -> None:
    rate, wanted = rates
    for count in (3, 100, rate):
        for place in {0, count // 2, count - 1}:
            sound = np.zeros((1, count), np.float32)
            sound[0, place] = 1
            blocks = (Decoded(block, rate, "mono", None) for block in in_blocks(sound, 1024))
            heard = joined(conform_sound(blocks, SoundFormat(wanted, "mono"), "impulse"))
            assert heard.shape[1] == round(Fraction(count * wanted, rate))
            found = int(np.abs(heard[0]).argmax())
            assert abs(found - min(heard.shape[1] - 1, place * wanted / rate)) <= 1


def test_rate_and_layout_may_change_on_the_way() -> None:
    sound = clicks(44_100, channels=1)
    blocks = [
        Decoded(clicks(times=CLICKS[:2], seconds=1), RATE, "stereo", Fraction(0)),
        Decoded(sound[:, 44_100:], 44_100, "mono", Fraction(1)),
    ]
    heard = joined(conform_sound(blocks, STEREO, "changing"))
    assert heard.shape == (2, SECONDS * RATE)
    assert worst(misses(heard[1])) < 1.5 * SAMPLE_SECONDS


# --- soundtrack -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_music_is_read_from_its_first_sample_on(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, clicks(44_100).T, 44_100)
    probe_soundtrack(str(tmp_path / name))
    heard = joined(read_soundtrack(str(tmp_path / name), STEREO))
    assert heard.shape == (2, SECONDS * RATE)
    assert worst(misses(heard[0])) < MILLISECOND


@pytest.mark.parametrize(("name", "encoder"), [("a.m4a", "aac"), ("a.mka", "libopus")])
def test_music_that_soundfile_does_not_know_is_read(tmp_path: Path, name: str, encoder: str) -> None:
    with av.open(str(tmp_path / name), "w") as output:
        stream = output.add_stream(encoder, rate=RATE, layout="stereo")
        for packet in encoded(stream, clicks(), RATE, "stereo"):
            output.mux_one(packet)
    probe_soundtrack(str(tmp_path / name))
    heard = joined(read_soundtrack(str(tmp_path / name), STEREO))
    assert worst(misses(heard[0])) < MILLISECOND


def test_music_in_surround_keeps_its_channels(tmp_path: Path) -> None:
    times = [0.2 + 0.25 * channel for channel in range(6)]
    sound = np.concatenate([clicks(times=(time,), channels=1) for time in times])
    soundfile.write(tmp_path / "six.wav", sound.T, RATE)
    heard = joined(read_soundtrack(str(tmp_path / "six.wav"), SoundFormat(RATE, "5.1")))
    assert [int(heard[:, round(time * RATE)].argmax()) for time in times] == list(range(6))


def test_what_is_no_music_is_refused(pictures: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("No sound, whatever its name says.\n" * 20)
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "zero.wav", np.zeros((0, 2)), RATE)
    soundfile.write(tmp_path / "nine.wav", np.zeros((RATE, 9)), RATE)
    soundfile.write(tmp_path / "target.mp3", clicks().T, RATE)
    write_playlist_as_video(tmp_path / "list.mp3", tmp_path / "target.mp3", "m3u8")
    refused = {
        tmp_path / "missing.wav": "no such file",
        tmp_path: "is not a file",
        tmp_path / "text.wav": "can't be read as sound",
        tmp_path / "empty.wav": "can't be read as sound",
        tmp_path / "list.mp3": "can't be read as sound",
        tmp_path / "zero.wav": "length of zero",
        tmp_path / "nine.wav": "9 channels",
        pictures["h264"]: "no sound in it",
    }
    for path, reason in refused.items():
        with pytest.raises(RequestError, match=reason):
            probe_soundtrack(str(path))


def test_no_music_by_a_name_that_would_be_believed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "music.raw").write_bytes(b"no music at all" * 100)
    with pytest.raises(RequestError, match="can't be read as sound"):
        probe_soundtrack(str(tmp_path / "music.raw"))


def test_music_that_is_gone_by_then_is_an_error_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        joined(read_soundtrack(str(tmp_path / "gone.wav"), STEREO))


# --- encoding -------------------------------------------------------------------------------------------------------


def write(
    path: Path, sound: Sound, sound_format: SoundFormat, codec: SoundCodec, boundaries: Sequence[int] = ()
) -> Path:
    with av.open(str(path), "w", options=mux_options(Fraction(25))) as output:
        stream = add_sound_stream(output, sound_format, codec)
        for packet in encode_sound(stream, in_blocks(sound), boundaries):
            output.mux_one(packet)
    return path


def extend(path: Path, source: Path, stop_sample: int, sound: Sound, boundaries: Sequence[int] = ()) -> Path:
    """A copy up to ``stop_sample``, then new sound."""
    with av.open(str(path), "w") as output:
        stream = add_sound_stream(output, FLAC, "flac")
        for packet in copied_sound(source, stop_sample):
            packet.stream = stream
            output.mux_one(packet)
        for packet in encode_sound(stream, in_blocks(sound), boundaries):
            packet.pts, packet.dts = (packet.pts or 0) + stop_sample, (packet.dts or 0) + stop_sample
            output.mux_one(packet)
    return path


def noise(count: int, channels: int = 2, seed: int = 0) -> Sound:
    """In steps of 24 bits, up to full scale."""
    steps = np.random.default_rng(seed).integers(-(2**23), 2**23, (channels, count))
    return (steps / 2**23).astype(np.float32)


@needs_ffmpeg
def test_flac_of_several_runs_copied_twice_is_exact_to_the_bit(tmp_path: Path) -> None:
    first, second, third = noise(100_017, seed=1), noise(60_000, seed=2), noise(1, seed=3)
    a = write(tmp_path / "a.mp4", first, FLAC, "flac", boundaries=[10_000, 10_001, 50_000])
    b = extend(tmp_path / "b.mp4", a, 50_000, second, boundaries=[30_000])
    c = extend(tmp_path / "c.mp4", b, 80_000, third)
    expected = {a: first, b: np.concatenate([first[:, :50_000], second], axis=1)}
    expected[c] = np.concatenate([expected[b][:, :80_000], third], axis=1)
    for path, sound in expected.items():
        np.testing.assert_array_equal(decoded_by_debian(path), sound)
        assert int(probed_by_debian(path)["duration_ts"]) == sound.shape[1]
        np.testing.assert_array_equal(joined(read_own_sound(path, FLAC, 0, sound.shape[1])), sound)
    for start, stop in ((49_999, 50_001), (70_000, 80_001), (12_345, 12_346), (0, 1)):
        np.testing.assert_array_equal(joined(read_own_sound(c, FLAC, start, stop)), expected[c][:, start:stop])
    assert not list(read_own_sound(c, FLAC, 7, 7))
    assert not list(copied_sound(c, 0))


def test_flac_that_does_not_reach_or_end_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(20_000), FLAC, "flac", boundaries=[10_000])
    for stop in (9_999, 10_001, 20_001):
        with pytest.raises(MediaError, match=f"no packet of sound ends at sample {stop}"):
            list(copied_sound(path, stop))
    with pytest.raises(MediaError, match="ends at sample 20000"):
        list(read_own_sound(path, FLAC, 15_000, 20_001))
    with pytest.raises(MediaError, match="needed are"):
        list(read_own_sound(path, SoundFormat(44_100, "stereo", "flac"), 0, 1))
    aac = write(tmp_path / "aac.mp4", noise(20_000), STEREO, "aac")
    with pytest.raises(MediaError, match="no FLAC track"):
        list(copied_sound(aac, 1024))
    with pytest.raises(MediaError, match="can't be read"):
        list(copied_sound(tmp_path / "missing.mp4", 1024))


@pytest.mark.parametrize("boundaries", [[0], [10, 10], [20, 10], [20_001]])
def test_boundaries_out_of_order_are_refused(tmp_path: Path, boundaries: list[int]) -> None:
    with pytest.raises(ValueError, match="boundaries"):
        write(tmp_path / "a.mp4", noise(20_000), FLAC, "flac", boundaries)


def test_only_flac_has_boundaries(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only FLAC can be cut"):
        write(tmp_path / "a.mp4", noise(20_000), STEREO, "aac", [1024])


def test_flac_takes_what_is_too_loud_or_too_fine(tmp_path: Path) -> None:
    sound = np.float32([[1.0, -1.0, 1.5, -1.5, 0.3, 2**-25]])
    path = write(tmp_path / "a.mp4", sound, SoundFormat(RATE, "mono", "flac"), "flac")
    heard = joined(read_own_sound(path, SoundFormat(RATE, "mono", "flac"), 0, 6))
    top = 1 - 2**-23
    np.testing.assert_array_equal(heard, np.float32([[top, -1, top, -1, round(0.3 * 2**23) / 2**23, 0]]))


@needs_ffmpeg
@pytest.mark.parametrize("count", [960, 1025, 96_000])
@pytest.mark.parametrize(("codec", "packet_samples"), [("aac", 1024), ("opus", 960), ("flac", 1)])
def test_a_track_lasts_as_long_as_its_samples(
    tmp_path: Path, codec: SoundCodec, packet_samples: int, count: int
) -> None:
    path = write(tmp_path / "a.mp4", noise(count) / 4, replace(STEREO, codec=codec), codec)
    found = probed_by_debian(path)
    # The edit list, which hides what the encoder puts in front, stands in ticks of the movie, 12,800 a second.
    inexact_samples = 0 if codec == "flac" else 4
    assert abs(int(found["duration_ts"]) - count) <= inexact_samples
    assert float(found["start_time"]) == 0
    by_debian = decoded_by_debian(path).shape[1]
    with av.open(str(path)) as container:
        by_us = sum(frame.samples for frame in container.decode(audio=0))
    assert by_debian == by_us
    assert count - inexact_samples <= by_us < count + packet_samples


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["aac", "opus", "flac"])
def test_sound_stays_with_pictures_that_have_b_frames(
    pictures: dict[str, Path], tmp_path: Path, codec: SoundCodec
) -> None:
    path = tmp_path / "joined.mp4"

    def add_sound(output: Any) -> Iterator[Any]:
        return encode_sound(add_sound_stream(output, STEREO, codec), in_blocks(clicks()))

    join_parts([Part(pictures["h264"], FrameRange(0, 50))], path, Fraction(25), add_sound=add_sound)
    assert worst(misses(read(path)[0])) <= 1.5 * SAMPLE_SECONDS
    heard = decoded_by_debian(path)[0]
    assert worst(misses(np.array(heard))) <= 1.5 * SAMPLE_SECONDS
    assert float(probed_by_debian(path, "v:0")["start_time"]) == float(probed_by_debian(path)["start_time"]) == 0


@needs_ffmpeg
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", ["aac", "opus", "flac"])
def test_every_channel_stays_where_it_is(tmp_path: Path, codec: SoundCodec, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    slot = 4000
    sound = np.zeros((channels, channels * slot), np.float32)
    # Low enough for the channel of effects, that codecs keep nothing else of.
    wave = 0.5 * np.sin(2 * np.pi * 80 * np.arange(slot) / RATE)
    for channel in range(channels):
        sound[channel, channel * slot : (channel + 1) * slot] = wave
    path = write(tmp_path / "a.mp4", sound, SoundFormat(RATE, layout, codec), codec)
    heard = decoded_by_debian(path, channels)[:, : sound.shape[1]]
    power = np.square(heard).reshape(channels, channels, slot)[:, :, 500:-500].sum(axis=2)
    assert power.argmax(axis=0).tolist() == list(range(channels))


@pytest.mark.parametrize("rate", SAMPLE_RATES["aac"])
def test_aac_is_encoded_at_all_its_rates(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.mp4", clicks(rate, 0.5, (0.2,)), SoundFormat(rate, "stereo"), "aac")
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.sample_rate == rate
        assert abs(Fraction(stream.duration or 0) * (stream.time_base or 0) - Fraction(1, 2)) < Fraction(1, 5000)


def test_aac_is_transparent(tmp_path: Path) -> None:
    """On music its noise lies more than 45 dB below; with the encoder's default search it does not."""
    bench = pytest.importorskip("bench.footage")
    try:
        source = bench.BIG_BUCK_BUNNY.path()
    except bench.FootageMissing as missing:
        pytest.skip(str(missing))
    music = read(source, sample_count=4 * RATE)
    path = write(tmp_path / "a.mp4", music, STEREO, "aac")
    with av.open(str(path)) as container:
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    error = heard[:, : music.shape[1]] - music
    assert 10 * np.log10(np.square(music).mean() / np.square(error).mean()) > 45
