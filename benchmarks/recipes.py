"""Train every recipe of config/recipes.yaml on one data set at equal budget, and make a table of the scores.

    .venv/bin/python benchmarks/recipes.py --data-root FOLDER [--models plain,focal] [--cores 2] [--page PAGE.md]

FOLDER has the home task's layout. Members are trained through the workflow (existing ones are not trained again). The
out-of-fold predictions of each repeat are scored separately: the table has the mean and half the range over repeats.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import pandas as pd

from foldvote.config.experiment import Config, load_config
from foldvote.data.label_space import read_label_space
from foldvote.evaluation.metrics import accuracy, factor_scores, macro_f1
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.prediction_files import LOGIT

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "config/recipes.yaml"
BEGIN, END = "<!-- table: benchmarks/recipes.py -->", "<!-- end of table -->"


def train(config: Config, models: list[str], data_root: str, cores: int) -> None:
    """Train and predict every member of the models through the workflow."""
    folds = range(config.folds.count)
    targets = [
        f"{config.results}/oof/model={name}/fold={fold}/predictions.parquet" for name in models for fold in folds
    ]
    command = [Path(sys.executable).with_name("snakemake"), "--cores", str(cores), "--configfile", CONFIG]
    command += ["--config", f"data_root={data_root}", "--set-threads", "train=1", "predict_member=1", "--", *targets]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def scores_of(config: Config, model: str) -> dict[str, float | str]:
    """One row of the table."""
    results = ROOT / config.results
    label_space = read_label_space(results / "data/classes.json")
    names, repeats = [LOGIT + name for name in label_space.classes], []
    for repeat in range(config.folds.repeats):
        folds = range(repeat * config.folds.k, (repeat + 1) * config.folds.k)
        rows = pd.concat(
            pd.read_parquet(results / f"oof/model={model}/fold={fold}/predictions.parquet") for fold in folds
        )
        labels, probabilities = rows["label"].to_numpy(np.int64), softmax(rows[names].to_numpy())
        predicted = probabilities.argmax(axis=1)
        factors = factor_scores(labels, probabilities, label_space)
        repeats.append(
            {
                "macro-F1": macro_f1(labels, predicted, len(label_space.classes)),
                "accuracy": accuracy(labels, predicted),
                **{name: score["accuracy"] for name, score in factors.items()},
            }
        )
    timings = (results / f"timings/train/model={model}").glob("fold=*.json")
    seconds = sum(json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in timings) / len(repeats)
    table = pd.DataFrame(repeats)
    spread = (table.max() - table.min()) / 2
    shown = {name: f"{table[name].mean():.3f} ± {spread[name]:.3f}" for name in ("macro-F1", "accuracy")}
    factor_means = {name: f"{table[name].mean():.3f}" for name in label_space.factors}
    return {"recipe": model, **shown, **factor_means, "seconds": f"{seconds:.0f}", "order": table["macro-F1"].mean()}


def as_markdown(rows: list[dict[str, float | str]]) -> str:
    """The rows as a table, the best macro-F1 first."""
    ordered = sorted(rows, key=lambda row: -float(row["order"]))
    columns = [name for name in ordered[0] if name != "order"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[name]) for name in columns) + " |" for row in ordered]
    return "\n".join(lines)


def main() -> None:
    """Train, score, and write the table between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder of the home task's shape")
    parser.add_argument("--models", help="names, separated by commas; all by default")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--page", type=Path, help="page whose table, between two marks, is replaced")
    asked = parser.parse_args()
    config = load_config(ROOT / CONFIG, {"data_root": asked.data_root})
    models = asked.models.split(",") if asked.models else list(config.models)
    train(config, models, asked.data_root, asked.cores)
    table = as_markdown([scores_of(config, model) for model in models])
    print(table)
    if asked.page:
        before, _, rest = asked.page.read_text(encoding="utf-8").partition(BEGIN)
        asked.page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
