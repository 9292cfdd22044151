"""Batches: folders of clips, each to be joined into one video; which there are, and what became of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from splice.errors import RequestError
from splice.request import ClipSource, parse_request
from splice.storage import Entry, check_url

CLIP_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".avi")
"""Of the formats that ``splice.media`` opens."""

PARTIAL_SUFFIXES = (
    *(".part", ".partial", ".filepart", ".tmp", ".temp"),
    *(".crdownload", ".download", ".opdownload", ".aria2"),
)
"""How copiers and browsers call a file that is not complete yet."""

Status = Literal["done", "already done", "still being written", "changed", "too few clips", "in progress", "failed"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipFile(_Value):
    """A clip as a listing shows it. modified_seconds: since 1970, UTC."""

    name: str
    url: str
    size_bytes: int
    modified_seconds: float


class Batch(_Value):
    """A folder directly under the source. clips: in natural order. unfinished: names of files that are half there.

    url: the whole path or prefix, without a slash at its end. modified_seconds: of the folder itself; 0 in S3.
    problem: why nobody can tell what is in it; else empty.
    """

    name: str
    url: str
    modified_seconds: float
    clips: tuple[ClipFile, ...] = ()
    unfinished: tuple[str, ...] = ()
    problem: str = ""

    @property
    def run_id(self) -> str:
        """A slug of the name, and a hash of the whole url: no two batches share one."""
        return slug_and_hash(self.name, self.url)

    def with_files(self, files: Iterable[Entry]) -> Batch:
        """The same folder with these files in it."""
        files = tuple(files)
        return self.model_copy(update={"clips": _clips_among(files), "unfinished": _unfinished_among(files)})

    def with_problem(self, problem: str) -> Batch:
        """The same folder, which can't be looked into."""
        return self.model_copy(update={"problem": problem})


class BatchRecord(_Value):
    """What is kept of a batch that is done. result: where its video is."""

    run_id: str
    url: str
    clips: tuple[ClipFile, ...]
    result: str


class Outcome(_Value):
    """What became of a batch in one run. detail: the video, or why there is none."""

    batch: Batch
    status: Status
    detail: str

    @property
    def verdict(self) -> str:
        """``done``, ``failed`` or ``skipped``."""
        return self.status if self.status in ("done", "failed") else "skipped"

    def as_row(self) -> dict[str, Any]:
        """One row of the table that a run ends with."""
        status = self.status if self.status == self.verdict else f"{self.verdict}: {self.status}"
        batch = self.batch
        return {
            "batch": batch.name,
            "clips": len(batch.clips),
            "outcome": status,
            "detail": self.detail,
            "run_id": batch.run_id,
        }


def normal_source(source: str) -> str:
    """A folder's absolute path, or an ``s3://`` prefix without a slash at its end: one spelling for one place.

    Raises RequestError for any other kind of url.
    """
    check_url(source)
    named = ClipSource(url=source)
    if not named.is_remote:
        return str(Path(named.path).resolve())
    if named.scheme != "s3":
        raise RequestError(f"source: got {named.scheme}://; needed: the path of a folder, file:// or s3://")
    return source.rstrip("/")


def find_batches(entries: Iterable[Entry]) -> tuple[Batch, ...]:
    """Every folder that is not hidden, of what lies directly in a source; in natural order, not looked into yet."""
    folders = (entry for entry in entries if entry.is_folder and not entry.name.startswith("."))
    batches = (
        Batch(name=folder.name, url=folder.url.rstrip("/"), modified_seconds=folder.modified_seconds)
        for folder in folders
    )
    return tuple(sorted(batches, key=lambda batch: natural_order(batch.name)))


def natural_order(name: str) -> tuple[list[int | str], str]:
    """A key to sort names by as people do: clip2 before clip10, whatever the case."""
    # Without the suffix: clip.mp4 comes before clip2.mp4.
    parts = re.split(r"(\d+)", PurePath(name).stem.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def slug_and_hash(name: str, identity: str) -> str:
    """A name for keys and ids: lower case letters, digits and dashes, at most 53 of them.

    What is left of ``name`` for people, and 12 hexadecimal digits of a hash of ``identity`` that tell it apart.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "batch"
    return f"{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises RequestError where ``settings`` are no parameters of join-clips, or are such as every batch has its own.

    What depends on the clips is found out by each batch's own run.
    """
    for own in ("clip_list", "run_id"):
        if own in settings:
            raise RequestError(f"settings.{own}: every batch has its own; leave it out")
    overrides = settings.get("per_join_settings")
    clip_count = 2 + (len(overrides) if isinstance(overrides, list) else 0)
    try:
        parse_request({"clip_list": [{"url": "any.mp4"}] * clip_count, "run_id": "any", **settings})
    except RequestError as error:
        raise RequestError(f"settings: {error}") from error


def why_not_settled(batch: Batch, now_seconds: float, settle_seconds: float) -> str | None:
    """Why a batch may still be being written; None where every file has been left alone for ``settle_seconds``.

    A time that lies further ahead than that tells of a clock that is wrong, and of nothing else.
    """
    if batch.unfinished:
        return f"{batch.unfinished[0]} is a copy or a download that is not finished"
    times = {**{clip.name: clip.modified_seconds for clip in batch.clips}, "the folder": batch.modified_seconds}
    for name, modified_seconds in times.items():
        age_seconds = now_seconds - modified_seconds
        if abs(age_seconds) < settle_seconds:
            return f"{name} changed {max(0, round(age_seconds))} s ago, which is less than {settle_seconds:g} s"
    return None


def difference(before: Sequence[ClipFile], after: Sequence[ClipFile]) -> str | None:
    """How the clips of a batch differ from what they were, in words; None where they don't."""
    old, new = ({clip.name: clip for clip in clips} for clips in (before, after))
    changes = [
        *(f"{name} is gone" for name in old if name not in new),
        *(f"{name} is new" for name in new if name not in old),
        *(f"{name} has changed" for name in old if name in new and _stamp(old[name]) != _stamp(new[name])),
    ]
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(changes[:3]) + more if changes else None


def judge(batch: Batch, record: BatchRecord | None, now_seconds: float, settle_seconds: float) -> Outcome | None:
    """Why a batch is not to be joined now; None where it is. record: what is kept of it, if it was done before."""
    if batch.problem:
        return Outcome(batch=batch, status="failed", detail=batch.problem)
    if record is not None:
        if change := difference(record.clips, batch.clips):
            detail = f"{change} since it was joined ({record.result}); under another name it is a new batch"
            return Outcome(batch=batch, status="changed", detail=detail)
        return Outcome(batch=batch, status="already done", detail=record.result)
    if reason := why_not_settled(batch, now_seconds, settle_seconds):
        return Outcome(batch=batch, status="still being written", detail=reason)
    if len(batch.clips) < 2:
        return Outcome(batch=batch, status="too few clips", detail=f"{len(batch.clips)} here, at least 2 are needed")
    return None


def summary(outcomes: Sequence[Outcome]) -> str:
    """``2 done, 3 skipped (2 already done, 1 changed), 1 failed; beach: why``."""
    if not outcomes:
        return "no batches: there is no folder in the source"
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    reasons = Counter(outcome.status for outcome in outcomes if outcome.verdict == "skipped")
    skipped = ", ".join(f"{count} {status}" for status, count in reasons.items())
    counts = (
        f"{verdicts['done']} done, {verdicts['skipped']} skipped{f' ({skipped})' if skipped else ''}, "
        f"{verdicts['failed']} failed"
    )
    failed = [f"{outcome.batch.name}: {outcome.detail}" for outcome in outcomes if outcome.verdict == "failed"]
    more = [f"and {len(failed) - 3} more, see the table"] if len(failed) > 3 else []
    return "; ".join([counts, *failed[:3], *more])


def _clips_among(files: Iterable[Entry]) -> tuple[ClipFile, ...]:
    clips = (
        ClipFile(name=file.name, url=file.url, size_bytes=file.size_bytes, modified_seconds=file.modified_seconds)
        for file in files
        if not file.is_folder and not file.name.startswith(".") and PurePath(file.name).suffix.lower() in CLIP_SUFFIXES
    )
    return tuple(sorted(clips, key=lambda clip: natural_order(clip.name)))


def _unfinished_among(files: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted(file.name for file in files if _is_unfinished(file.name.lower())))


def _is_unfinished(name: str) -> bool:
    """Copiers add a suffix, or hide what they write: ``.clip2.mp4.Xb3kQ1``. ``._clip2.mp4`` is macOS's, and stays."""
    if name.startswith(".") and not name.startswith("._"):
        return any(f".{part}" in CLIP_SUFFIXES for part in name.split(".")) or name.endswith(PARTIAL_SUFFIXES)
    return name.endswith(PARTIAL_SUFFIXES)


def _stamp(clip: ClipFile) -> tuple[int, float]:
    return clip.size_bytes, clip.modified_seconds
