"""What every peer of benchmarks/whole_run.py is given, and what it hands back.

A peer is called with a folder. It reads `task.json` and `images.csv` (one row per image: path, label, fold; label and
fold are -1 for a test image) and writes `probabilities.npy`, float32 (images, classes) in the order of the rows: out of
fold for images to train on, the mean over all folds and views for test images.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Task:
    """Net, weights and budget, which are the same for all.

    Attributes:
        net: name of a net of timm.
        weights: its pretrained weights, a safetensors file.
        height: of the net's input in pixels.
        width: of the net's input in pixels.
        classes: number of classes.
        folds: number of networks.
        epochs: of each.
        batch: images in a training batch.
        lr: highest learning rate.
        cores: threads of torch, and loader processes.
    """

    net: str
    weights: str
    height: int
    width: int
    classes: int
    folds: int
    epochs: int
    batch: int
    lr: float
    cores: int


def write_task(folder: Path, task: Task, images: pd.DataFrame) -> None:
    """Write what a peer is given."""
    (folder / "task.json").write_text(json.dumps(asdict(task), indent=1))
    images.to_csv(folder / "images.csv", index=False)


def read_task() -> tuple[Path, Task, pd.DataFrame]:
    """The folder that this peer was called with, and what it holds."""
    folder = Path(sys.argv[1])
    return folder, Task(**json.loads((folder / "task.json").read_text())), pd.read_csv(folder / "images.csv")


def collect(folder: Path, images: pd.DataFrame, members: list[tuple[np.ndarray, np.ndarray]], classes: int) -> None:
    """Write the answer, from each member's probabilities for its validation images and for the test images."""
    answer, fold = np.zeros((len(images), classes), np.float32), images["fold"].to_numpy()
    for number, (validation, tests) in enumerate(members):
        answer[fold == number] = validation
        answer[fold == -1] += tests / len(members)
    np.save(folder / "probabilities.npy", answer)
