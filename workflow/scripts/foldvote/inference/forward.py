"""Logits of a network for packed images, used for validation, out-of-fold and test predictions alike."""

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
    images: PackedImages,
    rows: np.ndarray,
    views: Sequence[View],
    device: Device,
    batch_size: int,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda batches, _total: batches,
) -> dict[str, np.ndarray]:
    """Predict every image under every view. Each image is read once for all views.

    Args:
        model: the network, placed on the device; it is left in evaluation mode.
        images: the packed images.
        rows: positions in `images`, int64 (rows,).
        views: views for images of this size, made by `tta.ready_views`.
        device: where and how the network runs.
        batch_size: number of images in a forward pass.
        track: called with the batches and their number; returns the same batches and may show progress.

    Returns:
        By the name of each view a float32 array (rows, classes), in the order of `rows`.
    """
    model.eval()
    mean, std = normalisation(model, device.torch_device)
    parts: dict[str, list[torch.Tensor]] = {view.name: [] for view in views}
    starts = range(0, len(rows), batch_size)
    with torch.inference_mode(), device.autocast():
        for sources in track(_prefetch(images, rows, starts, batch_size, views), len(starts)):
            for source, raw in sources.items():
                batch = device.normalise(raw, mean, std)
                for view in (view for view in views if view.source == source):
                    moved = view.move(batch).contiguous(memory_format=device.layout)
                    parts[view.name].append(model(moved).float())
    return {name: torch.cat(logits).cpu().numpy() for name, logits in parts.items()}


def _prefetch(
    images: PackedImages, rows: np.ndarray, starts: range, batch_size: int, views: Sequence[View]
) -> Iterator[Sources]:
    """Yield batches of uint8 images by view source; a thread prepares the next batch while the network runs."""
    changes = {view.source: view.change for view in views}
    ids = list(images.row_of)

    def gather(start: int) -> Sources:
        batch_rows = rows[start : start + batch_size]
        batch = [images[row] for row in batch_rows]
        names = [ids[row] for row in batch_rows]
        return {
            source: torch.from_numpy(np.stack(list(map(change, batch, names)) if change else batch))
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
