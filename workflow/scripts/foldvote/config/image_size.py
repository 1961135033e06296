"""The text of an image size in the configuration."""


def parse_size(size: str) -> tuple[int, int]:
    """`"128x96"` -> (128, 96): height and width in pixels."""
    height, width = size.split("x")
    return int(height), int(width)
