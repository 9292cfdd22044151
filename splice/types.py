"""The values that everything else passes around: one frozen type per idea.

Frame numbers count in display order from 0, at the timeline's rate; ranges are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from splice.models.protocol import ModelSettings, ModelSpec


@dataclass(frozen=True)
class FrameRange:
    """Frames ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"a frame range needs 0 <= start <= stop, got {self.start} and {self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class ColorTags:
    """Colour as FFmpeg names it (``bt709``, ``smpte170m``, ``bt2020nc``, ...), every field resolved.

    assumed: the fields that the file left out and that were taken from convention by the picture's size.
    """

    matrix: str
    primaries: str
    transfer: str
    full_range: bool
    assumed: tuple[str, ...] = ()

    @property
    def is_hdr(self) -> bool:
        return self.transfer in ("smpte2084", "arib-std-b67")


@dataclass(frozen=True)
class Sound:
    """A clip's first sound track that can be decoded. layout: of its channels, as FFmpeg names it (``stereo``)."""

    codec: str
    sample_rate: int
    layout: str


@dataclass(frozen=True)
class SoundFormat:
    """What the sound of a timeline is like; every clip's is brought to it.

    layout: of its channels, as FFmpeg names it. codec: of the final file's track.
    """

    sample_rate: int
    layout: str
    codec: Literal["aac", "flac", "opus"] = "aac"


@dataclass(frozen=True)
class ClipIdentity:
    """Says whether a file is still the one that it was. sha256: of the whole file, hexadecimal."""

    size_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Clip:
    """One probed input video.

    width, height: in stored pixels, before rotation.
    rotation: degrees clockwise that show the stored picture upright: 0, 90, 180 or 270.
    sample_aspect_ratio: width over height of one stored pixel.
    rate: frames per second; of a varying rate the mean.
    is_constant_rate: every frame stands within one container tick of first + n / rate.
    frame_count: counted, never taken from the container.
    duration_seconds: from the first shown frame to the end of the last.
    first_pts: of the first shown frame in units of time_base; None where the file's time stamps are
        incomplete, and frames can only be found by counting from the start.
    start_seconds: time of the first shown frame on the file's own clock, which its sound shares.
    """

    index: int
    name: str
    path: str
    identity: ClipIdentity
    container: str
    codec: str
    width: int
    height: int
    rotation: int
    sample_aspect_ratio: Fraction
    pixel_format: str
    bit_depth: int
    color: ColorTags
    is_interlaced: bool
    rate: Fraction
    is_constant_rate: bool
    frame_count: int
    duration_seconds: Fraction
    time_base: Fraction
    first_pts: int | None
    start_seconds: Fraction
    sound: Sound | None

    @property
    def label(self) -> str:
        """How messages call the clip."""
        return f"clip {self.index} ({self.name})"


@dataclass(frozen=True)
class VideoFormat:
    """What every frame of a timeline looks like; a clip that differs is conformed to it.

    width, height: stored pixels, both even. rotation: degrees clockwise, kept as metadata.
    """

    codec: Literal["h264", "hevc"]
    width: int
    height: int
    rate: Fraction
    bit_depth: Literal[8, 10]
    color: ColorTags
    sample_aspect_ratio: Fraction = Fraction(1)
    rotation: int = 0

    @property
    def pixel_format(self) -> str:
        return "yuv420p" if self.bit_depth == 8 else "yuv420p10le"


@dataclass(frozen=True)
class JoinSettings:
    """What a request says of one join, its override applied. Frame counts as the request gave them."""

    model: str
    context_frame_count: int
    gap_frame_count: int
    blend_frames: int
    replace_mode: bool
    model_settings: ModelSettings


@dataclass(frozen=True)
class Context:
    """The frames of one side that a model sees.

    frames: read from the conformed clip. padding: how often the outermost frame is repeated beyond
    them, to make up a window that needs more than the clip has.
    """

    clip: int
    frames: FrameRange
    padding: int = 0

    def __len__(self) -> int:
        return len(self.frames) + self.padding


@dataclass(frozen=True)
class Transition:
    """One seam: what the model sees, what it generates, and what that replaces.

    removed_left, removed_right: source frames that the gap takes the place of (empty in insert mode).
    blend_left, blend_right: source frames that are mixed with the model's rendering of them; empty
        where the model renders the gap alone.
    notes: what the plan had to adapt, for the report.
    """

    join: int
    settings: JoinSettings
    spec: ModelSpec
    left: Context
    right: Context
    gap_frame_count: int
    removed_left: FrameRange
    removed_right: FrameRange
    blend_left: FrameRange
    blend_right: FrameRange
    notes: tuple[str, ...] = ()

    @property
    def frame_count(self) -> int:
        """Frames of the timeline that the transition makes: blended and generated."""
        return len(self.blend_left) + self.gap_frame_count + len(self.blend_right)


@dataclass(frozen=True)
class Segment:
    """A run of one clip's frames that plays as it is: one unit, written once.

    role: ``body`` stays to the end; ``tail`` and ``head`` are interim, present until a later join
        replaces them.
    reason: why the frames are encoded or copied, for the report.
    """

    clip: int
    frames: FrameRange
    role: Literal["head", "body", "tail"]
    action: Literal["encode", "copy"]
    reason: str

    @property
    def name(self) -> str:
        return f"clip_{self.clip}_{self.role}"

    @property
    def step(self) -> str:
        """The step of the run that makes it."""
        return self.name

    @property
    def frame_count(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class TransitionPiece:
    """A run of a transition's frames that is one unit: all of them, or one end where a loop divides them."""

    join: int
    frames: FrameRange
    role: Literal["transition", "transition_head"]

    @property
    def name(self) -> str:
        return f"join_{self.join}_{self.role}"

    @property
    def step(self) -> str:
        return f"join_{self.join}_transition"

    @property
    def frame_count(self) -> int:
        return len(self.frames)


Unit = Segment | TransitionPiece
"""A run of frames that is encoded (or copied) once, into a file of its own; joins only concatenate packets."""


@dataclass(frozen=True)
class Join:
    """One link of the chain: ``before`` + ``kept`` frames of the predecessor's output + ``after``.

    kept: None in the first join, which has no predecessor.
    output: every unit of the joined video, in order.
    """

    index: int
    transition: Transition
    before: tuple[Unit, ...]
    kept: FrameRange | None
    after: tuple[Unit, ...]
    output: tuple[Unit, ...]

    @property
    def frame_count(self) -> int:
        return sum(unit.frame_count for unit in self.output)

    @property
    def new_units(self) -> tuple[Unit, ...]:
        return self.before + self.after

    @property
    def transition_pieces(self) -> tuple[TransitionPiece, ...]:
        """The join's own transition, in the order in which its frames are rendered."""
        own = (u for u in self.new_units if isinstance(u, TransitionPiece) and u.join == self.index)
        return tuple(sorted(own, key=lambda piece: piece.frames.start))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that come in with this join."""
        return tuple(unit for unit in self.new_units if isinstance(unit, Segment))


@dataclass(frozen=True)
class Timeline:
    """The plan of a whole run: the edit decision list.

    conformed: per clip, why its pictures must be changed to fit the format; empty where they fit.
    frame_counts: per clip, its length in frames of the timeline.
    """

    format: VideoFormat
    clips: tuple[Clip, ...]
    frame_counts: tuple[int, ...]
    conformed: tuple[tuple[str, ...], ...]
    joins: tuple[Join, ...]

    @property
    def frame_count(self) -> int:
        return self.joins[-1].frame_count

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every unit once, in the order in which the joins need them."""
        return tuple(dict.fromkeys(unit for join in self.joins for unit in join.new_units))
