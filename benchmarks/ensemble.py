"""Seconds, CPU seconds and peak memory of the whole `ensemble` stage by the number of images.

    python benchmarks/ensemble.py --images 10000 100000 1000000 --metrics macro_f1 average_precision

Drawn predictions of five models in five folds (25 members, 18 classes, one view, seven images per person), as many test
images as training images; models are right in different measure. Beside it, in the same run and on the same files, the
peer: what a notebook does, which is to read all with pandas, average, and score. It checks nothing, fits nothing and
has no intervals; the last column says how many times its seconds the stage takes.

Then the home task, once for each metric: 2,700 persons with seven images each, 12,600 test images, three models in five
folds and two views.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from foldvote.config.ensemble import Submission, Vote
from foldvote.data.label_space import factor_label_space, write_label_space
from foldvote.ensemble.build_ensemble import EnsembleFiles, make_ensemble
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.io.files import write_json
from foldvote.io.parquet import write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import FOLDS, split_sha256

LABEL_SPACE = factor_label_space(
    {"mask": ("wear", "incorrect", "not-wear"), "gender": ("male", "female"), "age": ("under30", "30to59", "60plus")}
)
SHARES = (5, 1, 1)  # of the mask states among a person's seven images
SKILL = {"a": 2.0, "b": 2.5, "c": 3.0, "d": 1.5, "e": 2.2}  # what a model adds to the true class's logit
K = 5
SHOTS = 7
THREADS = ("OMP", "OPENBLAS", "MKL")


@dataclass(frozen=True)
class Size:
    """How much is drawn: numbers of training images, test images and models, and the views."""

    images: int
    tests: int
    models: int = len(SKILL)
    views: tuple[str, ...] = ("identity",)


HOME = Size(images=18_900, tests=12_600, models=3, views=("hflip", "identity"))


def main() -> None:
    """Simulate each size, run both in processes of their own, print one line per size."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000])
    arguments.add_argument("--metrics", nargs="*", default=["macro_f1"], help="of the home task, a line for each")
    arguments.add_argument("--folder", type=Path, help="where the drawn files go; a temporary folder, if not given")
    arguments.add_argument("--measure", choices=["stage", "notebook"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.measure:
        run = run_stage if given.measure == "stage" else run_notebook
        print(json.dumps(measured(lambda: run(given.folder, given.metrics[0]))))
        return
    print(
        "| images | members | metric | ensemble s | CPU s | peak MB | notebook s | CPU s | peak MB | seconds, ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for size in (*(Size(images, images) for images in given.images), HOME):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            draw(Path(folder), size)
            for metric in given.metrics if size is HOME else ("macro_f1",):
                stage, peer = (child(folder, name, metric) for name in ("stage", "notebook"))
                cells = " | ".join(
                    f"{one['seconds']:.1f} | {one['cpu']:.1f} | {one['mb']:.0f}" for one in (stage, peer)
                )
                images = f"{size.images:,}{' (home task)' if size is HOME else ''}"
                ratio = stage["seconds"] / peer["seconds"]
                print(f"| {images} | {K * size.models} | {metric} | {cells} | {ratio:.1f} |", flush=True)


def draw(root: Path, size: Size) -> None:
    """Write the split, the classes and all members' predictions."""
    draws, classes, images = generator(0, "benchmark"), list(LABEL_SPACE.classes), size.images
    person = np.arange(images) // SHOTS
    mask = np.repeat(np.arange(3), SHARES)[np.arange(images) % SHOTS]
    label = mask * 6 + draws.integers(0, 6, person[-1] + 1)[person]
    fold = draws.integers(0, K, person[-1] + 1)[person]
    names = pd.Series(person).astype(str).str.zfill(7)
    ids = names + "/" + pd.Series(np.arange(images) % SHOTS).astype(str)
    folds = pd.DataFrame({"image_id": ids, "profile": names, "group": names, "stratum": "s", "label": label})
    folds = folds.assign(repeat=0, fold=fold)
    digest = split_sha256(folds)
    write_table(folds, root / "folds.parquet", FOLDS, record={"split_sha256": digest})
    write_json(root / "certificate.json", {"split_sha256": digest})
    write_label_space(LABEL_SPACE, root / "classes.json")
    record = {"split_sha256": digest, "classes": classes, "views": list(size.views), "device": "cpu"}
    for model, skill in list(SKILL.items())[: size.models]:
        for number in range(K):
            own = folds[folds["fold"] == number].drop(columns=["group", "stratum", "repeat", "fold"])
            tests = pd.DataFrame({"image_id": "t" + ids[: size.tests], "profile": None, "label": None})
            for split, rows, truth in (("oof", own, own["label"].to_numpy()), ("test", tests, label[: size.tests])):
                views = []
                for view in size.views:
                    logits = generator(1, split, model, number, view).standard_normal(
                        (len(rows), len(classes)), np.float32
                    )
                    logits[np.arange(len(rows)), truth] += skill
                    frame = pd.DataFrame(logits, columns=[LOGIT + name for name in classes], index=rows.index)
                    views.append(pd.concat([rows, frame], axis=1).assign(view=view))
                said = {"model": model, "fold": number, "split": split, "data_sha256": split}
                said |= {"weights_sha256": f"{model} {number}"}
                path = root / split / f"model={model}" / f"fold={number}" / "predictions.parquet"
                write_table(pd.concat(views), path, predictions_schema(classes), record=record | said)


def run_stage(root: Path, metric: str) -> None:
    """The stage with its default settings and a main metric, by which it also chooses."""
    out = root / "ensemble"
    models = {path.name.removeprefix("model="): K for path in sorted(root.glob("oof/model=*"))}
    inputs = EnsembleInputs(
        oof=sorted(root.glob("oof/*/*/predictions.parquet")),
        test=sorted(root.glob("test/*/*/predictions.parquet")),
        folds=root / "folds.parquet",
        certificate=root / "certificate.json",
        classes=root / "classes.json",
    )
    files = EnsembleFiles(
        oof=out / "oof.parquet",
        test=out / "test.parquet",
        metrics=out / "metrics.json",
        weights=out / "weights.json",
        votes=out / "votes.json",
        slices=out / "slices.csv",
        reliability=out / "reliability.csv",
        issues=out / "label_issues.parquet",
        leaderboard=out / "leaderboard.csv",
    )
    make_ensemble(inputs, files, models, Vote(score=metric), Submission(), 0, find_metrics([metric]))


def run_notebook(root: Path, _metric: str) -> None:
    """All predictions in one table, the mean by image, the score, the test answers."""
    columns = [LOGIT + name for name in LABEL_SPACE.classes]
    oof, tests = (pd.read_parquet(root / split) for split in ("oof", "test"))
    means = []
    for table in (oof, tests):
        logits = table[columns].to_numpy()
        said = np.exp(logits - logits.max(axis=1, keepdims=True))
        table[columns] = said / said.sum(axis=1, keepdims=True)
        means.append(table.groupby("image_id")[columns].mean())
    truth = oof.drop_duplicates("image_id").set_index("image_id")["label"].loc[means[0].index]
    f1_score(truth.astype(int), means[0].to_numpy().argmax(axis=1), average="macro")
    means[1].to_numpy().argmax(axis=1)


def measured(run: Callable[[], None]) -> dict[str, float]:
    """Seconds and CPU seconds of one call, and the peak memory of this process in MB.

    ru_maxrss would be at least what the parent held when it started this process.
    """
    start, cpu = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "cpu": cpu, "mb": int(peak.split()[1]) / 1024}


def child(folder: str, name: str, metric: str) -> dict[str, float]:
    """One measurement in a process of its own, so that its peak memory is measured alone."""
    command = [sys.executable, __file__, "--measure", name, "--metrics", metric, "--folder", folder]
    one = {f"{library}_NUM_THREADS": "1" for library in THREADS}  # as Snakemake gives the rule
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | one)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
