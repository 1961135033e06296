"""Logits of a network for packed images: the one path for validation, OOF and test predictions."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from foldvote.compute import Compute
from foldvote.models import normalisation
from foldvote.pixels import Pixels

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(-1),
}


def predict_logits(
    model: nn.Module,
    pixels: Pixels,
    rows: np.ndarray,
    views: Iterable[str],
    compute: Compute,
    batch_size: int,
    track: Callable[[Iterable[torch.Tensor], int], Iterable[torch.Tensor]] = lambda batches, _total: batches,
) -> dict[str, np.ndarray]:
    """Predict every image under every view.

    Args:
        model: placed on the device; it is left in evaluation mode.
        pixels: the packed images.
        rows: int64 array of rows of `pixels`.
        views: names of `VIEWS`, deterministic transforms of (batch, 3, height, width).
        compute: device, precision and layout.
        batch_size: images in one forward pass.
        track: wraps the batches, of which it is told the number, to show progress.

    Returns:
        For each view a float32 array (rows, classes), in the order of `rows`.
    """
    model.eval()
    mean, std = normalisation(model, compute.device)
    parts: dict[str, list[torch.Tensor]] = {view: [] for view in views}
    starts = range(0, len(rows), batch_size)
    with torch.inference_mode(), compute.autocast():
        for raw in track(_ahead(pixels, rows, starts, batch_size), len(starts)):
            images = compute.images(raw, mean, std)
            for view, logits in parts.items():
                logits.append(model(VIEWS[view](images)).float())
    return {view: torch.cat(logits).cpu().numpy() for view, logits in parts.items()}


def _ahead(pixels: Pixels, rows: np.ndarray, starts: range, batch_size: int) -> Iterator[torch.Tensor]:
    """Batches of uint8 images, the next one gathered while the network works on the last."""

    def gather(start: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([pixels[row] for row in rows[start : start + batch_size]]))

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(gather, starts[0]) if len(starts) else None
        for start in [*starts[1:], None]:
            if coming is None:
                return
            ready = coming.result()
            coming = thread.submit(gather, start) if start is not None else None
            yield ready
