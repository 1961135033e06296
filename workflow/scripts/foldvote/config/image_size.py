"""How images become arrays of one size: the text of a size in the configuration, the region, and how it fits."""

from typing import NamedTuple


def parse_size(size: str) -> tuple[int, int]:
    """`"128x96"` -> (128, 96): height and width in pixels."""
    height, width = size.split("x")
    return int(height), int(width)


class Framing(NamedTuple):
    """What of an image is seen, and how it becomes an array of one size; packed images have one framing.

    Attributes:
        size: height x width in pixels, such as "128x96".
        roi: region of interest, as in the configuration.
        fit: what becomes of a region of another aspect ratio: squash, pad or crop.
    """

    size: str
    roi: str
    fit: str = "squash"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return parse_size(self.size)

    @property
    def of_faces(self) -> bool:
        """Whether the region is the face, which has to be found."""
        return self.roi.startswith("face-")

    @property
    def record(self) -> dict[str, str]:
        """What a file says of its images: size, roi, and fit where it is not squash."""
        return {"size": self.size, "roi": self.roi} | ({} if self.fit == "squash" else {"fit": self.fit})

    @property
    def folder(self) -> str:
        """The folder of packed images, such as `size=128x96/roi=none` or `size=128x96/roi=none/fit=pad`."""
        return "/".join(f"{name}={value}" for name, value in self.record.items())
