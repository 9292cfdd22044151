"""What every frame of a timeline looks like, and what about a clip differs from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from splice.errors import RequestError
from splice.request import STANDARD_RATES, JoinRequest
from splice.types import UNKNOWN_SOUND, Clip, ColorTags, SoundFormat, VideoFormat

SAME_TRANSFER = ("bt709", "smpte170m", "bt2020-10", "bt2020-12")
"""Names of one and the same curve: ITU-T H.273 (07/2021), table 3, values 1, 6, 14 and 15."""

SAME_MATRIX = ("smpte170m", "bt470bg")
"""Names of one and the same matrix: ITU-T H.273 (07/2021), table 4, values 5 and 6."""

DEFAULT_SAMPLE_RATE = 48_000

SAMPLE_RATES: dict[str, tuple[int, ...]] = {
    "aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    "flac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000, 176400, 192000),
    "opus": (48000,),
}
"""What the output's codec, and FLAC between joins, can carry, in hertz."""

LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.0(side)", "5.1", "5.1(side)", "7.1")
"""Channel layouts that every codec of the output has, by FFmpeg's names."""


def choose_format(request: JoinRequest, clips: Sequence[Clip]) -> VideoFormat:
    """The first clip's format, changed as far as the request says.

    Raises RequestError: HDR mixed with SDR, or aspect_ratio and resolution that contradict each other.
    """
    first = clips[0]
    _refuse_mixed_range(clips)
    rotation = first.rotation if all(clip.rotation == first.rotation for clip in clips) else 0
    standardised = request.aspect_ratio is not None or request.resolution is not None
    shares_aspect = all(_upright_aspect(clip) == _upright_aspect(first) for clip in clips)
    aspect = _upright_aspect(first) if shares_aspect and not standardised else Fraction(1)
    width, height = _target_size(request, first, aspect)
    if rotation in (90, 270):
        width, height, aspect = height, width, 1 / aspect
    return VideoFormat(
        codec=_output_codec(first),
        width=_even(width),
        height=_even(height),
        rate=request.rate or (first.rate if first.is_constant_rate else _nearest_standard(first.rate)),
        bit_depth=8 if first.bit_depth == 8 else 10,
        color=_output_color(first.color),
        sample_aspect_ratio=aspect,
        rotation=rotation,
    )


def conform_reasons(clip: Clip, video_format: VideoFormat) -> tuple[str, ...]:
    """What must change about the clip's pictures, for the report; empty where they fit as they are."""
    here, there = clip.color, video_format.color
    facts = (
        ("size", (clip.width, clip.height), (video_format.width, video_format.height)),
        ("rate", _rate_of(clip), video_format.rate),
        ("pixel format", clip.pixel_format.replace("yuvj", "yuv"), video_format.pixel_format),
        ("rotation", clip.rotation, video_format.rotation),
        ("mirrored", clip.is_mirrored, False),
        ("sample aspect", clip.sample_aspect_ratio, video_format.sample_aspect_ratio),
        ("matrix", canonical(here.matrix, SAME_MATRIX), canonical(there.matrix, SAME_MATRIX)),
        ("primaries", here.primaries, there.primaries),
        ("transfer", canonical(here.transfer, SAME_TRANSFER), canonical(there.transfer, SAME_TRANSFER)),
        ("range", _range_name(here), _range_name(there)),
    )
    reasons = [f"{what} {_say(got)} -> {_say(wanted)}" for what, got, wanted in facts if got != wanted]
    return (*reasons, "interlaced") if clip.is_interlaced else tuple(reasons)


def encode_reason(clip: Clip, video_format: VideoFormat) -> str:
    """Why none of the clip's packets may be copied into the timeline; empty where they may."""
    if reasons := conform_reasons(clip, video_format):
        return f"conformed: {', '.join(reasons)}"
    if clip.codec != video_format.codec:
        return f"codec {clip.codec} -> {video_format.codec}"
    return clip.uncut_reason


def choose_sound_format(request: JoinRequest, clips: Sequence[Clip]) -> SoundFormat | None:
    """Rate and layout of the first clip that has sound; 48 kHz stereo where there is only music; None for silence.

    A rate or layout that the output's codec does not have becomes 48 kHz, or stereo.
    Raises RequestError where a clip's sound is of a codec that can't be decoded.
    """
    if request.audio != "drop":
        _refuse_unknown_sound(clips)
    sounds = [clip.sound for clip in clips if clip.sound and request.audio != "drop"]
    if not sounds and request.soundtrack is None:
        return None
    rate, layout = (sounds[0].sample_rate, sounds[0].layout) if sounds else (DEFAULT_SAMPLE_RATE, "stereo")
    return SoundFormat(
        sample_rate=rate if rate in SAMPLE_RATES[request.audio_codec] else DEFAULT_SAMPLE_RATE,
        layout=layout if layout in LAYOUTS else "stereo",
        codec=request.audio_codec,
    )


def _refuse_unknown_sound(clips: Sequence[Clip]) -> None:
    for clip in clips:
        if clip.sound == UNKNOWN_SOUND:
            raise RequestError(
                f"{clip.label}: its sound is of a codec that can't be decoded; convert it, for example to AAC, "
                f"or leave all sound out with audio='drop'"
            )


def conformed_frame_count(clip: Clip, video_format: VideoFormat) -> int:
    """Frames of the clip at the timeline's rate: round(duration * rate), halves up, at least 1."""
    if clip.is_constant_rate and clip.rate == video_format.rate:
        return clip.frame_count
    return max(1, math.floor(clip.duration_seconds * video_format.rate + Fraction(1, 2)))


def shown_size(clip: Clip) -> tuple[Fraction, Fraction]:
    """Width and height as shown: square pixels, upright."""
    width, height = clip.width * clip.sample_aspect_ratio, Fraction(clip.height)
    return (height, width) if clip.rotation in (90, 270) else (width, height)


def _target_size(request: JoinRequest, first: Clip, aspect: Fraction) -> tuple[int, int]:
    """Upright width and height, in pixels of aspect ``aspect``, upright too, where that is not square."""
    if request.resolution is not None:
        width, height = request.resolution
        _check_aspect(request.aspect_ratio, width, height)
        return width, height
    if aspect != 1:
        return (first.height, first.width) if first.rotation in (90, 270) else (first.width, first.height)
    shown_width, shown_height = shown_size(first)
    if request.aspect_ratio is None:
        return round(shown_width), round(shown_height)
    ratio = Fraction(request.aspect_ratio.replace(":", "/"))
    return round(min(shown_width, shown_height * ratio)), round(min(shown_height, shown_width / ratio))


def _upright_aspect(clip: Clip) -> Fraction:
    """Width over height of one pixel as shown: a quarter turn lays it on its side."""
    return 1 / clip.sample_aspect_ratio if clip.rotation in (90, 270) else clip.sample_aspect_ratio


def _check_aspect(aspect_ratio: str | None, width: int, height: int) -> None:
    if aspect_ratio is None:
        return
    ratio = Fraction(aspect_ratio.replace(":", "/"))
    if abs(width - height * ratio) >= 2 and abs(height - width / ratio) >= 2:
        raise RequestError(
            f"aspect_ratio {aspect_ratio} and resolution {width}x{height} contradict each other; leave one of them out"
        )


def _refuse_mixed_range(clips: Sequence[Clip]) -> None:
    hdr = [clip for clip in clips if clip.color.is_hdr]
    other = [clip for clip in clips if hdr and clip.color.transfer != hdr[0].color.transfer]
    if other:
        raise RequestError(
            f"{hdr[0].label} is HDR ({hdr[0].color.transfer}) but {other[0].label} is {other[0].color.transfer}; "
            f"convert one of them first, so that all clips are alike"
        )


def _output_codec(first: Clip) -> Literal["h264", "hevc"]:
    return "hevc" if first.codec == "hevc" else "h264"


def _output_color(color: ColorTags) -> ColorTags:
    """The first clip's colour; BT.709 where it is stored as RGB."""
    matrix = "bt709" if color.matrix == "gbr" else color.matrix
    return ColorTags(matrix, color.primaries, color.transfer, color.full_range and color.matrix != "gbr", color.assumed)


def _nearest_standard(rate: Fraction) -> Fraction:
    return min(STANDARD_RATES, key=lambda standard: abs(standard - rate))


def _even(length: int) -> int:
    return max(2, length - length % 2)


def _rate_of(clip: Clip) -> Fraction | str:
    return clip.rate if clip.is_constant_rate else "varying"


def canonical(name: str | None, same: tuple[str, ...]) -> str | None:
    """The first of several names of the same; any other name as it is."""
    return same[0] if name in same else name


def _range_name(color: ColorTags) -> str:
    return "full" if color.full_range else "limited"


def _say(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
