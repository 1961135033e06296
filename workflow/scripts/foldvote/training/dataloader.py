"""Training batches: which images, in which order, changed how; all of it a function of seed, member and epoch."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from foldvote.config.augment import AugmentStep
from foldvote.data.augmentation import augmenter
from foldvote.data.packed_images import ConcatenatedImages, PackedImages
from foldvote.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.runtime.signals import end_with_parent


@dataclass(frozen=True)
class Batch:
    """One step's place in the run: its epoch, its number within it, and the positions of this process's images."""

    epoch: int
    step: int
    positions: np.ndarray


@dataclass(frozen=True)
class EpochOrder:
    """Which images an epoch holds, in which batches.

    Attributes:
        draws: the member's draws.
        images: number of training images.
        batch_size: images in a batch.
        chances: chance of each image to be drawn, shape (images,), summing to 1; None: each comes once.
    """

    draws: MemberSeeds
    images: int
    batch_size: int
    chances: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Images in every batch. Fewer images than one batch make one batch."""
        return min(self.images, self.batch_size)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return max(self.images // self.batch_size, 1)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of one epoch: positions of the images, each at most once, or drawn by their chances.

        A last batch that would be smaller is left out: its images come in other epochs' batches, as every epoch has
        its own order.
        """
        draw = generator(self.draws.seed, "order", self.draws.model, self.draws.fold, epoch)
        order = (
            draw.permutation(self.images)
            if self.chances is None
            else draw.choice(self.images, self.images, p=self.chances)
        )
        return [order[step * self.batch_size : (step + 1) * self.batch_size] for step in range(self.steps)]


def balanced_probabilities(kinds: Sequence[str | int], power: float) -> np.ndarray:
    """Chances by which rare kinds are drawn more often.

    Args:
        kinds: class or stratum of each image.
        power: 1 draws every kind equally often, 0 would draw every image equally often.

    Returns:
        float64 array of shape (images,), summing to 1.
    """
    _, which, counts = np.unique(np.asarray(kinds), return_inverse=True, return_counts=True)
    chances = counts[which] ** -float(power)
    return chances / chances.sum()


class ResumableSampler(Sampler[Batch]):
    """All batches from a given step of a given epoch to the end of the run: loading never waits for an epoch.

    Of every batch it gives what is this process's share.
    """

    def __init__(
        self, order: EpochOrder, epochs: int, start: tuple[int, int], team: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.order, self.epochs, self.start, self.team = order, epochs, start, team

    def __iter__(self) -> Iterator[Batch]:
        first_epoch, first_step = self.start
        for epoch in range(first_epoch, self.epochs):
            for step, positions in enumerate(self.order.batches(epoch)):
                if epoch > first_epoch or step >= first_step:
                    yield Batch(epoch, step, self.team.own(positions))


class AugmentedImages(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Augmented training images, a whole batch at a time."""

    def __init__(
        self,
        pixels: PackedImages | ConcatenatedImages,
        rows: np.ndarray,
        image_ids: list[str],
        targets: np.ndarray,
        augment: Sequence[AugmentStep],
        draws: MemberSeeds,
    ) -> None:
        self.pixels, self.rows, self.image_ids, self.targets = pixels, rows, image_ids, targets
        self.augment, self.draws = augment, draws

    @cached_property
    def change(self) -> Callable[[np.ndarray, int], np.ndarray]:
        """The augmentation, made by each worker for itself: it cannot be sent to another process."""
        return augmenter(self.augment, *self.pixels.shape[:2])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "change"}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 images (batch, height, width, 3) and their targets: codes (batch,) or shares (batch, classes)."""
        images = np.empty((len(batch.positions), *self.pixels.shape), dtype=np.uint8)
        for place, position in enumerate(batch.positions):
            seed = self.draws.key("augment", batch.epoch, self.image_ids[position])
            images[place] = self.change(self.pixels[self.rows[position]], seed)
        return torch.from_numpy(images), torch.from_numpy(self.targets[batch.positions])


def training_loader(images: AugmentedImages, plan: ResumableSampler, workers: int, pin: bool) -> DataLoader:
    """A loader over the plan; its result does not depend on the number of workers."""
    return DataLoader(
        images,
        batch_size=None,
        sampler=plan,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )


def _start_worker(_: int) -> None:
    """A worker leaves stopping to the training process, which saves its state first and then ends its workers.

    A signal to the whole process group (Ctrl-C, `timeout`, a cluster's cancel) reaches the workers as well. Where the
    training process is killed they end with it: torch's own look for that comes late, and misses a parent that died
    before a worker had begun.
    """
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
