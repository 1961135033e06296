"""timm's own training script, once for each fold: `with_timm.py FOLDER TRAIN_PY`, TRAIN_PY from a checkout of timm."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import timm
import torch
from plain import predict
from task import Task, collect, read_task


def link_images(root: Path, images: pd.DataFrame, fold: int) -> None:
    """The folders that timm reads: train/CLASS/ and validation/CLASS/, as links."""
    for label in sorted(set(images["label"]) - {-1}):
        for part in ("train", "validation"):
            (root / part / f"{label:03d}").mkdir(parents=True)
    known = images[images["fold"] != -1]
    for number, row in enumerate(known.itertuples()):
        part = "validation" if row.fold == fold else "train"
        (root / part / f"{row.label:03d}" / f"{number}{Path(row.path).suffix}").symlink_to(row.path)


def train(root: Path, task: Task, script: Path) -> torch.nn.Module:
    """Train one fold by the script, and load the weights of its last epoch."""
    options = {
        "--data-dir": root,
        "--output": root / "out",
        "--experiment": "run",
        "--model": task.net,
        "--pretrained-path": task.weights,
        "--num-classes": task.classes,
        "--epochs": task.epochs,
        "--batch-size": task.batch,
        "--lr": task.lr,
        "--opt": "adamw",
        "--weight-decay": 0.01,
        "--sched": "cosine",
        "--warmup-epochs": 0,
        "--cooldown-epochs": 0,
        "--smoothing": 0.05,
        "--color-jitter": 0.1,
        "--workers": task.cores,
        "--device": "cpu",
    }
    words = [str(word) for option in options.items() for word in option]
    words += ["--pretrained", "--no-prefetcher", "--input-size", "3", str(task.height), str(task.width)]
    words += ["--scale", "0.9", "1", "--channels-last", "--crop-pct", "1.0"]
    one = {"OMP_NUM_THREADS": str(task.cores)}
    subprocess.run([sys.executable, script, *words], check=True, env=os.environ | one)
    return timm.create_model(
        task.net, num_classes=task.classes, checkpoint_path=str(root / "out" / "run" / "last.pth.tar")
    ).to(memory_format=torch.channels_last)


def main() -> None:
    """All folds, one after the other; predictions as in the plain script."""
    folder, task, images = read_task()
    torch.set_num_threads(task.cores)
    tests, members = images[images["fold"] == -1], []
    for fold in range(task.folds):
        root = folder / f"timm-{fold}"
        link_images(root, images, fold)
        net = train(root, task, Path(sys.argv[2]))
        members.append((predict(net, images[images["fold"] == fold], task), predict(net, tests, task)))
    collect(folder, images, members, task.classes)


if __name__ == "__main__":
    main()
