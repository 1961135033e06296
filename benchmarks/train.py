"""Speed of the training loop: its step against the same step on tensors that are there already, and its loader
against timm's and against cv2 with albumentations, which both decode JPEG in every epoch.

    .venv/bin/python benchmarks/train.py --net tf_efficientnet_lite0 --size 128x96 --batch 64

Faces are drawn at the home task's size (384 x 512) into a temporary folder. Rounds of each kind alternate, and the
median counts, so that a machine that slows down slows both.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import cv2
import numpy as np
import timm
import torch

from foldvote.augment import augmenter
from foldvote.batches import Draws, Order, Plan, TrainingImages, training_loader
from foldvote.compute import Compute, choose_compute
from foldvote.config import DataSettings
from foldvote.demo import draw_demo
from foldvote.labels import Scheme
from foldvote.manifest import build_manifest
from foldvote.models import build_model
from foldvote.optimization import make_optimizer
from foldvote.pixels import Pixels, pack_pixels
from foldvote.recipes import Recipe
from foldvote.sections import parse_size
from foldvote.stepping import make_step

DRAWN, ROUNDS = 40, 3
CLASSES = Scheme(tuple(f"class{number:02d}" for number in range(18)))


class FromJpeg(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """The peer that a careful notebook would write: cv2 decodes and resizes, albumentations changes."""

    def __init__(self, paths: list[Path], recipe: Recipe) -> None:
        self.paths, self.shape = paths, parse_size(recipe.size)
        self.change = augmenter(recipe.augment, *self.shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image = cv2.cvtColor(cv2.imread(str(self.paths[number])), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, self.shape[::-1], interpolation=cv2.INTER_AREA)
        return torch.from_numpy(np.ascontiguousarray(self.change(image, number))), 0


def main() -> None:
    """Measure and print a line for each ratio."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--net", default="tf_efficientnet_lite0")
    arguments.add_argument("--size", default="128x96")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--steps", type=int, default=12, help="steps of one round")
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--workers", type=int, default=1)
    given = arguments.parse_args()
    recipe = Recipe(net=given.net, size=given.size, batch_size=given.batch, epochs=10_000, channels_last=True)
    compute = choose_compute(recipe, int(torch.cuda.is_available()), given.threads)
    with tempfile.TemporaryDirectory() as folder:
        images, paths = packed_faces(Path(folder), recipe)
        share_of_step(images, recipe, compute, given.steps, given.workers)
        rates_of_loaders(images, paths, recipe, given.workers)


def packed_faces(root: Path, recipe: Recipe) -> tuple[TrainingImages, list[Path]]:
    """Training images of drawn faces, and the JPEG files that they were packed from."""
    draw_demo(root / "demo", DRAWN, 1, "512x384", seed=1, workers=2)
    for hidden in (root / "demo").rglob("._*"):  # the demo's macOS leftovers, which timm reads as images
        hidden.unlink()
    layout = {"layout": "maskbase"}
    settings = DataSettings.model_validate({"data_root": str(root / "demo"), "data": layout})
    manifest, packed = root / "manifest.parquet", root / "train.arrow"
    build_manifest(settings, "train", manifest, root / "quarantine.parquet", 2)
    pack_pixels(manifest, settings.root, settings.images, recipe.size, "none", packed, workers=2)
    pixels = Pixels(packed)
    ids = list(pixels.row_of)
    labels = np.arange(len(ids), dtype=np.int64) % len(CLASSES.classes)
    images = TrainingImages(pixels, pixels.rows(ids), ids, labels, recipe.augment, Draws(1, "bench", 0))
    return images, sorted(path for path in (root / "demo/train").rglob("[!.]*.jpg"))


def batches(
    images: TrainingImages, recipe: Recipe, workers: int, pin: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The real loader, endlessly."""
    order = Order(images.draws, len(images), recipe.batch_size)
    return iter(training_loader(images, Plan(order, recipe.epochs, (0, 0)), workers, pin))


def share_of_step(images: TrainingImages, recipe: Recipe, compute: Compute, steps: int, workers: int) -> None:
    """Seconds of a step with the real loader, and of the same step on one batch that stays on the device."""
    model = compute.place(build_model(recipe, CLASSES, 1))
    optimizer = make_optimizer(recipe, model)
    counts = np.full(len(CLASSES.classes), 10)
    step = make_step(recipe, images.draws, model, optimizer, compute.scaler(), counts, compute)
    model.train()
    loader = batches(images, recipe, workers, pin=compute.device.type == "cuda")
    batch, labels = next(loader)
    resident = batch.to(compute.device), labels.to(compute.device)

    def real() -> None:
        for number, (some, targets) in enumerate(islice(loader, steps)):
            step(some, targets, number, 1)
        settle(compute)

    def pure() -> None:
        for number in range(steps):
            step(*resident, number, 1)
        settle(compute)

    seconds = alternating({"pure": pure, "real": real})
    print(
        f"{recipe.net}, {recipe.size}, batch {recipe.batch_size}, {compute.name}, {workers} worker(s): a step takes "
        f"{seconds['real'] / steps * 1000:.0f} ms, {seconds['pure'] / steps * 1000:.0f} ms of it forward, backward and "
        f"update: {seconds['pure'] / seconds['real']:.3f} of the time"
    )


def rates_of_loaders(images: TrainingImages, paths: list[Path], recipe: Recipe, workers: int) -> None:
    """Images a second of three loaders with equal workers, nothing else running."""
    number = 8 * recipe.batch_size
    files = (paths * (number // len(paths) + 1))[:number]
    plain = torch.utils.data.DataLoader(FromJpeg(files, recipe), recipe.batch_size, num_workers=workers)
    folder = timm.data.ImageDataset(str(paths[0].parents[1]))
    timms = timm.data.create_loader(
        folder,
        (3, *parse_size(recipe.size)),
        recipe.batch_size,
        is_training=True,
        use_prefetcher=False,
        num_workers=workers,
        device=torch.device("cpu"),
        color_jitter=0.2,
    )
    kinds: dict[str, Callable[[], int]] = {
        "foldvote": lambda: consumed(islice(batches(images, recipe, workers, pin=False), number // recipe.batch_size)),
        "timm": lambda: consumed(timms),
        "cv2 and albumentations": lambda: consumed(plain),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, load in kinds.items():
            started = time.perf_counter()
            rates[name].append(load() / (time.perf_counter() - started))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"loader of {name}: {rate:,.0f} images/s, {rate / medians['foldvote']:.2f} of foldvote's")


def consumed(loader: Any) -> int:
    """Number of images that a loader gives."""
    return sum(len(batch[0]) for batch in loader)


def alternating(kinds: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds of each kind over rounds that take turns, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for round_number in range(ROUNDS + 1):
        for name, work in kinds.items():
            started = time.perf_counter()
            work()
            if round_number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


def settle(compute: Compute) -> None:
    """Wait for the device."""
    if compute.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
