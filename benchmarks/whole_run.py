"""A whole run beside what people would otherwise use: seconds, CPU seconds and scores, at equal folds and epochs.

    .venv/bin/python benchmarks/whole_run.py --data-root FOLDER --runs 2x2 5x4 [--answers ANSWERS.csv]
        [--timm-train pytorch-image-models/train.py] [--fastai-python PYTHON] [--peers foldvote plain timm fastai]

FOLDER has the home task's layout. Every run begins with the photographs and ends with out-of-fold and test predictions
with two views, on the CPU; the folds are foldvote's. `2x2` is 2 folds of 2 epochs. Peers (benchmarks/peers/): a plain
script; timm's train.py, from a checkout of its repository, once per fold; fastai, from a Python in which it is
installed. All take the learning rate, batch size and smoothing of config/maskbase.yaml; peers crop, mirror and colour
images lightly, foldvote has the rest of that recipe. Scores are macro-F1.
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml
from sklearn.metrics import f1_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from task import Task, write_task

from foldvote.config.image_size import parse_size
from foldvote.data.label_space import read_label_space

ROOT, PEERS = Path(__file__).resolve().parents[1], Path(__file__).resolve().parent / "peers"


class Measured(NamedTuple):
    """One run: wall seconds, CPU seconds of its processes, and the scores."""

    seconds: float
    cpu: float
    oof: float
    test: float


def main() -> None:
    """Measure each size of run with each peer, and print a line for each."""
    given = arguments()
    print("| folds x epochs | run | s | ratio | CPU s | ratio | OOF macro-F1 | test macro-F1 |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for folds, epochs in (map(int, run.split("x")) for run in given.runs):
        with tempfile.TemporaryDirectory() as scratch:
            lines = measure(Path(scratch), folds, epochs, given)
        base = lines.get("plain")
        for name, one in lines.items():
            ratios = (
                [f"{mine / theirs:.2f}" for mine, theirs in zip(one[:2], base[:2], strict=True)] if base else ["", ""]
            )
            cells = [f"{one.seconds:.0f}", ratios[0], f"{one.cpu:.0f}", ratios[1], f"{one.oof:.3f}", f"{one.test:.3f}"]
            print(f"| {folds} x {epochs} | {name} | {' | '.join(cells)} |", flush=True)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--answers", type=Path, help="CSV with ImageID and ans of the test images")
    parser.add_argument("--runs", nargs="+", default=["2x2"], help="FOLDSxEPOCHS")
    parser.add_argument("--peers", nargs="+", default=["plain", "timm", "fastai"])
    parser.add_argument("--timm-train", type=Path, help="timm's train.py; without it, timm is left out")
    parser.add_argument("--fastai-python", type=Path, help="a Python with fastai; without it, fastai is left out")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


def measure(scratch: Path, folds: int, epochs: int, given: argparse.Namespace) -> dict[str, Measured]:
    """foldvote and every peer that is there, one after the other."""
    config = yaml.safe_load((ROOT / "config/maskbase.yaml").read_text())
    config |= {"data_root": str(given.data_root.resolve()), "results": str(scratch / "results")}
    config["folds"]["k"] = folds
    recipe = config["models"]["lite0"]
    recipe["epochs"] = epochs
    (scratch / "run.yaml").write_text(yaml.safe_dump(config))
    answers = pd.read_csv(given.answers).set_index("ImageID")["ans"] if given.answers else pd.Series(dtype=int)
    snakemake = [Path(sys.executable).parent / "snakemake", "--cores", str(given.cores), "--directory", scratch]
    weights = scratch / recipe["pretrained"]
    common = [
        *snakemake,
        "--snakefile",
        ROOT / "Snakefile",
        "--configfile",
        scratch / "run.yaml",
        "--quiet",
        "all",
        "--",
    ]
    timed([*common, str(weights.relative_to(scratch))], scratch)  # peers find the weights there as well
    seconds, cpu = timed([*common, "all"], scratch)
    results = scratch / "results"
    oof, test = (pd.read_parquet(results / "ensemble" / f"{part}.parquet") for part in ("oof", "test"))
    truth = answers.reindex(test["image_id"])
    done = {
        "foldvote": Measured(seconds, cpu, score(oof["label"], oof["prediction"]), score(truth, test["prediction"]))
    }
    images = images_of(results, given.data_root)
    classes = len(read_label_space(results / "data/classes.json").classes)
    height, width = parse_size(recipe["size"])
    task = Task(
        recipe["net"],
        str(weights),
        height,
        width,
        classes,
        folds,
        epochs,
        recipe["batch_size"],
        float(recipe["lr"]),
        given.cores,
    )
    for name, command in commands(given).items():
        folder = scratch / name
        folder.mkdir()
        write_task(folder, task, images.drop(columns="image_id"))
        seconds, cpu = timed([*command[:2], folder, *command[2:]], folder)
        said, known = np.load(folder / "probabilities.npy").argmax(1), images["fold"].to_numpy() >= 0
        truth = answers.reindex(images.loc[~known, "image_id"])
        done[name] = Measured(seconds, cpu, score(images.loc[known, "label"], said[known]), score(truth, said[~known]))
    return done


def commands(given: argparse.Namespace) -> dict[str, list[Path | str]]:
    """The peers that are asked for and can be run: Python, script, and what comes after the folder."""
    here = {"plain": [sys.executable, PEERS / "plain.py"]}
    if given.timm_train:
        here["timm"] = [sys.executable, PEERS / "with_timm.py", given.timm_train.resolve()]
    if given.fastai_python:
        here["fastai"] = [given.fastai_python.absolute(), PEERS / "with_fastai.py"]
    return {name: command for name, command in here.items() if name in given.peers}


def images_of(results: Path, data_root: Path) -> pd.DataFrame:
    """All images that foldvote used: image_id, path, label, fold; label and fold are -1 for a test image."""
    folds = pd.read_parquet(results / "folds/folds.parquet")[["image_id", "label", "fold"]]
    tables = []
    for split in ("train", "test"):
        manifest = pd.read_parquet(results / f"data/manifest/split={split}/manifest.parquet")[["image_id", "path"]]
        tables.append(manifest.merge(folds, how="left" if split == "test" else "inner", on="image_id"))
    images = pd.concat(tables, ignore_index=True).fillna({"label": -1, "fold": -1})
    images["path"] = [str((data_root / path).resolve()) for path in images["path"]]
    return images.astype({"label": int, "fold": int})


def timed(command: list[Path | str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all that it started; its output goes to a file."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        done = subprocess.run([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = re.sub(r"(?s).*?((?:[^\n]*\n){0,20})$", r"\1", (folder / "output.txt").read_text())
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{tail}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def score(truth: pd.Series, predicted: pd.Series | np.ndarray) -> float:
    """Macro-F1, or nan without answers."""
    if truth.isna().any():
        return float("nan")
    return float(f1_score(truth.astype(int), np.asarray(predicted), average="macro"))


if __name__ == "__main__":
    main()
