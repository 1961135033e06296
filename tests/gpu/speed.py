"""Images per second of foldvote's training loop beside pure forward and backward passes, exact and fast."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from foldvote.config.data import Images
from foldvote.config.recipe import Recipe
from foldvote.data.packed_images import open_packed_images, pack_images
from foldvote.models.factory import build_model, normalisation
from foldvote.runtime.device import Device, choose_device
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.compile_trial import DEFAULT, GRAPHS
from foldvote.training.dataloader import AugmentedImages, EpochOrder, ResumableSampler, training_loader
from foldvote.training.device_augmentation import augmented
from foldvote.training.optimizer import make_optimizer
from foldvote.training.state import Progress, TrainState
from foldvote.training.step import TrainStep
from support.tiny_member import LABEL_SPACE, make_tiny

SEEDS = MemberSeeds(1, "speed", 0)
WARM_UP, MEASURED = 8, 30  # steps


def compare(root: Path, gpus: int, net: str, size: str, batch: int) -> str:
    """Measure and print a small table; images per second, with the recipe's default precision.

    Args:
        root: an empty or new folder below which images are drawn.
        gpus: 1 for a GPU, 0 for the CPU.
        net: a net of timm.
        size: height x width.
        batch: images in a step.
    """
    cores = len(os.sched_getaffinity(0))
    recipe = Recipe.model_validate({"net": net, "size": size, "batch_size": batch})
    folder = root / "speed"
    folder.mkdir(exist_ok=True)
    tiny = make_tiny(folder, persons=max(24, -(-batch // 3)))
    pack_images(tiny.manifest, folder, Images(min_side=8), size, "none", folder / "speed.arrow", workers=1)
    print(f"{net} at {size}, batch {batch}, precision {recipe.precision}, {cores} cores: images per second")
    print("  reproducible   compiled          forward+backward   foldvote's loop   share   augment_on: device   share")
    compiled = [(False, DEFAULT), (False, GRAPHS)] if gpus else []
    for reproducible, mode in [(True, None), (False, None), *compiled]:
        work = partial(_measure, folder / "speed.arrow", recipe, gpus, cores, reproducible, mode)
        if gpus:  # a process each: what cuBLAS is told holds for the whole of a process
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                bare, *loops = pool.submit(work).result()
        else:
            bare, *loops = work()
        shares = "".join(f" {loop:17,.0f} {loop / bare:7.2f}   " for loop in loops)
        print(f"  {str(reproducible).lower():<14} {mode or '-':<15} {bare:18,.0f}{shares}")
    return "measured"


def _measure(packed: Path, recipe: Recipe, gpus: int, cores: int, reproducible: bool, mode: str | None) -> list[float]:
    """Images per second of pure forward and backward passes, and of foldvote's loop with either `augment_on`."""
    images = open_packed_images(packed, recipe.packed, None)
    ids = list(images.row_of)
    labels = np.arange(len(ids), dtype=np.int64) % len(LABEL_SPACE.classes)
    sources = [
        AugmentedImages(images, images.rows(ids), ids, labels, recipe.augment, SEEDS, on_device=on_device)
        for on_device in (False, True)
    ]
    device = choose_device(recipe.precision, recipe.channels_last, gpus, cores, reproducible=reproducible)
    steps = (WARM_UP, MEASURED) if gpus else (1, 3)
    workers = max(cores - 1, 1) if gpus else 0
    works = [_bare_steps(sources[0], recipe, device, mode)]
    works += [_loop_steps(source, recipe, device, mode, workers) for source in sources]
    return [_rate(work, device, recipe.batch_size, *steps) for work in works]


def _rate(work: Iterator[None], device: Device, batch: int, warm_up: int, measured: int) -> float:
    """Images per second, without the first steps."""
    for _ in islice(work, warm_up):
        pass
    _wait(device)
    started = time.perf_counter()
    for _ in islice(work, measured):
        pass
    _wait(device)
    return batch * measured / (time.perf_counter() - started)


def _wait(device: Device) -> None:
    if device.torch_device.type == "cuda":
        torch.cuda.synchronize()


def _bare_steps(source: AugmentedImages, recipe: Recipe, device: Device, mode: str | None) -> Iterator[None]:
    """Forward and backward passes over one batch that lies ready, without an update."""
    state, _ = _made(recipe, device)
    pixels = np.stack([source.images[row] for row in source.rows[: recipe.batch_size]])
    ready = device.normalise(torch.from_numpy(pixels), *normalisation(state.model, device.torch_device))
    labels = torch.from_numpy(source.targets[: recipe.batch_size]).to(device.torch_device)
    net = torch.compile(state.model, mode=mode) if mode else state.model
    while True:
        state.model.zero_grad(set_to_none=True)
        with device.autocast():
            logits = net(ready)
        state.scaler.scale(torch.nn.functional.cross_entropy(logits.float(), labels)).backward()
        yield


def _loop_steps(
    source: AugmentedImages, recipe: Recipe, device: Device, mode: str | None, workers: int
) -> Iterator[None]:
    """foldvote's step on what foldvote's loader gives."""
    _, step = _made(recipe, device)
    if mode:
        step._net = torch.compile(step.model, mode=mode)
    sampler = ResumableSampler(EpochOrder(SEEDS, len(source), recipe.batch_size), 10_000, (0, 0))
    batches = training_loader(source, sampler, workers, device.torch_device.type == "cuda")
    for number, (images, targets) in enumerate(augmented(batches, device.torch_device)):
        step(images, targets, number, 1)
        yield


def _made(recipe: Recipe, device: Device) -> tuple[TrainState, TrainStep]:
    """A fresh net in training mode with its optimizer, and its step."""
    model = device.place(build_model(recipe, LABEL_SPACE, 1, None, None)).train()
    optimizer = make_optimizer(recipe, model, fused=not device.reproducible)
    state = TrainState(model, optimizer, device.scaler(), Progress())
    return state, TrainStep(recipe, SEEDS, state, np.ones(len(LABEL_SPACE.classes), np.int64), device)
