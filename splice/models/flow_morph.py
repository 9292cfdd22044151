"""The embedded default: a motion-aware morph on any CPU, without weights.

Method. The two frames at the seam are matched by optical flow, from up to two guesses of what the camera did in the
gap: nothing and, where that does not find nearly all and finds another motion, what it was doing on either side,
extrapolated. Each match that hangs together and, unless nearly all is matched, a dissolve are rendered small; the one
whose seam scores best (``splice.quality``) is rendered in full, a dissolve only where it is clearly better.

- Related sides are **morphed** along one path. The camera's share (an affine drift) moves on a cubic Hermite curve
  that leaves the left side and meets the right side at their own velocities; a pan that slows down keeps slowing
  down. What remains moves straight from its left to its right place, easing in and out of its own velocity; where
  forward and backward flow disagree there is no such path, and it drifts on for a few frames while it dissolves.
- Unrelated sides (a cut) are **dissolved**, each side moving on with a speed that dies away.

A velocity only bends a path as far as it is significant against its own measured error: multiplied by a long gap,
noise would swing the picture. Every source frame is resampled once, at full resolution (``splice.models.mixing``).

Sources: morphing by flow and inverse warp, Beier & Neely, SIGGRAPH 1992, and Baker et al., "A Database and Evaluation
Methodology for Optical Flow", IJCV 2011; tangents limited against overshoot, Fritsch & Carlson, SIAM J. Numer. Anal.
1980; for the flow itself see ``splice.models.motion``.

Fails on what no straight path can tell: limbs that swing and turn within the gap (seen twice, half transparent),
things that come and go within it (they fade), near things passing before far ones (both dissolve at the edge). What
is fast and has no match is torn a little before it has faded.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol

import cv2
import numpy as np

from splice.models import motion
from splice.models.mixing import Mixer, Sources
from splice.models.motion import Drift, Field, Match, Plane, Velocity
from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering
from splice.quality import FEWEST_NEIGHBOURS, score_seam, shrink

SCORED_SIDE = 128  # pixels of the longer side of the pictures that variants are scored on: 320 chooses no better
SHORT_GAP = 16  # frames, below which a velocity right at the seam is worth more than one that errs less
FEW_PAIRS, MANY_PAIRS = 2, 4  # of frames, that a velocity is measured from, in a short gap and in others
LONG_GAP = 32  # frames, from which on the error of a velocity is multiplied so often that closer patches are worth it
WIDE_STRIDE = 6  # of the flows of a velocity in other gaps: closer patches gain nothing there, in twice the time
SHORT_MATCH_SIDE = 480  # pixels of the pictures matched over a short gap: 640 gain 0.04 dB there, for twice the time
LEAST_REFINEMENTS, FRAMES_A_REFINEMENT = 2, 16  # of flow, and one more for so many of the gap's frames
RELATED = 0.15  # relatedness: at most 0.11 across the cuts measured, less within a shot only on a fast camera
MOST_FROZEN = 2.0  # of the score: in small dark pictures what moves by less than a level stands, the whole gap long
DISSOLVE_MARGIN = 1.5  # of the score: small pictures hide the blur of a dissolve, which is the worse one where they tie
GUESS_PIXELS = 1.5  # on the grid; a guess as near as that to what was found without it finds the same
GUESS_ERRORS = 3.0  # standard errors of the guess that are as near; of 68 spans left out none lost 0.2 dB
FOUND = 0.9  # of the texture: of 88 such spans a guess gained 0.1 dB at most, a dissolve was nearer, unseen, in two
GUESS_MARGIN = 0.02  # of relatedness: matches that differ by less are one
SWING_FRAMES = 10.0  # what has a place to go to eases out of its own velocity within about that long
SWING_SHARE = 0.2  # of the gap at most: the two ends' own velocities are not to meet in the middle
DRIFT_FRAMES = 5.0  # what has none goes on for about that long: more tears it, less freezes it
DRIFT_BLUR = 6.0  # grid pixels; without a match at the far end steep velocities fold and tear the picture
TANGENT_LIMIT = 3.0  # Fritsch & Carlson: a Hermite curve with steeper tangents overshoots
FLOW_BLUR = 4.0  # matched pixels; half a DIS patch: nothing finer was seen by the flow, nor by its trust
DOUBTED, TRUSTED = 0.1, 0.6  # blurred trust below which a path is dropped, and above which it is followed
INVERSION_STEPS = 2  # of a fixed point that contracts fast: paths are smooth
EDGE_FEATHER = 3.0  # grid pixels over which a side that has left the picture hands over to the other
LAST_RESORT = 1e-3  # share of a side outside of its picture, so that the shares can be normalised
FRAMES_AT_ONCE = 2  # are mixed while the next is waited for: a core that one leaves idle works on the other


class FlowMorph:
    """Morphs what the two sides share along its motion and dissolves the rest; renders the gap alone."""

    spec = ModelSpec(name="flow_morph", revision="9", renders_context=False, reads_seed=False)

    def __init__(self, method: str = "") -> None:
        """method: what to render wherever it can be tried, rather than what scores best; for comparison."""
        self._method = method

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        """Analyses the seam at once, then makes the gap's frames one by one, in the guide's dtype and size.

        Reads no settings. Notes: ``relatedness`` (0..1, see ``Match``), ``method``: "morph", "extrapolate and
        morph" (from a match that supposes the camera went on as it did) or "dissolve"; and, where there is a choice,
        the seam score of each that was tried, in small pictures, with MOST_FROZEN at most for frozen frames. The best
        one is rendered, a dissolve only if it is better by DISSOLVE_MARGIN; where the context is too short to score,
        the best related. Where FOUND of the left side's texture is found on the right, a dissolve is not tried.
        """
        variants, found = _plan_variants(guide)
        is_dissolve_tried = found < FOUND or len(variants) == 1
        tried = {name: each for name, each in variants.items() if name != "dissolve" or is_dissolve_tried}
        scores = {} if self._method else _score_variants(guide, tried)
        method = _best(scores) if scores else next(iter(variants))
        method = self._method if self._method in variants else method
        notes: dict[str, str | float] = {"relatedness": variants["dissolve"].relatedness, "method": method}
        notes |= {f"{name} score": round(score, 2) for name, score in scores.items()}
        path = variants[method].path
        make = _Maker(guide.left[-1], guide.right[0], path, motion.positions(path.grid_size))
        return Rendering(_made_ahead(make, guide.gap_frames), notes)


def interpolate(left: Frame, right: Frame, times: Sequence[float]) -> Iterator[Frame]:
    """What is between two frames that follow each other, in their dtype and size.

    times: 0 <= time < 1, from left to right; at 0 it is ``left`` itself. Everything moves straight and evenly along the
    flow between the two, and dissolves where that can't be trusted.
    """
    found = motion.match(left, right, np.zeros((3, 3)))
    blur = FLOW_BLUR * found.fineness
    sides = ((found.forward, found.forward_trust, blur), (found.backward, found.backward_trust, blur))
    forward, backward = (target * followed for target, followed in (_places(*side) for side in sides))
    size = motion.grid_size(left)
    grid, mixer = motion.positions(size), Mixer(left, right, size)
    for time in times:
        if time == 0:
            yield left
            continue
        from_left = _invert(np.float32(time) * forward, grid)
        from_right = _invert(np.float32(1 - time) * backward, grid)
        share = np.full(grid.shape[:2], time, np.float32)
        yield mixer.mix(Sources(from_left - grid, from_right - grid, share))


class _Path(Protocol):
    @property
    def grid_size(self) -> tuple[int, int]:
        """(width, height) of the grid whose positions all is about."""
        ...

    def sources(self, index: int, points: Field) -> Sources:
        """At those positions of the frame ``index`` steps after the left one, ``1 <= index <= gap_frames``."""
        ...


@dataclass(frozen=True)
class _Variant:
    """One way to fill the gap. relatedness: of the match that it relies on, or that there is in spite of it."""

    path: _Path
    relatedness: float


@dataclass(frozen=True)
class _Care:
    """How closely the sides are looked at. frames, stride: of each, and of the flows between them, for its velocity.
    match_side: pixels of what is matched. refinements: of every flow."""

    frames: int
    stride: int
    match_side: int
    refinements: int

    @classmethod
    def of(cls, gap_frames: int) -> _Care:
        """The longer the gap, the more an error is multiplied."""
        short = gap_frames < SHORT_GAP
        return cls(
            frames=(FEW_PAIRS if short else MANY_PAIRS) + motion.BASELINE_FRAMES,
            stride=WIDE_STRIDE if gap_frames < LONG_GAP else motion.STRIDE,
            match_side=SHORT_MATCH_SIDE if short else motion.MATCH_LONG_SIDE,
            refinements=min(motion.MOST_REFINEMENTS, LEAST_REFINEMENTS + gap_frames // FRAMES_A_REFINEMENT),
        )


def _plan_variants(guide: Guide) -> tuple[dict[str, _Variant], float]:
    """(those that can be rendered, the best related first; how much of the texture was found, see ``Match.found``).

    A dissolve can be rendered always, a morph only of sides that are related.
    """
    left, right, care = guide.left[-1], guide.right[0], _Care.of(guide.gap_frames)
    search = partial(motion.match, left, right, long_side=care.match_side, refinements=care.refinements)
    velocity = partial(motion.measure_velocity, refinements=care.refinements, stride=care.stride)
    with ThreadPoolExecutor(3) as threads:
        matched = threads.submit(search, np.zeros((3, 3)))
        before, after = threads.map(velocity, (guide.left[-care.frames :], guide.right[: care.frames]))
    still = matched.result()
    steps = guide.gap_frames + 1
    own = _OwnMotion.of(before.local, before), _OwnMotion.of(-after.local, after)
    texture = motion.texture(motion.to_grey(left, motion.grid_size(left)))

    def plan(match: Match) -> _MorphPath:
        return _MorphPath.plan(match, (before, after), own, texture, steps)

    relatedness, found = still.relatedness, still.found(texture)
    known: list[Drift] = [np.zeros((3, 3))]
    morphs = {}
    if relatedness >= RELATED:
        path = plan(still)
        morphs["morph"] = _Variant(path, relatedness)
        known.append(path.camera)
    guess = (before.drift + after.drift) / 2 * steps
    error = (before.drift_error + after.drift_error) / 2 * steps
    if found < FOUND and _leads_elsewhere(guess, error, known, _size_of(texture)):
        moving = search(guess)
        relatedness, found = max(relatedness, moving.relatedness), max(found, moving.found(texture))
        if moving.relatedness >= RELATED and abs(moving.relatedness - still.relatedness) > GUESS_MARGIN:
            morphs["extrapolate and morph"] = _Variant(plan(moving), moving.relatedness)
    best_first = sorted(morphs.items(), key=lambda each: each[1].relatedness, reverse=True)
    dissolve = _DissolvePath(before.drift, -after.drift, own[0].drift, own[1].drift, steps)
    return dict(best_first) | {"dissolve": _Variant(dissolve, relatedness)}, found


def _leads_elsewhere(guess: Drift, error: float, known: Sequence[Drift], size: tuple[int, int]) -> bool:
    """Whether a guess is none of those that are known. error: the guess's, a standard one at most."""
    nearest = min(motion.root_mean_square(guess - each, size) for each in known)
    return nearest > max(GUESS_PIXELS, GUESS_ERRORS * error)


def _score_variants(guide: Guide, variants: Mapping[str, _Variant]) -> dict[str, float]:
    """The seam score of every variant, on small pictures and with MOST_FROZEN at most for frozen frames; empty where
    there is no choice, or nothing to go by."""
    if len(variants) == 1 or min(len(guide.left), len(guide.right)) < FEWEST_NEIGHBOURS:
        return {}
    sides = guide.left[-FEWEST_NEIGHBOURS:], guide.right[:FEWEST_NEIGHBOURS]  # more of them choose the same
    with ThreadPoolExecutor(len(sides)) as threads:
        left, right = threads.map(lambda side: [_small(frame) for frame in side], sides)
    # No more points than the small pictures have.
    size = left[-1].shape[1::-1]
    grid = motion.positions(next(iter(variants.values())).path.grid_size)  # one for all
    points = cv2.resize(grid, size, interpolation=cv2.INTER_AREA)

    def score(variant: _Variant) -> float:
        make = _Maker(left[-1], right[0], variant.path, points)
        made = map(make, range(1, guide.gap_frames + 1))
        scored = score_seam(chain(left, made, right), len(left), len(left) + guide.gap_frames)
        return scored.total - max(0.0, scored.frozen - MOST_FROZEN)

    with ThreadPoolExecutor(len(variants)) as threads:
        return dict(zip(variants, threads.map(score, variants.values()), strict=True))


def _best(scores: Mapping[str, float]) -> str:
    return min(scores, key=lambda name: scores[name] + (DISSOLVE_MARGIN if name == "dissolve" else 0.0))


def _small(frame: Frame) -> Frame:
    small = shrink(frame, SCORED_SIDE)
    return small if small.dtype == np.uint8 else cv2.convertScaleAbs(small, alpha=1 / 257)


@dataclass(frozen=True)
class _OwnMotion:
    """How a side moves by itself besides the camera, towards the other side, in grid pixels a frame.

    error: the velocity's standard error. drift: the velocity as far as it goes on without a place to go to.
    """

    velocity: Field
    error: Plane
    drift: Field

    @classmethod
    def of(cls, local: Field, velocity: Velocity) -> _OwnMotion:
        """local: the velocity's, towards the other side."""
        error = velocity.local_error
        return cls(local, error, motion.blur(_significant(local, error), DRIFT_BLUR))


@dataclass(frozen=True)
class _LocalPath:
    """How a side's picture moves besides the camera, in grid pixels, each zero where another one applies.

    target: all the way to its place on the other side.
    swing:  its own velocity in excess of the straight way's; felt near its own end only.
    drift:  its velocity, where it has no place on the other side.
    """

    target: Field
    swing: Field
    drift: Field

    @classmethod
    def plan(cls, residual: Field, trust: Plane, blur: float, own: _OwnMotion, steps: int) -> _LocalPath:
        """residual: flow to the other side without the camera. blur: grid pixels, as coarse as that flow is."""
        target, followed = _places(residual, trust, blur)
        return cls(
            target=target * followed,
            swing=_significant(own.velocity - target / np.float32(steps), own.error) * followed,
            drift=own.drift * (1.0 - followed),
        )

    def displacement(self, frames: int, steps: int) -> Field:
        """After that many frames on the way, of ``steps`` to the other side."""
        swing = np.float32(frames * math.exp(-frames / min(SWING_FRAMES, SWING_SHARE * steps)))
        moved: Field = (
            np.float32(frames / steps) * self.target
            + swing * self.swing
            + np.float32(_saturating(frames, DRIFT_FRAMES)) * self.drift
        )
        return moved


@dataclass(frozen=True)
class _MorphPath:
    """One path for both sides: the camera's Hermite curve from the left frame to the right one, and local motion.

    camera: drift over the whole gap, in the left frame's coordinates like the two tangents (drift per gap).
    """

    camera: Drift
    left_tangent: Drift
    right_tangent: Drift
    left: _LocalPath
    right: _LocalPath
    steps: int

    @classmethod
    def plan(
        cls,
        found: Match,
        velocities: tuple[Velocity, Velocity],
        own: tuple[_OwnMotion, _OwnMotion],
        texture: Plane,
        steps: int,
    ) -> _MorphPath:
        before, after = velocities
        size = _size_of(texture)
        grid = motion.positions(size)
        camera = motion.fit_drift(found.forward, found.forward_trust * texture)
        there = np.eye(3) + camera
        back = np.linalg.inv(there) - np.eye(3)
        ahead, behind = found.forward - motion.transform(camera, grid), found.backward - motion.transform(back, grid)
        blur = FLOW_BLUR * found.fineness
        return cls(
            camera=camera,
            left_tangent=_tangent(before.drift, before.drift_error, camera, size, steps),
            right_tangent=_tangent(after.drift @ there, after.drift_error, camera, size, steps),
            left=_LocalPath.plan(ahead, found.forward_trust, blur, own[0], steps),
            right=_LocalPath.plan(behind, found.backward_trust, blur, own[1], steps),
            steps=steps,
        )

    @property
    def grid_size(self) -> tuple[int, int]:
        return _size_of(self.left.target)

    def sources(self, index: int, points: Field) -> Sources:
        time = index / self.steps
        camera = np.eye(3) + (
            time**2 * (3 - 2 * time) * self.camera
            + time * (1 - time) ** 2 * self.left_tangent
            - time**2 * (1 - time) * self.right_tangent
        )
        to_left = np.linalg.inv(camera)
        to_right = (np.eye(3) + self.camera) @ to_left
        left = _invert(self.left.displacement(index, self.steps), motion.transform(to_left, points))
        right = _invert(self.right.displacement(self.steps - index, self.steps), motion.transform(to_right, points))
        left_weight = (1 - time) * _inside(left, self.grid_size) + LAST_RESORT
        right_weight = time * _inside(right, self.grid_size) + LAST_RESORT
        return Sources(left - points, right - points, right_weight / (left_weight + right_weight))


@dataclass(frozen=True)
class _DissolvePath:
    """Each side moves on by itself, in its own coordinates, slower and slower: the camera over the whole gap.

    All are velocities towards the other side.
    """

    left_camera: Drift
    right_camera: Drift
    left_local: Field
    right_local: Field
    steps: int

    @property
    def grid_size(self) -> tuple[int, int]:
        return _size_of(self.left_local)

    def sources(self, index: int, points: Field) -> Sources:
        time = np.full(points.shape[:2], index / self.steps, np.float32)
        return Sources(
            left=self._moved_on(self.left_camera, self.left_local, index, points) - points,
            right=self._moved_on(self.right_camera, self.right_local, self.steps - index, points) - points,
            right_share=motion.smoothstep(time, 0.0, 1.0),
        )

    def _moved_on(self, camera: Drift, local: Field, frames: int, points: Field) -> Field:
        moved = np.eye(3) + _saturating(frames, self.steps) * camera
        reached = motion.transform(np.linalg.inv(moved), points)
        return _invert(np.float32(_saturating(frames, DRIFT_FRAMES)) * local, reached)


def _saturating(frames: float, span: float) -> float:
    """How far something gets that starts at 1 a frame and slows down exponentially: at most ``span``."""
    return span * (1.0 - math.exp(-frames / span))


def _places(flow: Field, trust: Plane, blur: float) -> tuple[Field, Field]:
    """(where everything goes, 0..1 how far that is to be followed): blurred as the flow is coarse."""
    support = motion.blur(trust, blur)[..., None]
    target = motion.blur(flow * trust[..., None], blur) / (support + LAST_RESORT)
    return target, motion.smoothstep(support, DOUBTED, TRUSTED)


def _significant(field: Field, error: Plane) -> Field:
    return field * motion.significance(motion.length(field), error)[..., None]


def _tangent(velocity: Drift, error: float, camera: Drift, size: tuple[int, int], steps: int) -> Drift:
    """The velocity as a Hermite tangent: drawn towards the straight way where uncertain, limited where steep."""
    tangent = velocity * steps
    chord, length = motion.root_mean_square(camera, size), motion.root_mean_square(tangent, size)
    tangent = tangent * min(1.0, TANGENT_LIMIT * chord / (length + motion.TINY))
    deviation = tangent - camera
    excess = motion.root_mean_square(deviation, size)
    return camera + deviation * motion.significance(np.array(excess), np.array(error * steps))


def _invert(displacement: Field, reached: Field) -> Field:
    """The positions from which the displacement leads to the reached ones."""
    start = reached
    for _ in range(INVERSION_STEPS):
        start = reached - motion.sample(displacement, start)
    return start


def _inside(points: Field, size: tuple[int, int]) -> Plane:
    """1 inside of the picture, falling to 0 within EDGE_FEATHER outside."""
    width, height = size
    x, y = points[..., 0], points[..., 1]
    margin = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    inside: Plane = np.clip(1.0 + margin / np.float32(EDGE_FEATHER), 0.0, 1.0)
    return inside


def _size_of(field: Field) -> tuple[int, int]:
    return field.shape[1], field.shape[0]


class _Maker:
    """Makes the frames between two others, on a path that is looked at in certain points; serves several threads."""

    def __init__(self, left: Frame, right: Frame, path: _Path, points: Field) -> None:
        self._mixer = Mixer(left, right, path.grid_size)
        self._path, self._points = path, points

    def __call__(self, index: int) -> Frame:
        """The frame ``index`` steps after the left one."""
        return self._mixer.mix(self._path.sources(index, self._points))


def _made_ahead(make: _Maker, count: int) -> Iterator[Frame]:
    """The frames 1 to ``count`` in order, FRAMES_AT_ONCE of them in the making."""
    with ThreadPoolExecutor(FRAMES_AT_ONCE) as threads:
        made: deque[Future[Frame]] = deque()
        for index in range(1, count + 1):
            made.append(threads.submit(make, index))
            if len(made) == FRAMES_AT_ONCE:
                yield made.popleft().result()
        for last in made:
            yield last.result()
