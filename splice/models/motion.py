"""Motion between pictures: dense optical flow, the camera's share of it, and how far either can be trusted.

Positions and displacements are in pixels of the *grid*, a small picture of the frame, x before y, pixel centres at
whole numbers. A displacement field is (h, w, 2) float32; a plane of weights (h, w) float32 in 0..1.
A *drift* is an affine displacement, 3 x 3 with a last row of zeros: the point (x, y, 1) moves by ``drift @ (x, y, 1)``,
so that drifts add up and scale like vectors.

Sources: dense inverse search (DIS), Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, in
OpenCV; robust regression by iteratively reweighted least squares, Holland & Welsch 1977, with the Geman-McClure weight;
corner strength, Shi & Tomasi 1994; forward/backward check, Sundaram, Brox & Keutzer, ECCV 2010. All of it is
deterministic, whatever the number of threads: no random sampling, no state shared between calls.

Fails where there is no texture to follow, on motion that is fast and repetitive, and on motion blur: the trust is
low there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from splice.models.protocol import Frame

Values = NDArray[Any]
Grey = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Field = Floats
Plane = Floats
Drift = Floats

MIN_SIDE = 32  # DIS has no pyramid to search on below that
GRID_LONG_SIDE = 320  # what flow finds is no finer: a patch of DIS is 8 pixels wide
MATCH_LONG_SIDE = 640  # flow's error grows with the gap's motion, and over a long one is worth four times the pixels
STRIDE = 3  # pixels between the patches of a flow, which are 8 wide
MOST_REFINEMENTS = 5  # of a flow
BASELINE_FRAMES = 3  # flow errs by a fixed part of a pixel, so a longer baseline measures a slow motion better
CAMERA_STRIDE = 8  # grid pixels; what is closer together tells little new: a patch of DIS is 4 to 8 wide
CAMERA_ITERATIONS = 15
CAMERA_MIN_SCALE = 0.05  # grid pixels; the precision of DIS, so that a perfect fit is not divided by zero
TRUSTED_ERROR = 1.0  # pixels of what is matched between going and coming back, up to which a flow is fully trusted
DISTRUSTED_ERROR = 4.0  # and from which on not at all
ERROR_ALLOWANCE = 0.05  # of a displacement: long ones come back less exactly (Sundaram et al.)
ERROR_BLUR = 2.0  # grid pixels; an error from so few values is itself uncertain, its neighbours know more
TEXTURE_WINDOW = 5  # grid pixels; about what a patch of DIS weighs in
OUTLIER_SCALE = 1.5  # near the standard deviation's 1.4826 of the median residual: beyond it a point loses its say
TINY = 1e-6  # against division by zero

# Whole flows and frames are what runs side by side here. OpenCV's own threads, which are all of the process's, would
# spin for one another: on two cores a transition takes a third longer with them, one stream of flows a quarter.
cv2.setNumThreads(max(1, cv2.getNumThreads() // 4))


@dataclass(frozen=True)
class Velocity:
    """How a context moves at the seam, in grid pixels a frame, forwards in time.

    drift: the camera's part, and drift_error its standard error (root mean square over the picture).
    local: what remains of the flow without the camera, (h, w, 2); local_error (h, w) its standard error.
    """

    drift: Drift
    drift_error: float
    local: Field
    local_error: Plane


@dataclass(frozen=True)
class Match:
    """Dense correspondence of two pictures: ``left[x] ~ right[x + forward[x]]`` and the other way round.

    The trusts are 1 where forward and backward flow undo each other, 0 where they don't (occluded, or unrelated).
    fineness: grid pixels that a pixel of the matched pictures is wide; at most 1.
    """

    forward: Field
    backward: Field
    forward_trust: Plane
    backward_trust: Plane
    fineness: float

    @property
    def relatedness(self) -> float:
        """Mean trust, 0..1: at most 0.11 across the cuts measured, within shots below 0.15 on a fast camera alone."""
        return float(self.forward_trust.mean() + self.backward_trust.mean()) / 2.0

    def found(self, texture: Plane) -> float:
        """How much of the left picture's texture the right one has, 0..1; what is flat does not count."""
        return float((self.forward_trust * texture).sum() / (texture.sum() + TINY))


def grid_size(frame: Frame, long_side: int = GRID_LONG_SIDE) -> tuple[int, int]:
    """(width, height) of a grid for a frame: the longer side is ``long_side``, the shorter at least MIN_SIDE."""
    height, width = frame.shape[:2]
    scale = long_side / max(height, width)
    return max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))


def to_grey(frame: Frame, size: tuple[int, int]) -> Grey:
    """The frame on the grid of ``size`` (width, height), as 8-bit luma, the same whatever the frame's depth."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if grey.dtype == np.uint16:
        grey = cv2.convertScaleAbs(grey, alpha=1 / 257)
    small: Grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return small


def positions(size: tuple[int, int]) -> Field:
    """Every grid pixel's own position, (h, w, 2)."""
    width, height = size
    places = np.empty((height, width, 2), np.float32)
    places[..., 0] = np.arange(width)
    places[..., 1] = np.arange(height)[:, None]
    return places


def transform(matrix: Floats, points: Field) -> Field:
    """``matrix @ (x, y, 1)`` of every point, for a 3 x 3 matrix; of a drift, the displacement there."""
    moved: Field = cv2.transform(points, matrix[:2].astype(np.float32))
    return moved


def sample(image: Values, points: Field) -> Values:
    """The image (or field) at the points, bilinear; its edge goes on outside."""
    sampled: Values = cv2.remap(image, points, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled


def length(field: Field) -> Plane:
    """Of every displacement."""
    lengths: Plane = cv2.magnitude(*cv2.split(field))
    return lengths


def blur(values: Floats, sigma: float) -> Floats:
    """Gaussian, sigma in grid pixels."""
    blurred: Floats = cv2.GaussianBlur(values, (0, 0), sigma)
    return blurred


def smoothstep(values: Floats, low: float, high: float) -> Plane:
    """0 at ``low``, 1 at ``high``, with zero slope at both (Hermite)."""
    ramp = np.clip((values - low) / (high - low), 0.0, 1.0)
    smooth: Plane = ramp * ramp * (3.0 - 2.0 * ramp)
    return smooth


def significance(size: Floats, error: Floats) -> Floats:
    """What part of a measured value to believe: 0 within two standard errors, towards 1 far beyond.

    The positive-part shrinkage of James & Stein 1961.
    """
    shrunk: Floats = np.maximum(0.0, 1.0 - (2.0 * error) ** 2 / (np.square(size) + TINY))
    return shrunk


def root_mean_square(drift: Drift, size: tuple[int, int]) -> float:
    """The drift's length over a picture of that (width, height), in grid pixels."""
    width, height = size
    # Of mean and variances of the positions: x and y are independent on a grid.
    at_centre = drift @ [(width - 1) / 2, (height - 1) / 2, 1.0]
    variances = [(width**2 - 1) / 12, (height**2 - 1) / 12]
    return float(np.sqrt(at_centre @ at_centre + (drift[:, :2] ** 2 @ variances).sum()))


def estimate_flow(
    start: Grey, end: Grey, finest_scale: int = 0, refinements: int = MOST_REFINEMENTS, stride: int = STRIDE
) -> Field:
    """Dense flow: what is at x in ``start`` is at ``x + flow[x]`` in ``end``.

    finest_scale: 0: searched for in the picture itself; 1: in one of half the size, in a quarter of the time.
    refinements: variational ones, at every scale; all of them take up to as long as the rest.
    stride: pixels between the patches that are searched for.
    """
    # A new object for every call: DIS keeps its buffers, so one must not serve two threads.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(finest_scale)
    search.setVariationalRefinementIterations(refinements)
    search.setPatchStride(stride)
    flow: Field = search.calc(start, end, None)
    return flow


def texture(grey: Grey) -> Plane:
    """How well flow can hold on to each pixel, 0..1: corner strength, relative to the picture's median."""
    strength = np.sqrt(np.maximum(blur(cv2.cornerMinEigenVal(grey, TEXTURE_WINDOW), ERROR_BLUR), 0.0))
    held: Plane = strength / (strength + np.median(strength) + TINY)
    return held


def fit_drift(flow: Field, weight: Plane) -> Drift:
    """The affine motion that most of the flow follows: the camera's, while moving things are outliers.

    weight: (h, w), >= 0. Reweighted least squares from the median on; the scale of what counts as an outlier follows
    the median residual down. Unlike RANSAC it draws no random numbers.
    """
    height, width = flow.shape[:2]
    every = np.s_[CAMERA_STRIDE // 2 :: CAMERA_STRIDE, CAMERA_STRIDE // 2 :: CAMERA_STRIDE]
    centre, reach = np.array([(width - 1) / 2, (height - 1) / 2]), max(width, height) / 2
    points = (positions((width, height))[every].reshape(-1, 2) - centre) / reach
    targets = flow[every].reshape(-1, 2).astype(np.float64)
    prior = weight[every].ravel().astype(np.float64) + TINY
    design = np.column_stack([points, np.ones(len(points))])
    solution = np.vstack([np.zeros((2, 2)), np.median(targets, axis=0)])
    for _ in range(CAMERA_ITERATIONS):
        residual = np.linalg.norm(targets - design @ solution, axis=1)
        scale = max(CAMERA_MIN_SCALE, OUTLIER_SCALE * float(np.median(residual)))
        weighted = design * (prior / (1.0 + (residual / scale) ** 2) ** 2)[:, None]
        ridge = TINY * weighted[:, 2].sum() * np.eye(3)
        solution = np.linalg.solve(design.T @ weighted + ridge, weighted.T @ targets)
    drift = np.zeros((3, 3))
    drift[:2, :2] = solution[:2].T / reach
    drift[:2, 2] = solution[2] - drift[:2, :2] @ centre
    return drift


def measure_velocity(frames: Frame, refinements: int = MOST_REFINEMENTS, stride: int = STRIDE) -> Velocity:
    """The velocity of a run of frames, (N, H, W, 3), on their grid; zero, and exactly so, for one frame.

    Medians over overlapping pairs, BASELINE_FRAMES apart: of three pairs or more they shrug off what spoils one, a
    failed flow or an outermost frame that is there twice; of two they are means. The error is 1.4826 times the median
    absolute deviation over the root of their number. refinements, stride: see ``estimate_flow``.
    """
    size = grid_size(frames[0])
    greys = [to_grey(frame, size) for frame in frames]
    span = min(BASELINE_FRAMES, len(greys) - 1)
    if span == 0:
        plane = np.zeros((size[1], size[0]), np.float32)
        return Velocity(np.zeros((3, 3)), 0.0, np.dstack([plane, plane]), plane)
    pairs = list(zip(greys[:-span], greys[span:], strict=True))
    search = partial(estimate_flow, refinements=refinements, stride=stride)
    flows = np.stack([search(*pair) / np.float32(span) for pair in pairs])
    drifts = np.stack([fit_drift(flow, texture(start)) for flow, (start, _) in zip(flows, pairs, strict=True)])
    to_error = 1.4826 / np.sqrt(len(pairs))
    drift, flow = np.median(drifts, axis=0), _median(flows)
    spread = length(_median(np.abs(flows - flow)))
    return Velocity(
        drift=drift,
        drift_error=float(to_error * np.median([root_mean_square(each - drift, size) for each in drifts])),
        local=flow - transform(drift, positions(size)),
        local_error=blur((to_error * spread).astype(np.float32), ERROR_BLUR),
    )


def match(
    left: Frame,
    right: Frame,
    guess: Drift,
    long_side: int = MATCH_LONG_SIDE,
    refinements: int = MOST_REFINEMENTS,
) -> Match:
    """Matches two frames, the camera having moved by about ``guess`` in between, on their grid.

    long_side: pixels of the pictures looked at, where the footage has as many. refinements: see ``estimate_flow``.

    Looks at pictures finer than the grid, where the footage is. Both are taken half the way towards each other first,
    so that the flow has only to find what the guess leaves, and sees the same blur of resampling in both.
    """
    size = grid_size(left)
    fine = grid_size(left, max(GRID_LONG_SIDE, min(long_side, max(left.shape[:2]))))
    fine_grid, fine_guess = positions(fine), _rescale(guess, size, fine)
    to_middle = np.eye(3) + 0.5 * fine_guess
    to_left = np.linalg.inv(to_middle)
    to_right = (np.eye(3) + fine_guess) @ to_left
    middle_left = sample(to_grey(left, fine), transform(to_left, fine_grid))
    middle_right = sample(to_grey(right, fine), transform(to_right, fine_grid))
    flow = partial(estimate_flow, refinements=refinements)
    with ThreadPoolExecutor(2) as threads:
        ahead, back = threads.map(flow, (middle_left, middle_right), (middle_right, middle_left))
    from_left, from_right = transform(to_middle, fine_grid), transform(np.linalg.inv(to_right), fine_grid)
    forward = transform(to_right, from_left + sample(ahead, from_left)) - fine_grid
    backward = transform(to_left, from_right + sample(back, from_right)) - fine_grid
    trusts = _trust(forward, backward, fine_grid), _trust(backward, forward, fine_grid)
    fineness = np.array([size[0] / fine[0], size[1] / fine[1]], np.float32)
    return Match(
        forward=_shrink(forward, size) * fineness,
        backward=_shrink(backward, size) * fineness,
        forward_trust=_shrink(trusts[0], size),
        backward_trust=_shrink(trusts[1], size),
        fineness=float(fineness.min()),
    )


def _median(fields: Floats) -> Floats:
    """Of (N, ...) along N, finite; three times as fast as numpy's."""
    ordered = cv2.sort(fields.reshape(len(fields), -1), cv2.SORT_EVERY_COLUMN | cv2.SORT_ASCENDING)
    middle: Floats = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return middle.reshape(fields.shape[1:])


def _shrink(values: Floats, size: tuple[int, int]) -> Floats:
    shrunk: Floats = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    return shrunk


def _rescale(drift: Drift, start: tuple[int, int], end: tuple[int, int]) -> Drift:
    """A drift on the grid of one size, on one of another."""
    scale_x, scale_y = end[0] / start[0], end[1] / start[1]
    enlarge = np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]])
    rescaled: Drift = enlarge @ drift @ np.linalg.inv(enlarge)
    return rescaled


def _trust(there: Field, back: Field, grid: Field) -> Plane:
    error = length(there + sample(back, grid + there))
    allowed = np.float32(ERROR_ALLOWANCE) * length(there)
    return 1.0 - smoothstep(error - allowed, TRUSTED_ERROR, DISTRUSTED_ERROR)
