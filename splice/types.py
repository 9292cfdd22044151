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


UNKNOWN_SOUND = Sound("unknown", 0, "")
"""Of a clip that has sound, but none that can be decoded."""


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
    """Says whether a file is still the one that it was. sha256: of the whole file, hexadecimal.

    version: of a file elsewhere, what its server calls this state of it; it has no mtime_ns.
    """

    size_bytes: int
    mtime_ns: int
    sha256: str
    version: str = ""


@dataclass(frozen=True)
class SourceFile:
    """A file that a request names, on this machine. url: where the user has it, without secrets; else its path."""

    path: str
    url: str
    identity: ClipIdentity


@dataclass(frozen=True)
class Soundtrack:
    """Music laid under the result. url: where the user has it, without secrets. gain_db: of the music alone."""

    path: str
    url: str
    gain_db: float
    identity: ClipIdentity


@dataclass(frozen=True)
class CutPoints:
    """Where a clip's packets can be cut without decoding: one byte a frame, 1 where they can.

    starts[n]: frame n is a keyframe at which every decoder can begin, and no earlier frame comes after it.
    stops[n], n = 0 .. frame_count: the first n packets are the frames before n.
    reorder_frames: by how many frames decoding runs ahead of showing.
    """

    starts: bytes
    stops: bytes
    reorder_frames: int

    def first_start(self, frame: int) -> int | None:
        """The first place at ``frame`` or after it where a copy can begin."""
        found = self.starts.find(1, frame)
        return None if found < 0 else found

    def last_stop(self, frame: int) -> int:
        """The last place at ``frame`` or before it where a copy can end."""
        return self.stops.rfind(1, 0, frame + 1)


@dataclass(frozen=True)
class Clip:
    """One probed input video.

    width, height: in stored pixels, before rotation.
    rotation: degrees clockwise that show the stored picture upright: 0, 90, 180 or 270.
    is_mirrored: before it is turned, left and right must be exchanged.
    sample_aspect_ratio: width over height of one stored pixel.
    rate: frames per second; of a varying rate the mean.
    is_constant_rate: every frame stands within one container tick of first + n / rate.
    frame_count: counted, never taken from the container.
    duration_seconds: from the first shown frame to the end of the last.
    first_pts: of the first shown frame in units of time_base; None where the file's time stamps are
        incomplete, and frames can only be found by counting from the start.
    start_seconds: time of the first shown frame on the file's own clock, which its sound shares.
    cut_points: None where no packet may be copied; uncut_reason says why.
    url: where the user has a file that was fetched, without secrets; empty where that is ``path``.
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
    cut_points: CutPoints | None = None
    uncut_reason: str = ""
    url: str = ""
    is_mirrored: bool = False

    @property
    def location(self) -> str:
        """Where the user has it."""
        return self.url or self.path

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
    """What a request says of one join, its override applied. Frame counts as the request gave them.

    max_seam_score, quality_retries: the gate, see ``splice.gate``; None: there is none.
    """

    model: str
    context_frame_count: int
    gap_frame_count: int
    blend_frames: int
    replace_mode: bool
    model_settings: ModelSettings
    max_seam_score: float | None = None
    quality_retries: int = 0


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
    """A run of one clip's frames that plays as it is.

    role, in the order in which they stand in a clip: ``head``, interim, present until a loop's last join
        replaces it; ``lead``, up to the first keyframe where copying can begin; ``body``; ``trail``, after the
        last packet that can be copied; ``tail``, interim, present until the next join replaces it.
    action: ``passthrough``: the clip's own packets, copied; ``encode``: one unit, encoded once.
    reason: why, for the report.
    """

    clip: int
    frames: FrameRange
    role: Literal["head", "lead", "body", "trail", "tail"]
    action: Literal["encode", "passthrough"]
    reason: str

    @property
    def name(self) -> str:
        return f"clip_{self.clip}_{self.role}"

    @property
    def step(self) -> str:
        """The step of the run that makes it; nothing has to be made where packets are copied."""
        return self.name

    @property
    def frame_count(self) -> int:
        return len(self.frames)

    @property
    def is_copied(self) -> bool:
        return self.action == "passthrough"


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

    @property
    def is_copied(self) -> bool:
        return False


Unit = Segment | TransitionPiece
"""A run of frames that is encoded once, into a file of its own, or copied; joins only concatenate packets."""


@dataclass(frozen=True)
class Join:
    """One output: a link of the chain, or the stitch of everything.

    transitions: those that come in with it: one in a chain, all in a stitch.
    before, kept, after: what it is made of: units, frames of the predecessor's output (None where there is
        no predecessor), units.
    output: every unit of the joined video, in order.
    """

    name: str
    transitions: tuple[Transition, ...]
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
    def encoded_units(self) -> tuple[Unit, ...]:
        """What has to be made before this join can be."""
        return tuple(unit for unit in self.new_units if not unit.is_copied)

    @property
    def encoded_segments(self) -> tuple[Segment, ...]:
        return tuple(unit for unit in self.encoded_units if isinstance(unit, Segment))

    @property
    def last_clip(self) -> int:
        """The clip that the output ends with; the first one where a loop closes."""
        return self.transitions[-1].right.clip


@dataclass(frozen=True)
class Timeline:
    """The plan of a whole run: the edit decision list.

    conformed: per clip, why its pictures must be changed to fit the format; empty where they fit.
    frame_counts: per clip, its length in frames of the timeline.
    sound: None where the result has no sound track. audio: what it does across a seam.
    """

    format: VideoFormat
    clips: tuple[Clip, ...]
    frame_counts: tuple[int, ...]
    conformed: tuple[tuple[str, ...], ...]
    joins: tuple[Join, ...]
    sound: SoundFormat | None = None
    audio: Literal["bridge", "silence", "drop"] = "drop"
    soundtrack: Soundtrack | None = None

    @property
    def frame_count(self) -> int:
        return self.joins[-1].frame_count

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """Every transition; number k leads from clip k to the next."""
        return tuple(transition for join in self.joins for transition in join.transitions)

    @property
    def is_loop(self) -> bool:
        return len(self.transitions) == len(self.clips)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every unit once, in the order in which the joins need them."""
        return tuple(dict.fromkeys(unit for join in self.joins for unit in join.new_units))

    @property
    def has_passthrough(self) -> bool:
        """Whether packets of several encoders meet, so that every keyframe must bring its own parameter sets."""
        return any(unit.is_copied for unit in self.units)

    @property
    def reorder_frames(self) -> int:
        """By how many frames decoding runs ahead of showing in what is copied."""
        copied = {unit.clip for unit in self.units if isinstance(unit, Segment) and unit.is_copied}
        points = [self.clips[clip].cut_points for clip in copied]
        return max((each.reorder_frames for each in points if each), default=0)

    def pieces_of(self, transition: Transition) -> tuple[TransitionPiece, ...]:
        """The units that a transition's frames fill, in the order in which they are rendered."""
        own = (u for u in self.units if isinstance(u, TransitionPiece) and u.join == transition.join)
        return tuple(sorted(own, key=lambda piece: piece.frames.start))
