"""Request and probed clips -> Timeline: which frame of the result comes from where. Pure: opens nothing.

Raises RequestError where the clips can't give what the joins take; its ``remedy`` holds settings
that then work.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from splice.errors import RequestError
from splice.format import (
    choose_format,
    choose_sound_format,
    conform_reasons,
    conformed_frame_count,
    encode_reason,
)
from splice.models.protocol import ModelSettings, ModelSpec, WindowRule
from splice.request import JoinRequest, PerJoinSettings
from splice.stride import needed_context, spanned_context, strided_context, strided_gap
from splice.types import (
    Clip,
    Context,
    FrameRange,
    Join,
    JoinSettings,
    Segment,
    Soundtrack,
    Timeline,
    Transition,
    TransitionPiece,
    Unit,
)

AS_IT_IS = "fits as it is"
"""Why packets are copied."""


def plan_timeline(
    request: JoinRequest,
    clips: Sequence[Clip],
    specs: Mapping[str, ModelSpec],
    soundtrack: Soundtrack | None = None,
) -> Timeline:
    """Lay every join of ``request`` to the frame.

    clips: one per entry of ``clip_list``, in its order. specs: of every model that the joins name.
    soundtrack: what the request's ``soundtrack`` was found to be.
    Raises RequestError: what does not fit, by which clip or join, what it has, what is needed, and the
    largest setting that would work (also as ``error.remedy``, settings of the request).
    """
    video_format = choose_format(request, clips)
    counts = tuple(conformed_frame_count(clip, video_format) for clip in clips)
    try:
        transitions = _lay_transitions(request, clips, counts, specs)
    except RequestError as error:
        raise _with_remedy(error, request, clips, counts, specs) from None
    segments = [
        _cut(clip, counts[clip.index], transitions, request.loop, encode_reason(clip, video_format)) for clip in clips
    ]
    joins = _chain(transitions, segments)
    return Timeline(
        format=video_format,
        clips=tuple(clips),
        frame_counts=counts,
        conformed=tuple(conform_reasons(clip, video_format) for clip in clips),
        joins=joins if request.strategy == "sequential" else (_stitch(joins),),
        sound=choose_sound_format(request, clips),
        audio=request.audio,
        soundtrack=soundtrack,
    )


def _lay_transitions(
    request: JoinRequest, clips: Sequence[Clip], counts: Sequence[int], specs: Mapping[str, ModelSpec]
) -> tuple[Transition, ...]:
    settings = [request.settings(join) for join in range(request.join_count)]
    for join, wanted in enumerate(settings):
        _check_overrides(join, wanted, specs[wanted.model])
    _check_fit(settings, clips, counts, specs)
    return tuple(
        _lay_transition(join, wanted, specs[wanted.model], join, (join + 1) % len(clips), counts)
        for join, wanted in enumerate(settings)
    )


def _check_overrides(join: int, settings: JoinSettings, spec: ModelSpec) -> None:
    for override in fields(ModelSettings):
        given = getattr(settings.model_settings, override.name)
        if override.default not in (MISSING, given) and override.name not in spec.overrides:
            asked = "enhance_prompt" if override.name == "prompt_model" else override.name
            raise RequestError(f"join {join}: model {spec.name} has no {asked} to override; leave it out")
    steps = settings.model_settings.num_inference_steps
    if steps is not None and steps % spec.step_multiple:
        raise RequestError(
            f"join {join}: num_inference_steps is {steps}, but model {spec.name} has {spec.step_multiple} phases of "
            f"equally many steps; needed is a multiple of {spec.step_multiple}"
        )


def _taken(settings: JoinSettings, spec: ModelSpec) -> tuple[int, int, int]:
    """(frames removed left, frames removed right, frames blended on each side) by one join."""
    blend = settings.blend_frames if spec.renders_context else 0
    if not settings.replace_mode:
        return 0, 0, blend
    left = settings.gap_frame_count // 2
    return left, settings.gap_frame_count - left, blend


def _check_fit(
    settings: Sequence[JoinSettings], clips: Sequence[Clip], counts: Sequence[int], specs: Mapping[str, ModelSpec]
) -> None:
    """Every clip must hold what its two joins take from it, and one frame at least must be left to show."""
    loop = len(settings) == len(clips)
    taken = [_taken(wanted, specs[wanted.model]) for wanted in settings]
    for i, clip in enumerate(clips):
        before = taken[i - 1] if i > 0 or loop else (0, 0, 0)
        after = taken[i] if i < len(taken) else (0, 0, 0)
        needed = before[1] + after[0] + max(1, before[2] + after[2])
        if needed > counts[i]:
            raise RequestError(
                f"{clip.label} is too short: it has {counts[i]} frames at the timeline's rate, but its joins need "
                f"{needed} ({before[1]} + {after[0]} replaced, {before[2]} + {after[2]} blended, at least 1 kept)"
            )


def _lay_transition(
    join: int, settings: JoinSettings, spec: ModelSpec, left: int, right: int, counts: Sequence[int]
) -> Transition:
    removed_left, removed_right, blend = _taken(settings, spec)
    end = counts[left] - removed_left
    left_frames, right_frames, notes = _window(join, settings, spec, end, counts[right] - removed_right, blend)
    left_read, right_read = min(left_frames, end), min(right_frames, counts[right] - removed_right)
    return Transition(
        join=join,
        settings=settings,
        spec=spec,
        left=Context(left, FrameRange(end - left_read, end), left_frames - left_read),
        right=Context(right, FrameRange(removed_right, removed_right + right_read), right_frames - right_read),
        gap_frame_count=settings.gap_frame_count,
        removed_left=FrameRange(end, counts[left]),
        removed_right=FrameRange(0, removed_right),
        blend_left=FrameRange(end - blend, end),
        blend_right=FrameRange(removed_right, removed_right + blend),
        notes=notes,
    )


def _window(
    join: int, settings: JoinSettings, spec: ModelSpec, left_has: int, right_has: int, blend: int
) -> tuple[int, int, tuple[str, ...]]:
    """(left context, right context, notes): frames that the model is shown, padding included."""
    wanted, gap = settings.context_frame_count, settings.gap_frame_count
    if spec.window is None:
        wanted = min(wanted, spec.max_context or wanted)
        return min(wanted, left_has), min(wanted, right_has), ()
    multiple, limit = spec.window.multiple, spec.window.max_frames
    stride = settings.model_settings.time_stride
    modelled, has = strided_gap(gap, stride), strided_context(right_has, stride)
    least = needed_context(max(1, blend), stride)
    for context in range(wanted, least - 1, -1):
        left, right = window_context(context, modelled, has, spec.window)
        fits = left + modelled + right <= limit and spanned_context(min(left, right), stride) >= blend
        if fits and keeps_whole_latents(left, modelled, right, multiple):
            shrunk = f"context shrunk from {wanted} to {context} frames to fit a window of {limit}"
            notes = (shrunk,) if context < wanted else ()
            return spanned_context(left, stride), spanned_context(right, stride), notes
    left, right = window_context(least, modelled, has, spec.window)
    if right < least:
        raise RequestError(
            f"join {join}: the right clip is too short: it has {right_has} frames beyond the gap, of which "
            f"{spec.name} sees {right} (whole groups of {multiple}), but {blend} are needed to blend"
        )
    if left + modelled + right <= limit:
        raise RequestError(
            f"join {join}: no window of {spec.name} holds a gap of {gap} frames with time_stride={stride} in latents "
            f"of its own; choose another gap_frame_count or time_stride"
        )
    raise RequestError(
        f"join {join}: a gap of {gap} frames with {blend} blended on each side needs a window of "
        f"{left + modelled + right} frames, but {spec.name} has one of {limit} frames at most; a time_stride above "
        f"{stride} models fewer of them"
    )


def window_context(context: int, gap: int, right_has: int, rule: WindowRule) -> tuple[int, int]:
    """(left, right) context frames of a window of ``multiple * n + 1`` frames around an exact gap.

    Right is ``context`` rounded up to a multiple (down, but at least one multiple, where the clip is
    shorter), so that the latents of the right side hold whole groups; left is the smallest number of at
    least max(context, 2) that completes the window (Wan's VAE: the first frame alone, then groups of 4).
    """
    multiple = rule.multiple
    right = math.ceil(context / multiple) * multiple
    if right > right_has:
        right = max(right_has // multiple, 1) * multiple
    left = max(context, 2)
    return left + (1 - left - gap - right) % multiple, right


def keeps_whole_latents(left: int, gap: int, right: int, multiple: int) -> bool:
    """Whether every latent that holds a gap frame is marked to be generated.

    The pipeline takes one frame of the mask for each latent (nearest-exact), wherever that lies: a gap
    of a single frame may be missed.
    """
    window = left + gap + right
    latents = window // multiple + 1
    holding = (n for n in range(latents) if multiple * n >= left and multiple * (n - 1) + 1 < left + gap)
    return all(left <= (2 * n + 1) * window // (2 * latents) < left + gap for n in holding)


def _cut(
    clip: Clip, frame_count: int, transitions: Sequence[Transition], loop: bool, obstacle: str
) -> tuple[Segment, ...]:
    """A clip's segments, in order, without those that are empty."""
    before = transitions[clip.index - 1] if clip.index > 0 or loop else None
    after = transitions[clip.index] if clip.index < len(transitions) else None
    start = before.blend_right.stop if before else 0
    stop = after.blend_left.start if after else frame_count
    cuts = None if obstacle else clip.cut_points
    first = cuts.first_start(start) if cuts else None
    if cuts is None or first is None or first >= (last := cuts.last_stop(stop)):
        reason = obstacle or "no keyframe from which on it could be copied"
        pieces = [
            Segment(clip.index, FrameRange(0, start), "head", "encode", reason),
            Segment(clip.index, FrameRange(start, stop), "body", "encode", reason),
            Segment(clip.index, FrameRange(stop, frame_count), "tail", "encode", reason),
        ]
    else:
        pieces = [
            Segment(clip.index, FrameRange(0, first), "head", "passthrough", AS_IT_IS),
            Segment(clip.index, FrameRange(start, first), "lead", "encode", "before the first keyframe after the seam"),
            Segment(clip.index, FrameRange(first, last), "body", "passthrough", AS_IT_IS),
            Segment(clip.index, FrameRange(last, stop), "trail", "encode", "decoded from frames beyond the seam"),
            Segment(clip.index, FrameRange(last, frame_count), "tail", "passthrough", AS_IT_IS),
        ]
    return tuple(piece for piece in pieces if piece.frame_count)


def _chain(transitions: Sequence[Transition], segments: Sequence[tuple[Segment, ...]]) -> tuple[Join, ...]:
    """Each join keeps its predecessor's output but for the interim units, and adds the seam and the next clip."""
    shown = _first_shown(segments[0])
    joins: list[Join] = []
    for transition in transitions:
        following = _first_shown(segments[transition.right.clip]) if transition.right.clip else ()
        trail = _of_role(segments[transition.left.clip], "trail")
        before, pieces = _divide(transition)
        if transition.right.clip == 0:
            before += _of_role(segments[0], "lead")
        after = (*trail, *pieces, *following)
        kept_units = tuple(unit for unit in shown if not _is_replaced(unit, transition))
        skipped = shown[0].frame_count if shown[0] not in kept_units else 0
        kept = FrameRange(skipped, skipped + sum(unit.frame_count for unit in kept_units))
        output = (*before, *kept_units, *after)
        # The first join has no predecessor to copy from: it begins with the first clip itself.
        start = (kept_units, None) if not joins else (before, kept)
        joins.append(Join(f"join_{transition.join}", (transition,), start[0], start[1], after, output))
        shown = output
    return tuple(joins)


def _stitch(chain: Sequence[Join]) -> Join:
    """The chain's last output, made at once."""
    last = chain[-1]
    transitions = tuple(transition for join in chain for transition in join.transitions)
    return Join("stitch", transitions, (), None, last.output, last.output)


def _first_shown(segments: Sequence[Segment]) -> tuple[Unit, ...]:
    """What a clip shows until the next join: not what only follows from a seam that is still to come."""
    is_first = segments[0].clip == 0
    hidden = ("trail", "lead") if is_first else ("trail", "head")
    return tuple(segment for segment in segments if segment.role not in hidden)


def _of_role(segments: Sequence[Segment], role: str) -> tuple[Unit, ...]:
    return tuple(segment for segment in segments if segment.role == role)


def _divide(transition: Transition) -> tuple[tuple[Unit, ...], tuple[Unit, ...]]:
    """(units before, units after what is kept): a loop's closing transition ends where the video starts."""
    total = transition.frame_count
    closes_loop = transition.right.clip == 0
    stop = total - len(transition.blend_right) if closes_loop else total
    after = TransitionPiece(transition.join, FrameRange(0, stop), "transition")
    if stop == total:
        return (), (after,)
    return (TransitionPiece(transition.join, FrameRange(stop, total), "transition_head"),), (after,)


def _is_replaced(unit: Unit, transition: Transition) -> bool:
    """Whether ``unit`` is the interim end of a clip that this transition takes the place of."""
    if not isinstance(unit, Segment):
        return False
    is_tail = unit.role == "tail" and unit.clip == transition.left.clip
    return is_tail or (unit.role == "head" and unit.clip == transition.right.clip)


def _with_remedy(
    error: RequestError,
    request: JoinRequest,
    clips: Sequence[Clip],
    counts: Sequence[int],
    specs: Mapping[str, ModelSpec],
) -> RequestError:
    """The same error, saying the largest setting that works: found by trying, so that it is true."""

    def works(**limits: Any) -> bool:
        try:
            _lay_transitions(limit_settings(request, limits), clips, counts, specs)
        except RequestError:
            return False
        return True

    def largest(name: str, lowest: int, others: Mapping[str, Any]) -> dict[str, Any] | None:
        values = range(lowest, max(getattr(request.settings(j), name) for j in range(request.join_count)) + 1)
        count = bisect.bisect_left(values, True, key=lambda value: not works(**{**others, name: value}))
        limit = {name: values[count - 1]} if count < len(values) else {}
        return {**others, **limit} if count else None

    def found() -> Iterator[dict[str, Any] | None]:
        # Without replacing there is nothing that vid2vid could start from.
        modes = ({}, {"replace_mode": False}) if request.vid2vid_strength is None else ({},)
        for mode in modes:
            yield largest("gap_frame_count", 1, mode)
            yield largest("blend_frames", 0, mode)
            unblended = largest("gap_frame_count", 1, {**mode, "blend_frames": 0})
            yield unblended and largest("blend_frames", 0, unblended)

    remedy = next(filter(None, found()), None)
    if remedy is None:
        return error
    said = " and ".join(
        f"{name} false" if value is False else f"{name} of at most {value}" for name, value in remedy.items()
    )
    return RequestError(f"{error}; what works: {said} at every join", remedy=remedy)


_Limited = TypeVar("_Limited", JoinRequest, PerJoinSettings)


def limit_settings(request: JoinRequest, limits: Mapping[str, Any]) -> JoinRequest:
    """``request`` with every join's frame counts (and replace_mode) held to at most ``limits``."""

    def limited(settings: _Limited) -> _Limited:
        changes = {
            name: min(getattr(settings, name), value)
            for name, value in limits.items()
            if getattr(settings, name) is not None
        }
        return settings.model_copy(update=changes)

    return limited(request).model_copy(update={"per_join_settings": [limited(s) for s in request.per_join_settings]})
