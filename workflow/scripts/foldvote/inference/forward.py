"""Logits of a network for packed images: the one path for validation, OOF and test predictions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import nn

from foldvote.data.packed_images import PackedImages
from foldvote.inference.tta import View
from foldvote.models.factory import normalisation
from foldvote.runtime.device import Device

Sources = dict[str | None, torch.Tensor]


def predict_logits(
    model: nn.Module,
    pixels: PackedImages,
    rows: np.ndarray,
    views: Sequence[View],
    compute: Device,
    batch_size: int,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda batches, _total: batches,
) -> dict[str, np.ndarray]:
    """Predict every image under every view. Each image is read once for all views, and no view changes another's.

    Args:
        model: placed on the device; it is left in evaluation mode.
        pixels: the packed images.
        rows: int64 array of rows of `pixels`.
        views: views made ready for images of this size, as by `tta.ready_views`.
        compute: device, precision and layout.
        batch_size: images in one forward pass.
        track: wraps the batches, of which it is told the number, to show progress.

    Returns:
        For each view, by its name, a float32 array (rows, classes), in the order of `rows`.
    """
    model.eval()
    mean, std = normalisation(model, compute.device)
    parts: dict[str, list[torch.Tensor]] = {view.name: [] for view in views}
    starts = range(0, len(rows), batch_size)
    with torch.inference_mode(), compute.autocast():
        for sources in track(_ahead(pixels, rows, starts, batch_size, views), len(starts)):
            for source, raw in sources.items():
                images = compute.images(raw, mean, std)
                for view in (view for view in views if view.source == source):
                    shown = view.move(images).contiguous(memory_format=compute.layout)
                    parts[view.name].append(model(shown).float())
    return {name: torch.cat(logits).cpu().numpy() for name, logits in parts.items()}


def _ahead(
    pixels: PackedImages, rows: np.ndarray, starts: range, batch_size: int, views: Sequence[View]
) -> Iterator[Sources]:
    """Batches of uint8 images, the next one gathered and changed while the network works on the last."""
    changes = {view.source: view.change for view in views}
    ids = list(pixels.row_of)

    def gather(start: int) -> Sources:
        own = rows[start : start + batch_size]
        images = [pixels[row] for row in own]
        names = [ids[row] for row in own]
        return {
            source: torch.from_numpy(np.stack(list(map(change, images, names)) if change else images))
            for source, change in changes.items()
        }

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(gather, starts[0]) if len(starts) else None
        for start in [*starts[1:], None]:
            if coming is None:
                return
            ready = coming.result()
            coming = thread.submit(gather, start) if start is not None else None
            yield ready
