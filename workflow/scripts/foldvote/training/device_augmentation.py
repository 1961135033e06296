"""Augmentation of whole batches on the device that trains; what happens to each image was drawn by its loader.

An image is changed alike in whatever batch it comes: nothing is computed over several images, means are of integers,
and the noise of erased rectangles is a hash of a number that was drawn for the image and of the pixel's place.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F

Changes = Sequence[tuple[str, torch.Tensor]]

_PIXELS_AT_ONCE = 2**24  # which take about a gigabyte


def augmented(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor, Changes]], device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Make the changes that a loader left to the device.

    Args:
        batches: uint8 images (batch, height, width, 3), targets, and changes: none where the loader made them.
        device: that trains.

    Yields:
        The images, uint8 of the same shape, on the device if they had changes to be made; and the targets as they are.
    """
    for images, targets, changes in batches:
        yield (augment_batch(images.to(device, non_blocking=True), changes) if changes else images), targets


def augment_batch(images: torch.Tensor, changes: Changes) -> torch.Tensor:
    """Change images in the way that was drawn for each.

    Args:
        images: uint8 (batch, height, width, 3).
        changes: as of augmentation_draws.draw_changes, on any device.

    Returns:
        uint8 images of the same shape on the same device.
    """
    moved = [(kind, numbers.to(images.device, non_blocking=True)) for kind, numbers in changes]
    at_once = max(_PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]), 1)
    parts = []
    for start in range(0, len(images), at_once):
        rows = slice(start, start + at_once)
        part = images[rows].permute(0, 3, 1, 2).float()
        for kind, numbers in moved:
            part = _CHANGE[kind](part, numbers[rows])
        parts.append(part.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
    return torch.cat(parts).contiguous()


def _move(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Sample images where matrices (batch, 2, 3) say, linearly; outside they are mirrored."""
    height, width = images.shape[2:]
    across = ((2 * torch.arange(width, device=images.device) + 1) / width - 1).view(1, 1, width)
    down = ((2 * torch.arange(height, device=images.device) + 1) / height - 1).view(1, height, 1)
    # Not by a product of matrices, whose sums depend on their number, and on a GPU may be inexact.
    rows = matrices[..., None, None].unbind(1)
    places = [row[:, 0] * across + row[:, 1] * down + row[:, 2] for row in rows]
    return F.grid_sample(images, torch.stack(places, dim=-1), padding_mode="reflection", align_corners=False)


def _colour(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue, in this order, by numbers (batch, 4)."""
    brightness, contrast, saturation, hue = numbers[..., None, None, None].unbind(1)
    images = (images * brightness).clamp(0, 255)
    mean = _grey(images).round().sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64) / images[0, 0].numel()
    images = (images * contrast + mean * (1 - contrast)).clamp(0, 255)
    images = (images * saturation + _grey(images) * (1 - saturation)).clamp(0, 255)
    return _shift_hue(images, hue)


def _grey(images: torch.Tensor) -> torch.Tensor:
    """The luma (ITU-R BT.601) of images: (batch, 1, height, width)."""
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _shift_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Add to the hue of HSV; value and saturation stay.

    Args:
        images: (batch, 3, height, width), in any range from 0 up.
        turns: what is added, 1 for the whole circle of hues, (batch, 1, 1, 1).
    """
    red, green, blue = images.split(1, dim=1)
    value, least = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    span = value - least
    safe = torch.where(span > 0, span, 1)
    sixths = torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    sixths = torch.where(value == red, (green - blue) / safe, sixths) + 6 * turns
    offsets = (5 - 2 * torch.arange(3, device=images.device)).view(1, 3, 1, 1)  # of red, green and blue
    distance = (sixths + offsets) % 6
    return value - span * torch.minimum(distance, 4 - distance).clamp(0, 1)


def _erase(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Fill rectangles with noise; numbers (batch, 5): top, bottom, left, right, and what the noise is drawn by."""
    top, bottom, left, right, key = numbers[..., None, None, None].unbind(1)
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device).view(1, 1, height, 1)
    x = torch.arange(width, device=images.device).view(1, 1, 1, width)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    bits = _hashed(key.long() * 0x9E3779B1 + y * width + x)
    noise = bits >> (8 * torch.arange(3, device=images.device)).view(1, 3, 1, 1) & 255
    return torch.where(inside, noise.float(), images)


def _hashed(numbers: torch.Tensor) -> torch.Tensor:
    """32 well-mixed bits of each number from 0 up, int64 of the same shape; no product leaves int64."""
    bits = numbers & 0xFFFFFFFF
    for _ in range(2):
        bits = (bits ^ bits >> 16) * 0x45D9F3B & 0xFFFFFFFF
    return bits ^ bits >> 16


_CHANGE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "geometry": _move,
    "colour": _colour,
    "erase": _erase,
}
