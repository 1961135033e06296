"""Training batches: which images, in which order, changed how; all of it a function of seed, member and epoch."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from foldvote.augment import augmenter
from foldvote.pixels import Pixels
from foldvote.sections import Augment
from foldvote.seeds import derive, generator


@dataclass(frozen=True)
class Draws:
    """What every random draw of a member is keyed by.

    Attributes:
        seed: the run's seed.
        model: the model's name, so that two models of equal recipe differ.
        fold: the member's fold.
    """

    seed: int
    model: str
    fold: int

    def key(self, purpose: str, *counters: str | int) -> int:
        """Seed of one draw."""
        return derive(self.seed, purpose, self.model, self.fold, *counters)


@dataclass(frozen=True)
class Batch:
    """One step's place in the run: its epoch, its number within it, and the positions of its images."""

    epoch: int
    step: int
    positions: np.ndarray


def batches_of_epoch(draws: Draws, epoch: int, images: int, batch_size: int) -> list[np.ndarray]:
    """The batches of one epoch: positions of the images, each at most once.

    A last batch that would be smaller is left out: its images come in other epochs' batches, as every epoch has its
    own permutation. Fewer images than one batch make one batch.
    """
    order = generator(draws.seed, "order", draws.model, draws.fold, epoch).permutation(images)
    whole = max(images // batch_size, 1)
    return [order[number * batch_size : (number + 1) * batch_size] for number in range(whole)]


class Plan(Sampler[Batch]):
    """All batches from a given step of a given epoch to the end of the run: loading never waits for an epoch."""

    def __init__(self, draws: Draws, images: int, batch_size: int, epochs: int, start: tuple[int, int]) -> None:
        self.draws, self.images, self.batch_size, self.epochs, self.start = draws, images, batch_size, epochs, start

    def __iter__(self) -> Iterator[Batch]:
        first_epoch, first_step = self.start
        for epoch in range(first_epoch, self.epochs):
            for step, positions in enumerate(batches_of_epoch(self.draws, epoch, self.images, self.batch_size)):
                if epoch > first_epoch or step >= first_step:
                    yield Batch(epoch, step, positions)


class TrainingImages(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Augmented training images, a whole batch at a time."""

    def __init__(
        self, pixels: Pixels, rows: np.ndarray, image_ids: list[str], labels: np.ndarray, augment: Augment, draws: Draws
    ) -> None:
        self.pixels, self.rows, self.image_ids, self.labels = pixels, rows, image_ids, labels
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
        """uint8 images (batch, height, width, 3) and int64 labels (batch,)."""
        images = np.empty((len(batch.positions), *self.pixels.shape), dtype=np.uint8)
        for place, position in enumerate(batch.positions):
            seed = self.draws.key("augment", batch.epoch, self.image_ids[position])
            images[place] = self.change(self.pixels[self.rows[position]], seed)
        return torch.from_numpy(images), torch.from_numpy(self.labels[batch.positions])


def training_loader(images: TrainingImages, plan: Plan, workers: int, pin: bool) -> DataLoader:
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

    A signal to the whole process group (Ctrl-C, `timeout`, a cluster's cancel) reaches the workers as well.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
