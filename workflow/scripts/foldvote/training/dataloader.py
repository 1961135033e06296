"""Training batches: which images, in which order, how augmented; all a function of seed, member and epoch."""

import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data._utils.signal_handling import _remove_worker_pids

from foldvote.config.augment import AugmentStep
from foldvote.data.augmentation import augmenter
from foldvote.data.augmentation_draws import draw_changes
from foldvote.data.metadata import MetadataRows
from foldvote.data.packed_images import ConcatenatedImages, PackedImages
from foldvote.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.runtime.signals import end_with_parent
from foldvote.training.device_augmentation import Changes

_BATCHES_AHEAD = 4  # for each loader process
_SHARED = Path("/dev/shm")  # where they lie until they are used


@dataclass(frozen=True)
class Batch:
    """One batch, before it is loaded.

    Attributes:
        epoch: its epoch, from 0.
        step: its number within the epoch, from 0.
        positions: of this process's images among the training images, int64.
        occurrences: how often the epoch has held each of them before, int64; None: never.
    """

    epoch: int
    step: int
    positions: np.ndarray
    occurrences: np.ndarray | None = None


@dataclass(frozen=True)
class EpochOrder:
    """Which images an epoch holds, in which batches.

    Attributes:
        seeds: of the member; they draw the order.
        images: number of training images.
        batch_size: images in a batch.
        chances: chance of each image to be drawn, shape (images,), summing to 1; None: each comes once.
        groups: number of each image's group, int64 (images,); None: groups do not matter.
        shots: number of images of one group that come one after another; `batch_size` is a multiple of it.
    """

    seeds: MemberSeeds
    images: int
    batch_size: int
    chances: np.ndarray | None = None
    groups: np.ndarray | None = None
    shots: int = 1

    @property
    def size(self) -> int:
        """Number of images in every batch. Fewer images than one batch make one batch."""
        return min(self.images, self.batch_size)

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return max(self.images // self.batch_size, 1)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of one epoch, as positions of images: each at most once, or drawn by their chances.

        A last batch that would be smaller is left out. Its images come in other epochs, as each has its own order.

        With groups each consists of blocks of `shots` images of one group. What is left of groups whose number of
        images is no multiple of it makes blocks of images of several groups, which lie among the others.
        """
        rng = generator(self.seeds.seed, "order", self.seeds.model, self.seeds.fold, epoch)
        if self.groups is not None:
            order = _in_shots(self.groups, self.shots, rng)
        elif self.chances is None:
            order = rng.permutation(self.images)
        else:
            order = rng.choice(self.images, self.images, p=self.chances)
        return [order[step * self.batch_size : (step + 1) * self.batch_size] for step in range(self.steps)]


def _in_shots(groups: np.ndarray, shots: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of all images in blocks of `shots` images of one group, as far as the groups have so many left."""
    drawn = rng.permutation(len(groups))
    places = rng.permutation(groups.max() + 1)[groups[drawn]]  # groups in random order, and so neighbours in rests
    order = drawn[np.argsort(places, kind="stable")]
    of_group = groups[order]
    counts = np.bincount(groups)[of_group]
    whole = occurrences(of_group) < counts - counts % shots
    rest = order[~whole]
    mixed = len(rest) - len(rest) % shots
    blocks = np.concatenate([order[whole], rest[:mixed]]).reshape(-1, shots)
    return np.concatenate([rng.permutation(blocks).ravel(), rest[mixed:]])


def balanced_probabilities(kinds: Sequence[str | int], power: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Chances with which images of rare kinds are drawn more often.

    Args:
        kinds: class or stratum of each image.
        power: 1 draws every kind equally often, 0 would draw every image equally often.
        weights: of the images in the loss, float (images,). With 1 every kind then has an equal part of the loss, and
            a weight still counts once: images of one kind are drawn equally often.

    Returns:
        float64 array of shape (images,), summing to 1.
    """
    _, which, counts = np.unique(np.asarray(kinds), return_inverse=True, return_counts=True)
    if weights is not None:
        counts = np.bincount(which, weights)
    chances = counts[which] ** -float(power)
    return chances / chances.sum()


def occurrences(order: np.ndarray) -> np.ndarray:
    """How often each entry of an array has come before it, int64 of the same shape: [7, 3, 7, 7] gives [0, 0, 1, 2]."""
    by_value = np.argsort(order, kind="stable")
    _, starts, counts = np.unique(order[by_value], return_index=True, return_counts=True)
    before = np.empty(len(order), np.int64)
    before[by_value] = np.arange(len(order)) - np.repeat(starts, counts)
    return before


class ResumableSampler(Sampler[Batch]):
    """All batches from a given step to the end of the run, so that loading does not pause between epochs.

    Args:
        order: the batches of each epoch.
        epochs: number of epochs of the run.
        start: epoch and step of the first batch, both from 0.
        group: the processes that share each batch; only this process's shard is given.
    """

    def __init__(
        self, order: EpochOrder, epochs: int, start: tuple[int, int], group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.order, self.epochs, self.start, self.group = order, epochs, start, group

    def __iter__(self) -> Iterator[Batch]:
        first_epoch, first_step = self.start
        for epoch in range(first_epoch, self.epochs):
            batches = self.order.batches(epoch)
            before = np.array_split(occurrences(np.concatenate(batches)), len(batches))  # batches are equally large
            for step, (positions, times) in enumerate(zip(batches, before, strict=True)):
                if epoch > first_epoch or step >= first_step:
                    yield Batch(epoch, step, self.group.shard(positions), self.group.shard(times))


class AugmentedImages(Dataset[tuple[torch.Tensor, torch.Tensor, Changes]]):
    """Augmented training images, one whole batch at a time.

    Args:
        images: the packed images.
        rows: row of each training image in `images`, int64 (training images,).
        image_ids: their ids.
        targets: class codes (training images,), or numbers of any meaning (training images, columns), as of
            `TrainingSet.batch_targets`.
        augment: steps of the augmentation.
        seeds: of the member; they draw the augmentation.
        size: height and width of the augmented images; None: those of the packed ones.
        on_device: whether the changes are only drawn, for `device_augmentation.augmented` to make them; of images that
            are packed in their size.
        metadata: of all of `images`, for targets that are probabilities; None: the network sees none.

    Attributes:
        shape: (height, width, 3) of the images of a batch.
    """

    def __init__(
        self,
        images: PackedImages | ConcatenatedImages,
        rows: np.ndarray,
        image_ids: list[str],
        targets: np.ndarray,
        augment: Sequence[AugmentStep],
        seeds: MemberSeeds,
        size: tuple[int, int] | None = None,
        on_device: bool = False,
        metadata: MetadataRows | None = None,
    ) -> None:
        self.shape = (*(size or images.shape[:2]), 3)
        self.images, self.rows, self.image_ids, self.targets = images, rows, image_ids, targets
        self.augment, self.seeds, self.on_device = augment, seeds, on_device
        self.metadata = metadata

    @cached_property
    def change(self) -> Callable[[np.ndarray, int], np.ndarray]:
        """The augmentation. Each worker makes its own, as it cannot be sent to another process."""
        return augmenter(self.augment, *self.shape[:2], self.images.shape[:2])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "change"}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, Changes]:
        """Load a batch.

        Returns:
            uint8 images (batch, height, width, 3); their rows of `targets`, which follow their metadata where there is
            some, (batch, width + columns), so that it is mixed as they are; and the changes that are left to the
            device, as of augmentation_draws.draw_changes.
        """
        images = np.empty((len(batch.positions), *self.shape), dtype=np.uint8)
        times, seeds = np.zeros(len(images), int) if batch.occurrences is None else batch.occurrences, []
        for place, (position, before) in enumerate(zip(batch.positions, times.tolist(), strict=True)):
            again = (before,) if before else ()  # an image that is drawn again within an epoch is changed anew
            seeds.append(self.seeds.key("augment", batch.epoch, self.image_ids[position], *again))
            image = self.images[self.rows[position]]
            images[place] = image if self.on_device else self.change(image, seeds[-1])
        drawn = draw_changes(self.augment, seeds, *self.images.shape[:2]) if self.on_device else []
        targets = self.targets[batch.positions]
        if self.metadata is not None:
            targets = np.concatenate([self._metadata_of(batch, times, self.metadata), targets], axis=1)
        changes = [(kind, torch.from_numpy(numbers)) for kind, numbers in drawn]
        return torch.from_numpy(images), torch.from_numpy(targets), changes

    def _metadata_of(self, batch: Batch, times: np.ndarray, metadata: MetadataRows) -> np.ndarray:
        """The metadata of a batch, some of it hidden: float32 (batch, width). `times` are the images' occurrences."""
        keys = [
            self.seeds.key("metadata", batch.epoch, self.image_ids[position], before)
            for position, before in zip(batch.positions, times.tolist(), strict=True)
        ]
        hidden = np.array([key < metadata.dropped * 2**63 for key in keys], bool)
        return np.where(hidden[:, None], metadata.encoding.missing, metadata.rows[self.rows[batch.positions]])


def plain_batches(
    images: PackedImages | ConcatenatedImages, rows: np.ndarray, batches: Iterable[np.ndarray]
) -> Iterator[torch.Tensor]:
    """Batches of images without augmentation, as uint8 (batch, height, width, 3).

    Args:
        images: the packed images.
        rows: row of each training image in `images`, int64 (training images,).
        batches: positions of the images of each batch among the training images, as of `EpochOrder.batches`.
    """
    for positions in batches:
        yield torch.from_numpy(np.stack([images[row] for row in rows[positions]]))


def training_loader(images: AugmentedImages, sampler: ResumableSampler, workers: int, pin: bool) -> DataLoader:
    """Load the sampler's batches ahead of their use, as many as shared memory has room for.

    Args:
        images: what is loaded.
        sampler: which batches, in which order.
        workers: loader processes; their number does not change the result.
        pin: whether batches lie in pinned memory, from which copies to a GPU are faster.
    """
    shard = -(-sampler.order.size // sampler.group.size)
    batch_bytes = shard * (math.prod(images.shape) + images.targets[:1].nbytes)
    fitting, ahead = batches_ahead(workers, batch_bytes, _free_shared_memory() // sampler.group.size)
    if workers and (fitting, ahead) != (workers, _BATCHES_AHEAD):
        loading = f"{fitting} of {workers} loader processes prepare {ahead} ahead each"
        log(
            f"loader: {_SHARED} has little room for batches of {batch_bytes / 1e6:.1f} MB: "
            f"{loading if fitting else 'batches are loaded without loader processes'}; give the container a larger one "
            "(docker run --shm-size)"
        )
    return DataLoader(
        images,
        batch_size=None,
        sampler=sampler,
        num_workers=fitting,
        pin_memory=pin,
        prefetch_factor=ahead if fitting else None,
        worker_init_fn=_start_worker,
    )


def batches_ahead(workers: int, batch_bytes: int, free: int) -> tuple[int, int]:
    """How many processes load batches, and how many batches each prepares ahead.

    They get half of the free shared memory; the other half is for batches in use and for other trainings that begin
    at the same time. Fewer batches ahead come first, then fewer processes; without any, the training loads its own.

    Args:
        workers: loader processes that are wanted.
        batch_bytes: size of a batch.
        free: bytes of shared memory that this process may use.

    Returns:
        Processes from 0 to `workers`, and batches for each.
    """
    room = free // 2 // max(batch_bytes, 1)
    fitting = min(workers, room)
    return fitting, min(_BATCHES_AHEAD, room // fitting) if fitting else 0


def _free_shared_memory() -> int:
    """Bytes free where loader processes pass batches on; without such a folder, there is no bound."""
    return shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else sys.maxsize


def end_workers(batches: Iterator[Any] | None, patience: float = 0.0) -> bool:
    """End the processes of a loader now, wherever its batches stopped.

    An iterator that the traceback of an error holds would keep its processes up to the end of this one. There Python
    asks them to end by SIGTERM, which they ignore, and waits for ever.

    torch's own shutdown is left out, because it takes locks that a process which died may hold. So is its handler of
    SIGCHLD, which raises the end of a process in whatever code runs.

    Args:
        batches: an iterator over the loader, of no use afterwards; None: there is none.
        patience: seconds to wait for a process that dies, whose connections may end before it does.

    Returns:
        Whether one of them died by itself; False for batches that have come to their end.
    """
    loader: Any = batches
    workers = getattr(loader, "_workers", ())
    if not workers or loader._shutdown:
        return False
    loader._shutdown = True
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    died = bool(wait([worker.sentinel for worker in workers], patience))
    for worker in workers:
        worker.kill()
        worker.join()
    if loader._worker_pids_set:
        _remove_worker_pids(id(loader))
        loader._worker_pids_set = False
    for queue in loader._index_queues:
        queue.cancel_join_thread()
        queue.close()
    if loader._pin_memory:
        loader._pin_memory_thread_done_event.set()
    signal.signal(signal.SIGCHLD, handler)
    return died


def _start_worker(_: int) -> None:
    """Make a worker ignore signals and end with the training process.

    A signal to the whole process group (Ctrl-C, `timeout`, a cluster's cancel) reaches the workers as well, but the
    training process has to save its state before it ends them. If that process is killed its workers end, too: torch
    checks for this late, and misses a parent that died before a worker had begun.
    """
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
