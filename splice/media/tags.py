"""Colour tags: code points of ITU-T H.273 (07/2021), tables 2 to 4, by FFmpeg's names; conventions for the untagged."""

from __future__ import annotations

import av

from splice.errors import RequestError
from splice.types import ColorTags

UNSPECIFIED = 2

PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    11: "iec61966-2-4",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    18: "arib-std-b67",
}
MATRICES = {
    0: "gbr",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020nc",
}

_FAMILIES = {"bt2020nc": ("bt2020", "bt2020-10"), "bt709": ("bt709", "bt709"), "gbr": ("bt709", "iec61966-2-1")}
"""(primaries, transfer) that go with a matrix where a file leaves them out; BT.601's else."""

HD_HEIGHT = 720
"""Untagged pictures from this height on count as BT.709, smaller ones as BT.601: the convention of players."""


def read_color_tags(frame: av.VideoFrame, path: str) -> ColorTags:
    """A decoded frame's colour, what it leaves out filled in by convention and named in ``assumed``.

    Raises RequestError for colour that can't be converted, such as YCgCo or constant-luminance BT.2020.
    """
    components = {
        "matrix": (int(frame.colorspace), MATRICES),
        "primaries": (int(frame.color_primaries), PRIMARIES),
        "transfer": (int(frame.color_trc), TRANSFERS),
    }
    found: dict[str, str] = {}
    for what, (code, names) in components.items():
        if code not in names and code not in (0, UNSPECIFIED):
            raise RequestError(
                f"{path}: colour {what} {code} (ITU-T H.273) is not supported; convert the clip to BT.709 first"
            )
        if code in names and (code != 0 or frame.format.is_rgb):
            found[what] = names[code]
    is_full = frame.format.is_rgb or frame.format.name.startswith("yuvj") or int(frame.color_range) == 2
    return _complete(found, frame, is_full)


def _complete(found: dict[str, str], frame: av.VideoFrame, is_full: bool) -> ColorTags:
    by_size = "bt709" if min(frame.width, frame.height) >= HD_HEIGHT else "smpte170m"
    matrix = found.get("matrix", "gbr" if frame.format.is_rgb else by_size)
    primaries, transfer = _FAMILIES.get(matrix, ("smpte170m", "smpte170m"))
    return ColorTags(
        matrix=matrix,
        primaries=found.get("primaries", primaries),
        transfer=found.get("transfer", transfer),
        full_range=is_full,
        assumed=tuple(what for what in ("matrix", "primaries", "transfer") if what not in found),
    )


def code_of(name: str, names: dict[int, str]) -> int:
    """The H.273 code point of one of the names above."""
    return next(code for code, known in names.items() if known == name)
