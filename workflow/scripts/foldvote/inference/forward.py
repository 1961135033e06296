"""Logits of a network for packed images, used for validation, out-of-fold and test predictions alike."""

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from foldvote.errors import UserError
from foldvote.inference.tta import View
from foldvote.models.factory import metadata_width, normalisation
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log
from foldvote.runtime.memory import is_out_of_memory, release_memory

T = TypeVar("T")
Sources = dict[str | None, torch.Tensor]
_KEPT_BYTES = 64 * 2**20  # of logits on the device before they are copied to the CPU, for which the GPU is waited for


class ImageRows(Protocol):
    """Images of one shape, such as packed ones."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""

    @property
    def row_of(self) -> Collection[str]:
        """The id of each image, in the order of the rows."""

    def __getitem__(self, row: int) -> np.ndarray:
        """The image in a row: uint8 (height, width, 3)."""


def predict_logits(
    model: nn.Module,
    images: ImageRows,
    rows: np.ndarray,
    views: Sequence[View],
    device: Device,
    batch_size: int,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda batches, _total: batches,
    metadata: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Predict every image under every view. Each image is read once for all views.

    Args:
        model: the network, placed on the device; it is left in evaluation mode.
        images: the images, such as packed ones.
        rows: positions in `images`, int64 (rows,).
        views: views for images of this size, made by `tta.ready_views` or `tta.views_of`.
        device: where and how the network runs.
        batch_size: the largest number of images in a forward pass; `Device.prediction_batch` may take fewer.
        track: called with the batches and their number; returns the same batches and may show progress.
        metadata: of every image of `images`, float32 (images, width), for a network that sees it.

    Returns:
        By the name of each view a float32 array (rows, classes), in the order of `rows`. If memory does not suffice,
        all are predicted anew in batches of half the size, so that they are what this batch size gives.

    Raises:
        UserError: if memory does not even suffice for one image.
    """
    height, width, _ = images.shape
    if metadata_width(model) != (0 if metadata is None else metadata.shape[1]):
        raise ValueError("a network that learnt from metadata predicts with it, and no other does")
    beside = None if metadata is None else torch.from_numpy(metadata[rows])
    return halved_until_it_fits(
        lambda images_at_once: _predict(model, images, rows, views, device, images_at_once, track, beside),
        min(device.prediction_batch(batch_size, height, width), max(len(rows), 1)),
        (height, width),
        device,
    )


def halved_until_it_fits(
    predict: Callable[[int], T], batch_size: int, image_size: tuple[int, int], device: Device
) -> T:
    """Predict in batches, in half as large ones as long as memory does not suffice.

    Args:
        predict: called with the number of images in a batch; predicts everything from the beginning.
        batch_size: images in a batch at first.
        image_size: height and width of the images, for the error.
        device: where the network runs, for the error.

    Returns:
        What `predict` returned.

    Raises:
        UserError: if memory does not even suffice for one image.
    """
    while True:
        try:
            return predict(batch_size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                height, width = image_size
                reason = (str(error) or type(error).__name__).splitlines()[0][:120]
                raise UserError(
                    f"memory: not even one image of {height}x{width} can be predicted on {device.name} ({reason}); end "
                    "what else uses its memory, or choose a smaller models.*.net or models.*.size"
                ) from error
        # Not within `except`: there, the traceback of the error still holds the tensors.
        gc.collect()
        release_memory()
        log(
            f"memory: predictions of {batch_size} images at once did not fit; now {batch_size // 2} at once, "
            f"as runtime.predict_batch: {batch_size // 2} would"
        )
        batch_size //= 2


def _predict(
    model: nn.Module,
    images: ImageRows,
    rows: np.ndarray,
    views: Sequence[View],
    device: Device,
    batch_size: int,
    track: Callable[[Iterable[Any], int], Iterable[Any]],
    metadata: torch.Tensor | None,
) -> dict[str, np.ndarray]:
    """Predict all rows in batches of one size; `metadata` is that of the rows."""
    model.eval()
    mean, std = normalisation(model, device.torch_device)
    waiting: dict[str, list[torch.Tensor]] = {view.name: [] for view in views}
    done: dict[str, list[np.ndarray]] = {view.name: [] for view in views}
    starts, kept = range(0, len(rows), batch_size), 0
    pin, layout = device.torch_device.type == "cuda", device.prediction_layout
    with torch.inference_mode(), device.autocast():
        batches = track(_prefetch(images, rows, starts, batch_size, views, pin), len(starts))
        for start, sources in zip(starts, batches, strict=True):
            beside = [] if metadata is None else [metadata[start : start + batch_size].to(device.torch_device)]
            for source, raw in sources.items():
                batch = device.normalise(raw, mean, std, layout)
                for view in (view for view in views if view.source == source):
                    moved = view.move(batch).contiguous(memory_format=layout)
                    logits = model(moved, *beside).float()
                    waiting[view.name].append(logits)
                    kept += logits.nbytes
            if kept > _KEPT_BYTES:
                _to_cpu(waiting, done)
                kept = 0
        _to_cpu(waiting, done)
    return {name: np.concatenate(parts) if len(parts) > 1 else parts[0] for name, parts in done.items()}


def _to_cpu(waiting: dict[str, list[torch.Tensor]], done: dict[str, list[np.ndarray]]) -> None:
    """Move logits from the device to the CPU, in one copy for all batches of a view."""
    for name, logits in waiting.items():
        if logits:
            done[name].append(torch.cat(logits).cpu().numpy())
            logits.clear()


def _prefetch(
    images: ImageRows, rows: np.ndarray, starts: range, batch_size: int, views: Sequence[View], pin: bool
) -> Iterator[Sources]:
    """Yield batches of uint8 images by view source; a thread prepares the next batch while the network runs.

    Pinned batches are copied to a GPU while the network runs on the batch before.
    """
    changes = {view.source: view.change for view in views}
    ids = list(images.row_of) if any(changes.values()) else []

    def gather(start: int) -> Sources:
        batch_rows = rows[start : start + batch_size]
        batch = [images[row] for row in batch_rows]
        sources: Sources = {}
        for source, change in changes.items():
            shown = [change(image, ids[row]) for image, row in zip(batch, batch_rows, strict=True)] if change else batch
            stacked = torch.from_numpy(np.stack(shown))
            sources[source] = stacked.pin_memory() if pin else stacked
        return sources

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(gather, starts[0]) if len(starts) else None
        for start in [*starts[1:], None]:
            if coming is None:
                return
            ready = coming.result()
            coming = thread.submit(gather, start) if start is not None else None
            yield ready
