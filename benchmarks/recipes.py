"""Train every recipe of config/recipes.yaml on one data set over the same folds, and make a table of what differs.

    .venv/bin/python benchmarks/recipes.py --data-root FOLDER [--models today,focal] [--cores 2] [--page PAGE.md]

FOLDER has the home task's layout. Members are trained through the workflow (existing ones are not trained again), one
thread each, so that as many run side by side as there are cores. Scores are those of out-of-fold predictions, on
average over the repeats of the split; log-loss is what one temperature leaves of it, fitted on the other half of the
groups; `expected` is macro-F1 after the offsets of `mean+expected`. Differences are to the first model, over the same
groups, with an interval of 95 % from a bootstrap over groups; one is in bold if its interval excludes 0 and every
repeat agrees on its sign.
"""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import pandas as pd
import yaml

from foldvote.config.experiment import Config, load_config
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.class_offsets import fit_offsets, predict_classes
from foldvote.evaluation.bootstrap import GroupSums, group_sums, scores
from foldvote.evaluation.calibration import apply_temperature, fit_temperature
from foldvote.evaluation.metrics import factor_scores, macro_f1
from foldvote.evaluation.paired_scores import mean_sums, paired_scores
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.prediction_files import LOGIT

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "config/recipes.yaml"
BEGIN, END = "<!-- table: benchmarks/recipes.py -->", "<!-- end of table -->"
DRAWS = 4000
SHOWN = {"macro_f1": "macro-F1", "log_loss": "log-loss"}


def train(config: Config, models: list[str], data_root: str, cores: int) -> None:
    """Train and predict every member of the models through the workflow."""
    folds = range(config.folds.count)
    targets = [
        f"{config.results}/oof/model={name}/fold={fold}/predictions.parquet" for name in models for fold in folds
    ]
    command = [Path(sys.executable).with_name("snakemake"), "--cores", str(cores), "--configfile", CONFIG]
    command += ["--config", f"data_root={data_root}", "--set-threads", "train=1", "predict_member=1", "--", *targets]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def out_of_fold(config: Config, model: str) -> list[pd.DataFrame]:
    """The predictions of each repeat of the split, one row per image, in one order, with the image's `group`."""
    results, repeats = ROOT / config.results, []
    split = pd.read_parquet(results / "folds/folds.parquet", columns=["image_id", "group"]).drop_duplicates()
    for repeat in range(config.folds.repeats):
        folds = range(repeat * config.folds.k, (repeat + 1) * config.folds.k)
        files = [results / f"oof/model={model}/fold={fold}/predictions.parquet" for fold in folds]
        rows = pd.concat(pd.read_parquet(file) for file in files)
        repeats.append(rows.merge(split, on="image_id", validate="one_to_one").sort_values("image_id"))
    return repeats


def sums_of(rows: pd.DataFrame, label_space: LabelSpace) -> tuple[GroupSums, dict[str, float]]:
    """What the scores of one repeat are computed from, for each group; the mean temperature of its probabilities, and
    its macro-F1 after expected offsets.

    Each half of the groups is brought to the temperature that fits the other half, as the ensemble's probabilities are
    calibrated too: how sure a recipe leaves its network does not matter, what the network knows does.
    """
    groups = np.unique(rows["group"].to_numpy(), return_inverse=True)[1]
    labels = rows["label"].to_numpy(np.int64)
    probabilities = softmax(rows[[LOGIT + name for name in label_space.classes]].to_numpy(np.float64))
    halves, temperatures = [groups % 2 == half for half in (0, 1)], []
    calibrated = np.empty_like(probabilities)
    for own, other in zip(halves, reversed(halves), strict=True):
        temperatures.append(fit_temperature(probabilities[other], labels[other]))
        calibrated[own] = apply_temperature(probabilities[own], temperatures[-1])
    expected = predict_classes(calibrated, fit_offsets(calibrated))
    more = {
        "T": float(np.mean(temperatures)),
        "expected": macro_f1(labels, expected, len(label_space.classes)),
    }
    return group_sums(labels, calibrated, groups, len(label_space.classes)), more


def factor_means(repeats: list[pd.DataFrame], label_space: LabelSpace) -> dict[str, float]:
    """Accuracy of each factor, the mean over repeats."""
    names = [LOGIT + name for name in label_space.classes]
    found = [
        factor_scores(rows["label"].to_numpy(np.int64), softmax(rows[names].to_numpy()), label_space)
        for rows in repeats
    ]
    return {factor: float(np.mean([one[factor]["accuracy"] for one in found])) for factor in label_space.factors}


def cpu_seconds(config: Config, model: str) -> float:
    """CPU seconds of the training of one member, on average over the members."""
    files = (ROOT / config.results / f"benchmarks/train/model={model}").glob("fold=*.tsv")
    return float(np.mean([pd.read_csv(file, sep="\t")["cpu_time"].iloc[-1] for file in files]))


def changes() -> dict[str, str]:
    """What each model of the file changes of `common`, as YAML in a line; of another base, which it names."""
    models = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))["models"]
    same = ("base", "common")
    said = {name: dict(item for item in recipe.items() if item != same) for name, recipe in models.items()}
    return {
        name: yaml.safe_dump(keys, default_flow_style=True, width=10_000, sort_keys=False).strip()[1:-1]
        for name, keys in said.items()
    }


def difference(row: dict[str, float], score: str, each: list[float]) -> str:
    """A difference and its interval, in bold if the interval excludes 0 and every repeat of the split agrees.

    Args:
        row: of `paired_scores`.
        score: name of the score.
        each: the difference in each repeat.
    """
    low, high = row[f"{score}_difference_low"], row[f"{score}_difference_high"]
    text = f"{row[f'{score}_difference']:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{text}**" if low * high > 0 and all(one * low > 0 for one in each) else text


def table(config: Config, models: list[str]) -> list[dict[str, str]]:
    """The rows, the least log-loss first; the first of the models is the reference.

    Args:
        config: of the file of recipes.
        models: names; every member's out-of-fold predictions exist.
    """
    label_space = read_label_space(ROOT / config.results / "data/classes.json")
    frames = {model: out_of_fold(config, model) for model in models}
    found = {model: [sums_of(rows, label_space) for rows in repeats] for model, repeats in frames.items()}
    sums = {model: [own for own, _ in repeats] for model, repeats in found.items()}
    means = {model: mean_sums(own) for model, own in sums.items()}
    reference, said = models[0], changes()
    paired = paired_scores(means, reference, DRAWS, config.seed, SHOWN)
    rows = []
    for model in sorted(models, key=lambda name: paired[name]["log_loss"]):
        row = {"recipe": model, "change": f"`{said[model]}`" if said[model] else ""}
        for score, title in SHOWN.items():
            each = [
                scores(own)[score] - scores(other)[score]
                for own, other in zip(sums[model], sums[reference], strict=True)
            ]
            row[title] = f"{paired[model][score]:.3f}"
            row[f"{title} against {reference}"] = "" if model == reference else difference(paired[model], score, each)
        for name, form in (("T", ".2f"), ("expected", ".3f")):
            row[name] = format(np.mean([more[name] for _, more in found[model]]), form)
        row |= {factor: f"{score:.3f}" for factor, score in factor_means(frames[model], label_space).items()}
        rows.append(row | {"CPU s": f"{cpu_seconds(config, model):.0f}"})
    return rows


def as_markdown(rows: list[dict[str, str]]) -> str:
    """The rows as a table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row[name] for name in columns) + " |" for row in rows])


def main() -> None:
    """Train, score, and write the table between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder of the home task's shape")
    parser.add_argument("--models", help="names, separated by commas, the reference first; all by default")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--page", type=Path, help="page whose table, between two marks, is replaced")
    parser.add_argument("--no-training", action="store_true", help="score what has been trained")
    asked = parser.parse_args()
    config = load_config(ROOT / CONFIG, {"data_root": asked.data_root})
    models = asked.models.split(",") if asked.models else list(config.models)
    if not asked.no_training:
        train(config, models, asked.data_root, asked.cores)
    text = as_markdown(table(config, models))
    print(text)
    if asked.page:
        before, _, rest = asked.page.read_text(encoding="utf-8").partition(BEGIN)
        asked.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
