"""Where a clip's packets can be cut: read off its packets, without decoding them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import av
from av.packet import Packet
from av.video.stream import VideoStream

from splice.format import SAME_MATRIX, SAME_TRANSFER, canonical
from splice.media.nal import (
    Framing,
    NalCodec,
    is_idr,
    is_partial,
    join_by_start_code,
    parameter_sets,
    read_framing,
    with_parameter_sets,
)
from splice.media.tags import MATRICES, PRIMARIES, TRANSFERS
from splice.types import CutPoints


@dataclass
class PacketScan:
    """What the packets of one stream tell, fed one by one in decode order.

    obstacle: why none of them may be copied, as far as packets tell. keyframes: of each by its pts, whether it is
        an IDR picture.
    """

    stream: VideoStream
    obstacle: str | None = None
    keyframes: dict[int, bool] = field(default_factory=dict)
    _framing: Framing | None = None
    _examples: dict[tuple[bytes, ...], list[bytes]] = field(default_factory=dict)
    _kinds: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        codec = self.stream.codec_context.codec.canonical_name
        if codec not in ("h264", "hevc"):
            self.obstacle = f"codec {codec}"
            return
        try:
            self._framing = read_framing(cast(NalCodec, codec), self.stream.codec_context.extradata or b"")
        except ValueError as error:
            self.obstacle = f"a damaged header ({error})"

    def add(self, packet: Packet[VideoStream]) -> None:
        """Look into one packet; only keyframes are read."""
        if self._framing is None or self.obstacle or not packet.is_keyframe:
            return
        if packet.has_sidedata("new_extradata"):
            self.obstacle = "headers that change in mid-stream"
            return
        try:
            units = self._framing.units(bytes(packet))
        except ValueError as error:
            self.obstacle = f"a damaged packet ({error})"
            return
        if is_partial(self._framing.codec, parameter_sets(self._framing.codec, units), self._framing.parameter_sets):
            self.obstacle = "keyframes that bring only some of their parameter sets"
            return
        assert packet.pts is not None, "frames are told by their pts"
        self.keyframes[packet.pts] = is_idr(self._framing.codec, units)
        if self.keyframes[packet.pts]:
            self._compare(self._framing, units)

    def _compare(self, framing: Framing, units: Sequence[bytes]) -> None:
        """Pictures under parameter sets of their own must be of the same kind as all others."""
        sets = parameter_sets(framing.codec, units) or framing.parameter_sets
        if sets in self._examples:
            return
        self._examples[sets] = with_parameter_sets(framing.codec, units, sets)
        # The one kind of most clips needs no looking at.
        fresh = list(self._examples.values()) if len(self._examples) == 2 else [self._examples[sets]]
        try:
            self._kinds += [_kind_of_picture(framing.codec, each) for each in fresh if len(self._examples) > 1]
        except av.FFmpegError as error:
            self.obstacle = f"a keyframe that can't be decoded alone ({error.strerror})"
            return
        # What one set leaves unsaid another may say.
        if any(len(set(values) - {None}) > 1 for values in zip(*self._kinds, strict=True)):
            self.obstacle = "pictures whose size or format changes in mid-stream"


def find_cut_points(pts_in_decode_order: Sequence[int], keyframes: Mapping[int, bool]) -> CutPoints | str:
    """Cut points of a stream whose every packet is a frame; or why it can't be cut.

    Frames are numbered by their pts, which must differ. keyframes: as ``PacketScan`` finds them.
    """
    order = {pts: number for number, pts in enumerate(sorted(pts_in_decode_order))}
    starts, stops = bytearray(len(order)), bytearray(len(order) + 1)
    highest, reorder_frames = -1, 0
    for position, pts in enumerate(pts_in_decode_order):
        number = order[pts]
        stops[position] = highest < position
        if pts in keyframes:
            # Pictures that come after a keyframe and are shown before it refer to what precedes it.
            if number != position:
                return "open GOPs"
            starts[number] = keyframes[pts] and stops[position]
        highest = max(highest, number)
        reorder_frames = max(reorder_frames, position - number)
    stops[len(order)] = 1
    if not starts or not starts[0]:
        return "it does not begin with an IDR picture"
    return CutPoints(bytes(starts), bytes(stops), reorder_frames)


def _kind_of_picture(codec: NalCodec, units: Sequence[bytes]) -> tuple[Any, ...]:
    """Size, format and colour of a keyframe; None where it does not say."""
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    for frame in (*decoder.decode(Packet(join_by_start_code(units))), *decoder.decode(None)):
        return (
            frame.width,
            frame.height,
            frame.format.name,
            canonical(MATRICES.get(int(frame.colorspace)), SAME_MATRIX),
            PRIMARIES.get(int(frame.color_primaries)),
            canonical(TRANSFERS.get(int(frame.color_trc)), SAME_TRANSFER),
            int(frame.color_range) or None,
        )
    raise av.InvalidDataError(0, "no picture in it")
