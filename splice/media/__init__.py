"""Everything that touches media files: probe, read, conform, encode, join packets. Alone in importing av."""

from av import VideoFrame

from splice.media.atomic import PARTIAL_PREFIX, atomic_output
from splice.media.blend import mix_frames
from splice.media.color import to_rgb, to_yuv
from splice.media.encode import ENCODER_REVISION, encode_frames
from splice.media.packets import Part, count_frames, join_parts
from splice.media.probe import identify_clip, probe_clip
from splice.media.read import read_frames, read_output

__all__ = [
    "ENCODER_REVISION",
    "PARTIAL_PREFIX",
    "Part",
    "VideoFrame",
    "atomic_output",
    "count_frames",
    "encode_frames",
    "identify_clip",
    "join_parts",
    "mix_frames",
    "probe_clip",
    "read_frames",
    "read_output",
    "to_rgb",
    "to_yuv",
]
