"""Everything that touches media files: probe, read, conform, encode, join packets. Alone in importing av."""

from av import VideoFrame

from splice.media.atomic import PARTIAL_PREFIX, atomic_output
from splice.media.blend import mix_frames
from splice.media.color import to_luma, to_rgb, to_view, to_yuv
from splice.media.encode import ENCODER_REVISION, UNIT_REORDER_FRAMES, encode_frames
from splice.media.excerpt import TrackOffsets, read_excerpt, track_offsets
from splice.media.identity import identify_clip, require_unchanged
from splice.media.lossless import ANEW, LosslessVideo, open_lossless, write_lossless
from splice.media.packets import AddSound, Part, Watch, clip_part, count_frames, join_parts
from splice.media.preview import encode_preview
from splice.media.probe import probe_clip
from splice.media.read import read_frames, read_output
from splice.media.sound import channel_count, read_sound, silence
from splice.media.sound_packets import add_sound_stream, copied_sound, encode_sound, read_own_sound
from splice.media.soundtrack import probe_soundtrack, read_soundtrack

__all__ = [
    "ANEW",
    "ENCODER_REVISION",
    "PARTIAL_PREFIX",
    "UNIT_REORDER_FRAMES",
    "AddSound",
    "LosslessVideo",
    "Part",
    "TrackOffsets",
    "VideoFrame",
    "Watch",
    "add_sound_stream",
    "atomic_output",
    "channel_count",
    "clip_part",
    "copied_sound",
    "count_frames",
    "encode_frames",
    "encode_preview",
    "encode_sound",
    "identify_clip",
    "join_parts",
    "mix_frames",
    "open_lossless",
    "probe_clip",
    "probe_soundtrack",
    "read_excerpt",
    "read_frames",
    "read_output",
    "read_own_sound",
    "read_sound",
    "read_soundtrack",
    "require_unchanged",
    "silence",
    "to_luma",
    "to_rgb",
    "to_view",
    "to_yuv",
    "track_offsets",
    "write_lossless",
]
