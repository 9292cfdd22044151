"""NAL units of H.264 and HEVC: how they are framed, which of them a decoder needs first, where decoding can begin.

Unit types: ITU-T H.264 (08/2021), table 7-1; ITU-T H.265 (08/2021), table 7-1. Configuration records (``avcC``,
``hvcC``): ISO/IEC 14496-15:2019, 5.3.3 and 8.3.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

NalCodec = Literal["h264", "hevc"]

_IDR = {"h264": {5}, "hevc": {19, 20}}
_PARAMETER_SETS = {"h264": {7, 8, 13}, "hevc": {32, 33, 34}}
_DELIMITER = {"h264": 9, "hevc": 35}
_SEI = {"h264": 6, "hevc": 39}
_HEADER_BYTES = {"h264": 1, "hevc": 2}
_RECOVERY_POINT = 6
"""The payload type of an SEI message (H.264: D.1.1; H.265: D.2.1)."""
_FIRST_PICTURE_TYPES = {"h264": range(1, 6), "hevc": range(32)}


@dataclass(frozen=True)
class Framing:
    """How the units of a stream lie in its packets.

    length_size: bytes of the length before each unit, as in mp4 and Matroska; 0: start codes, as in MPEG-TS.
    parameter_sets: those that stand in the header, in order; often repeated in the packets, or only there.
    """

    codec: NalCodec
    length_size: int
    parameter_sets: tuple[bytes, ...]

    def units(self, data: bytes) -> list[bytes]:
        """The units of one packet. Raises ValueError where a length leads beyond the end."""
        return _split_by_length(data, self.length_size) if self.length_size else _split_by_start_code(data)


def read_framing(codec: NalCodec, extradata: bytes) -> Framing:
    """The framing that a stream's header (FFmpeg's ``extradata``) tells. Raises ValueError where it is damaged."""
    if not extradata or extradata[0] != 1:
        return Framing(codec, 0, tuple(_split_by_start_code(extradata)))
    try:
        return _read_avcc(extradata) if codec == "h264" else _read_hvcc(extradata)
    except IndexError as error:
        raise ValueError("the codec configuration record ends too early") from error


def parameter_sets(codec: NalCodec, units: Sequence[bytes]) -> tuple[bytes, ...]:
    """The parameter sets among the units of a packet."""
    return tuple(unit for unit in units if _type_of(codec, unit) in _PARAMETER_SETS[codec])


def is_partial(codec: NalCodec, sets: Sequence[bytes], header: Sequence[bytes]) -> bool:
    """Whether ``sets``, those of a keyframe, lack some that the header has: what is in force then is hard to tell."""
    here, there = (Counter(_type_of(codec, unit) for unit in units) for units in (sets, header))
    return bool(sets) and any(here[kind] < count for kind, count in there.items())


def is_idr(codec: NalCodec, units: Sequence[bytes]) -> bool:
    """Whether the picture is one at which every decoder can begin, and before which nothing is referred to."""
    pictures = (unit for unit in units if _type_of(codec, unit) in _FIRST_PICTURE_TYPES[codec])
    first = next(pictures, None)
    return first is not None and _type_of(codec, first) in _IDR[codec]


def refreshes_gradually(codec: NalCodec, units: Sequence[bytes]) -> bool:
    """Whether pictures are whole only some frames after this one, when decoding begins at it (intra refresh)."""
    messages = (message for unit in units if _type_of(codec, unit) == _SEI[codec] for message in _messages(codec, unit))
    # Its first field is how many frames that takes; of an Exp-Golomb code only 0 begins with a bit that is set.
    return any(kind == _RECOVERY_POINT and payload[:1] < b"\x80" for kind, payload in messages)


def with_parameter_sets(codec: NalCodec, units: Sequence[bytes], sets: Sequence[bytes]) -> list[bytes]:
    """The units of a keyframe behind ``sets``; an access unit delimiter stays first."""
    own = [unit for unit in units if _type_of(codec, unit) not in _PARAMETER_SETS[codec]]
    at = 1 if own and _type_of(codec, own[0]) == _DELIMITER[codec] else 0
    return [*own[:at], *sets, *own[at:]]


def join_by_length(units: Sequence[bytes]) -> bytes:
    """Units as an mp4 packet holds them, each behind its length in 4 bytes."""
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def join_by_start_code(units: Sequence[bytes]) -> bytes:
    """Units as a decoder without a header wants them."""
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def _type_of(codec: NalCodec, unit: bytes) -> int:
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F


def _messages(codec: NalCodec, unit: bytes) -> Iterator[tuple[int, bytes]]:
    """(payload type, payload) of each message of an SEI unit."""
    rest = unit[_HEADER_BYTES[codec] :].replace(b"\0\0\3", b"\0\0")
    # What is left in the end are the bits that fill up the last byte.
    while len(rest) > 2:
        kind, rest = _leading_number(rest)
        size, rest = _leading_number(rest)
        yield kind, rest[:size]
        rest = rest[size:]


def _leading_number(data: bytes) -> tuple[int, bytes]:
    """A number in bytes that add up, of which each but the last is 255; and what stands behind it."""
    full = len(data) - len(data.lstrip(b"\xff"))
    return 255 * full + int.from_bytes(data[full : full + 1], "big"), data[full + 1 :]


def _split_by_length(data: bytes, length_size: int) -> list[bytes]:
    units = []
    position = 0
    while position < len(data):
        start = position + length_size
        position = start + int.from_bytes(data[position:start], "big")
        if position > len(data):
            raise ValueError(f"a unit of {position - start} bytes leads beyond the end of its packet")
        if position > start:
            units.append(data[start:position])
    return units


def _split_by_start_code(data: bytes) -> list[bytes]:
    # Zeros behind a unit are padding, or the first byte of the next start code: no part of it.
    return [unit for part in data.split(b"\0\0\1")[1:] if (unit := part.rstrip(b"\0"))]


def _read_avcc(record: bytes) -> Framing:
    sets: list[bytes] = []
    position = 5
    for mask in (0x1F, 0xFF):
        count = record[position] & mask
        position += 1
        for _ in range(count):
            sets.append(_sized(record, position))
            position += 2 + len(sets[-1])
    return Framing("h264", (record[4] & 3) + 1, tuple(sets))


def _read_hvcc(record: bytes) -> Framing:
    sets: list[bytes] = []
    position = 23
    for _ in range(record[22]):
        kind, count = record[position] & 0x3F, int.from_bytes(record[position + 1 : position + 3], "big")
        position += 3
        for _ in range(count):
            unit = _sized(record, position)
            position += 2 + len(unit)
            sets += [unit] if kind in _PARAMETER_SETS["hevc"] else []
    return Framing("hevc", (record[21] & 3) + 1, tuple(sets))


def _sized(record: bytes, position: int) -> bytes:
    size = int.from_bytes(record[position : position + 2], "big")
    if position + 2 + size > len(record):
        raise IndexError(position)
    return record[position + 2 : position + 2 + size]
