"""The honest baseline: a plain dissolve between the two frames that touch the seam.

Knows nothing of motion: whatever moves is seen twice, half transparent. Every other model is measured against it.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2

from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering


class Crossfade:
    """Dissolves from the last left frame to the first right one; renders the gap alone, in any window length."""

    spec = ModelSpec(name="crossfade", revision="1", renders_context=False, max_context=1, reads_seed=False)

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        """Frames i = 0..g-1 mix in ``(i + 1) / (g + 1)`` of the right side, so that neither end is held twice.

        Reads no settings. The frames have the guide's dtype and size and are made one by one.
        """
        return Rendering(frames=_dissolve(guide))


def _dissolve(guide: Guide) -> Iterator[Frame]:
    left, right = guide.left[-1], guide.right[0]
    for index in range(guide.gap_frames):
        alpha = (index + 1) / (guide.gap_frames + 1)
        yield cv2.addWeighted(left, 1.0 - alpha, right, alpha, 0.0)
