"""The overhead of the training loop, and the speed of its loader compared with two others.

    .venv/bin/python benchmarks/train.py --images 1280 --steps 20

Step: forward, backward and update on tensors in memory, compared with foldvote's loader and step. The share is the
time of the first over that of the second; 1 means no overhead.
Loader: images per second of foldvote's loader (packed pixels), of timm's, and of OpenCV with albumentations in a
plain DataLoader; the latter two read JPEG files of 384 x 512 (width x height). All crop, flip and jitter colours
alike, on as many worker processes, and nothing consumes the batches. Packing is not counted: it is done once for all
epochs, folds and models (benchmarks/ingest.py times it).
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np
import timm.data
import torch
import torch.nn.functional as F
from ingest import SIZE, repeat_faces
from torch.utils.data import DataLoader, Dataset

from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.data.manifest import build_manifest
from foldvote.data.packed_images import PackedImages, pack_images
from foldvote.io.parquet import read_table
from foldvote.models.factory import build_model, normalisation
from foldvote.runtime.device import Device, choose_device
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.dataloader import AugmentedImages, EpochOrder, ResumableSampler, training_loader
from foldvote.training.optimizer import make_optimizer
from foldvote.training.state import Progress, TrainState
from foldvote.training.step import TrainStep

LABEL_SPACE = LabelSpace(tuple(f"class{number:02d}" for number in range(18)))
SEEDS = MemberSeeds(1, "benchmark", 0)
CROP, FLIP, COLOUR = 0.15, 0.5, 0.2
HEIGHT, WIDTH = parse_size(SIZE)
WARM_UP = 3


def main() -> None:
    """Measure and print two small tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=1280)
    arguments.add_argument("--net", default="tf_efficientnet_lite0")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--gpus", type=int, default=0)
    given = arguments.parse_args()
    recipe = Recipe.model_validate(
        {"net": given.net, "size": SIZE, "batch_size": given.batch}
        | {"augment": [{"crop": CROP}, {"hflip": FLIP}, {"colour": COLOUR}]}
    )
    with tempfile.TemporaryDirectory() as folder:
        files, images = prepare(Path(folder), given.images, recipe)
        compare_loaders(files, images, given.batch, given.workers)
        device = choose_device(recipe.precision, recipe.channels_last, given.gpus, given.threads)
        compare_steps(images, recipe, device, given.workers, given.steps)


def prepare(root: Path, images: int, recipe: Recipe) -> tuple[Path, AugmentedImages]:
    """Drawn faces as JPEG files in one folder per class, and the same images packed."""
    settings = repeat_faces(root, images, os.cpu_count() or 1)
    manifest, packed = root / "manifest.parquet", root / "train.arrow"
    build_manifest(settings, "train", manifest, root / "quarantine.parquet", 2)
    pack_images(manifest, settings.root, settings.images, SIZE, "none", packed, workers=2)
    ids = read_table(manifest)["image_id"].tolist()
    pixels, labels = PackedImages(packed), np.arange(len(ids), dtype=np.int64) % len(LABEL_SPACE.classes)
    return settings.root / "train", AugmentedImages(pixels, pixels.rows(ids), ids, labels, recipe.augment, SEEDS)


def compare_loaders(files: Path, images: AugmentedImages, batch: int, workers: int) -> None:
    """Images per second of three loaders: the median of three measurements of each, taken in turn."""
    makers = {
        "foldvote": lambda: ours(images, batch, 1, workers),
        "timm": lambda: timms(files, batch, workers),
        "cv2 + albumentations": lambda: plain(files, batch, workers),
    }
    rates: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(3):
        for name, make in makers.items():
            rates[name].append(rate(make(), batch))
    best = median(rates["foldvote"])
    print(f"loader, {workers} worker(s)      images/s   foldvote is")
    for name, values in rates.items():
        print(f"  {name:<22} {median(values):9.0f}   {best / median(values):8.2f} x")


def rate(loader: DataLoader, batch: int) -> float:
    """Images per second, without the first batches, during which the workers start."""
    arrivals = [time.perf_counter() for _ in loader][WARM_UP:]
    return batch * (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])


def ours(images: AugmentedImages, batch: int, epochs: int, workers: int) -> DataLoader:
    """foldvote's loader."""
    return training_loader(
        images, ResumableSampler(EpochOrder(SEEDS, len(images), batch), epochs, (0, 0)), workers, pin=False
    )


def timms(files: Path, batch: int, workers: int) -> DataLoader:
    """timm's loader on a folder of JPEG files."""
    return timm.data.create_loader(
        timm.data.create_dataset("", root=str(files), is_training=True),
        (3, HEIGHT, WIDTH),
        batch,
        is_training=True,
        scale=(1 - CROP, 1.0),
        ratio=(WIDTH / HEIGHT * 0.9, WIDTH / HEIGHT / 0.9),
        hflip=FLIP,
        color_jitter=COLOUR,
        num_workers=workers,
        device=torch.device("cpu"),
        persistent_workers=False,
    )


class Files(Dataset[tuple[np.ndarray, int]]):
    """JPEG files, decoded with OpenCV and changed with albumentations."""

    def __init__(self, files: Path) -> None:
        self.paths = sorted(str(path) for path in files.rglob("*.jpg"))
        ratio = WIDTH / HEIGHT
        self.change = A.Compose(
            [
                A.RandomResizedCrop((HEIGHT, WIDTH), scale=(1 - CROP, 1.0), ratio=(ratio * 0.9, ratio / 0.9), p=1.0),
                A.HorizontalFlip(p=FLIP),
                A.ColorJitter(COLOUR, COLOUR, COLOUR, COLOUR / 8, p=1.0),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        image = cv2.cvtColor(cv2.imread(self.paths[place]), cv2.COLOR_BGR2RGB)
        return self.change(image=image)["image"], place % len(LABEL_SPACE.classes)


def plain(files: Path, batch: int, workers: int) -> DataLoader:
    """What a careful notebook would write."""
    return DataLoader(Files(files), batch, shuffle=True, drop_last=True, num_workers=workers)


def compare_steps(images: AugmentedImages, recipe: Recipe, device: Device, workers: int, steps: int) -> None:
    """Seconds of a step with and without the loop around it; both are taken twice, in turn."""
    kinds = {"tensors that lie ready": bare_steps, "foldvote's loop": loop_steps}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(2):
        for name, kind in kinds.items():
            seconds[name] += timed(kind(images, recipe, device, workers), steps, device)
    bare, loop = (median(values) for values in seconds.values())
    print(f"step of {recipe.net}, batch {recipe.batch_size}, on {device.name}, {torch.get_num_threads()} threads")
    for name, values in seconds.items():
        print(f"  {name:<22} {median(values) * 1000:9.1f} ms")
    print(f"  share                  {bare / loop:9.3f}")


def timed(work: Iterator[None], steps: int, device: Device) -> list[float]:
    """Seconds of each step, without the first ones."""
    seconds = []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        next(work)
        if device.torch_device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds[WARM_UP:]


def bare_steps(images: AugmentedImages, recipe: Recipe, device: Device, _workers: int) -> Iterator[None]:
    """Forward, backward and update over and over on one normalised batch."""
    model, optimizer, _ = made(recipe, device)
    batch = np.stack([images.images[row] for row in images.rows[: recipe.batch_size]])
    ready = device.normalise(torch.from_numpy(batch), *normalisation(model, device.torch_device))
    labels = torch.from_numpy(images.targets[: recipe.batch_size]).to(device.torch_device)
    while True:
        with device.autocast():
            logits = model(ready)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm or torch.inf)
        optimizer.step()
        yield


def loop_steps(images: AugmentedImages, recipe: Recipe, device: Device, workers: int) -> Iterator[None]:
    """foldvote's step on what foldvote's loader gives."""
    _, _, step = made(recipe, device)
    for number, (batch, targets, _) in enumerate(ours(images, recipe.batch_size, 10_000, workers)):
        step(batch, targets, number, 1)
        yield


def made(recipe: Recipe, device: Device) -> tuple[torch.nn.Module, torch.optim.Optimizer, TrainStep]:
    """A fresh net in training mode, its optimizer and its step."""
    model = device.place(build_model(recipe, LABEL_SPACE, 1, None, None)).train()
    optimizer = make_optimizer(recipe, model)
    counts = np.ones(len(LABEL_SPACE.classes), np.int64)
    state = TrainState(model, optimizer, device.scaler(), Progress())
    return model, optimizer, TrainStep(recipe, SEEDS, state, counts, device)


if __name__ == "__main__":
    main()
