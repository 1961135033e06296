"""Milliseconds per image and view of predictions on the CPU, beside plain loops of forward passes.

    .venv/bin/python benchmarks/predict.py --nets tf_efficientnet_lite0 resnet18 --size 128x96 --threads 1

`notebook`: contiguous images in batches of 256. `plain`: normalised images that lie ready, in the layout and the
batches that foldvote takes. `foldvote`: `predict_logits` from uint8 images. The ways take turns, so that other work on
the machine slows all of them; each number is the median. With one thread they are CPU time, with more wall time.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import torch

from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import ready_views
from foldvote.models.factory import build_model, normalisation
from foldvote.runtime.device import choose_device

LABEL_SPACE = LabelSpace(tuple(f"class{number:02d}" for number in range(18)))
VIEWS = ["identity", "hflip"]


class Noise:
    """Drawn images."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
        self.shape, self.row_of = (height, width, 3), [str(row) for row in range(count)]

    def __getitem__(self, row: int) -> np.ndarray:
        return self.pixels[row]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["tf_efficientnet_lite0"])
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("| net | batch | notebook ms | plain ms | foldvote ms | of notebook | plain / foldvote |")
    print("|---|---|---|---|---|---|---|")
    for net in given.nets:
        measure(net, given.size, given.images, given.threads, given.rounds)


def measure(net: str, size: str, count: int, threads: int, rounds: int) -> None:
    """Print the row of one net."""
    recipe = Recipe.model_validate({"net": net, "size": size})
    device = choose_device("fp32", None, 0, threads)
    model = device.place(build_model(recipe, LABEL_SPACE, 1)).eval()
    height, width = parse_size(size)
    images, views, rows = Noise(count, height, width), ready_views(VIEWS, height, width), np.arange(count)
    mean, std = normalisation(model, device.torch_device)
    batch = device.prediction_batch(256, height, width)

    def loop(at_once: int, layout: torch.memory_format) -> Callable[[], object]:
        ready = device.normalise(torch.from_numpy(images.pixels), mean, std, layout)

        @torch.inference_mode()
        def run() -> None:
            for _ in VIEWS:
                for start in range(0, count, at_once):
                    model(ready[start : start + at_once])

        return run

    ways = {
        "notebook": loop(256, torch.contiguous_format),
        "plain": loop(batch, device.prediction_layout),
        "foldvote": lambda: predict_logits(model, images, rows, views, device, 256),
    }
    clock = time.process_time if threads == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if turn:  # the first warms up
                taken[name].append((clock() - started) / (count * len(VIEWS)) * 1e3)
    notebook, plain, ours = (median(values) for values in taken.values())
    print(
        f"| {net} | {batch} | {notebook:.2f} | {plain:.2f} | {ours:.2f} | {ours / notebook:.2f} | {plain / ours:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
