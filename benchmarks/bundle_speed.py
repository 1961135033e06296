"""Milliseconds per image on one core: networks in PyTorch as the workflow runs them, and the run's ONNX files.

    .venv/bin/python benchmarks/bundle_speed.py --results results                       # a finished run
    .venv/bin/python benchmarks/bundle_speed.py --net tf_efficientnet_lite0 --size 128x96   # random weights

One table for each number of folds and of views: the shortest time of several rounds, in which all ways take turns so
that other work on the machine slows all of them; the time as a share of PyTorch's; the size of the files; the largest
difference of a probability from the workflow's vote, and the share of images with its class. Of random weights, the
last two say little.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import torch
from torch import nn

from foldvote.config.data import Images
from foldvote.config.image_size import Framing
from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime
from foldvote.config.tta import view_name
from foldvote.data.label_space import factor_label_space, known_classes
from foldvote.data.packed_images import PackedImages
from foldvote.deployment.finished_run import FinishedRun, read_finished_run
from foldvote.deployment.network_graph import session
from foldvote.deployment.onnx_graph import restricted, write_graphs
from foldvote.inference.tta import views_of
from foldvote.models.factory import build_model, normalisation
from foldvote.runtime.device import Device
from foldvote.runtime.resources import JobResources

SPACE = factor_label_space({"mask": ("wear", "wrong", "not"), "gender": ("f", "m"), "age": ("young", "mid", "old")})
FOLDS, VIEWS = (1, 5), (1, 2)
Pixels = dict[Framing, np.ndarray]
Answers = tuple[np.ndarray, np.ndarray]


class DrawnRun(FinishedRun):
    """A run whose members have random weights."""

    def load(self, member: tuple[str, int]) -> nn.Module:
        return build_model(self.recipes[member[0]], self.label_space, seed=member[1])


def drawn_run(net: str, size: str) -> FinishedRun:
    """Five members of one net under two views."""
    weights = {"model/hflip": 0.5, "model/identity": 0.5}
    return DrawnRun(
        results=Path("results"),
        label_space=SPACE,
        recipes={"model": Recipe.model_validate({"net": net, "size": size})},
        folds={"model": list(range(max(FOLDS)))},
        weights_sha256={},
        views=["hflip", "identity"],
        params={"kind": "mean", "candidates": list(weights), "weights": weights},
        scaling={"method": "temperature", "temperature": 1.2},
        images=Images(),
        min_confidence=0.5,
        least=None,
    )


def pixels_of(run: FinishedRun, part: str, count: int) -> Pixels:
    """Some images as the models see them; noise where the weights are random."""
    found = {}
    for framing in run.inputs:
        if isinstance(run, DrawnRun):
            seed = 0 if part == "test" else 1
            found[framing] = np.random.default_rng(seed).integers(0, 256, (count, *framing.shape, 3), np.uint8)
            continue
        images = PackedImages(run.results / f"data/pixels/{framing.folder}/{part}.arrow")
        rows = np.linspace(0, len(images) - 1, count).astype(int)
        found[framing] = np.stack([images[row] for row in rows])
    return found


def torch_way(run: FinishedRun, pixels: Pixels, **changes: bool) -> Callable[[], Answers]:
    """The vote by the workflow's networks, already loaded."""
    members = []
    for model, fold in run.members:
        recipe = run.recipes[model]
        device: Device = JobResources(0, 1, Runtime()).device(recipe.model_copy(update=changes))
        network = device.place(run.load((model, fold))).eval()
        views = views_of(recipe, run.views)
        codes = known_classes(recipe, run.label_space)[1]
        members.append(((model, fold), network, device, views, codes, normalisation(network, device.torch_device)))

    def answer() -> Answers:
        logits = {}
        for member, network, device, views, codes, (mean, std) in members:
            recipe = run.recipes[member[0]]
            with torch.inference_mode(), device.autocast():
                layout = device.prediction_layout
                batch = device.normalise(torch.from_numpy(pixels[recipe.packed]), mean, std, layout)
                logits[member] = {
                    view.name: network(view.move(batch).contiguous(memory_format=layout)).float().numpy()[:, codes]
                    for view in views
                }
        return run.vote(logits)

    return answer


def onnx_way(
    run: FinishedRun, pixels: Pixels, precision: str, sample: Pixels, folder: Path
) -> tuple[Callable[[], Answers], float]:
    """The vote by ONNX files, already loaded, and their size in megabytes."""
    folder.mkdir()
    files = write_graphs(run, folder, precision, sample if precision == "int8" else None)
    sessions = {file: session(file.path) for file in files}

    def answer() -> Answers:
        means: dict[str, np.ndarray] = {}
        for file, loaded in sessions.items():
            found = loaded.run(list(file.outputs), {"images": pixels[file.framing]} if file.framing else means)
            means[file.path.stem] = found[0]
        return found[0], found[1]

    return answer, sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def compare(run: FinishedRun, folds: int, views: int, images: int, batch: int, rounds: int) -> None:
    """Print the table of some folds and views."""
    names = sorted((view_name(view) for view in run.views), key=lambda name: name != "identity")
    kept = restricted(run, sorted({fold for own in run.folds.values() for fold in own})[:folds], names[:views])
    pixels, sample = pixels_of(kept, "test", batch), pixels_of(kept, "train", images)
    ways: dict[str, Callable[[], Answers]] = {
        "PyTorch, as the workflow": torch_way(kept, pixels),
        "PyTorch, contiguous": torch_way(kept, pixels, channels_last=False),
    }
    megabytes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "fp16", "int8"):
            name = f"ONNX {precision}"
            ways[name], megabytes[name] = onnx_way(kept, pixels, precision, sample, Path(folder) / precision)
        answers = {name: way() for name, way in ways.items()}
        seconds = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name] = min(seconds[name], time.perf_counter() - started)
    first = next(iter(ways))
    print(f"\n{folds} fold(s), {views} view(s), batches of {batch}")
    print("| | ms per image | share | MB | largest difference | equal classes |\n|---|---|---|---|---|---|")
    for name, (probabilities, codes) in answers.items():
        away = np.abs(probabilities - answers[first][0]).max()
        milliseconds, share = seconds[name] / batch * 1e3, seconds[name] / seconds[first]
        size, equal = f"{megabytes[name]:.1f}" if name in megabytes else "", (codes == answers[first][1]).mean()
        print(f"| {name} | {milliseconds:.2f} | {share:.2f} | {size} | {away:.1e} | {equal:.1%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="a finished run; otherwise random weights")
    parser.add_argument("--net", default="tf_efficientnet_lite0")
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--images", type=int, default=64, help="by which the ranges of int8 are measured")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folds", type=int, nargs="+", default=FOLDS)
    parser.add_argument("--views", type=int, nargs="+", default=VIEWS)
    arguments = parser.parse_args()
    run = read_finished_run(arguments.results) if arguments.results else drawn_run(arguments.net, arguments.size)
    print(f"{arguments.results or arguments.net + ' ' + arguments.size}, {torch.get_num_threads()} thread")
    for folds in arguments.folds:
        for views in arguments.views:
            compare(run, folds, views, arguments.images, arguments.batch, arguments.rounds)


if __name__ == "__main__":
    main()
