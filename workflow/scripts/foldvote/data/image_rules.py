"""What decoding needs to know of the configuration, so that it works without it."""

from collections.abc import Sequence
from typing import Protocol


class ImageRules(Protocol):
    """Which images are accepted, as the configuration's section `images` says it; here no more is known of that."""

    @property
    def formats(self) -> Sequence[str]:
        """Formats by content, such as `PNG`."""

    @property
    def tolerate_tail(self) -> bool:
        """Whether a JPEG may lack its end marker."""

    @property
    def animated(self) -> str:
        """What is done with several frames: `refuse` or `first_frame`."""

    @property
    def background(self) -> tuple[int, int, int]:
        """RGB colour put behind transparent pixels."""

    @property
    def min_side(self) -> int:
        """Smallest accepted height and width in pixels."""

    @property
    def max_megapixels(self) -> float:
        """Largest accepted area."""
