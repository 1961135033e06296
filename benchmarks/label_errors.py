"""How well planted label errors are found in a finished run: by foldvote's ranking, self-confidence, and cleanlab.

    python benchmarks/label_errors.py --results results
    python benchmarks/label_errors.py --results wrong --truth results/data/manifest/split=train/manifest.parquet

Without --truth, errors are planted in the labels with which the predictions are compared: a gender flipped, an age
moved to the next band, two photographs swapped. The models were trained on the labels without these errors, so the
numbers are better than for errors that were present in training. With --truth, the errors are the labels of the run
that differ from this manifest of the same images, and the models were trained on them; benchmarks/plant_errors.py
makes such errors. In both cases real errors among the labels count as false alarms.

All methods rank images: a reported person counts as its images, and each list is cut at the number of planted errors,
where precision equals recall if the list is that long. cleanlab (pip install cleanlab) is compared if it is
installed.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import candidates_of, model_probabilities
from foldvote.ensemble.model_predictions import average_over_folds
from foldvote.errors import raise_all
from foldvote.evaluation.group_consistency import fields, group_fields, level_codes
from foldvote.evaluation.label_issues import BETWEEN, label_issues
from foldvote.evaluation.vote_table import PROBABILITY
from foldvote.inference.prediction_files import sound_records
from foldvote.io.parquet import read_record, read_table
from foldvote.io.paths import member_of
from foldvote.runtime.seeding import generator


def main() -> None:
    """Plant errors several times and print one line per method."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--results", type=Path, default=Path("results"))
    arguments.add_argument("--share", type=float, default=0.02, help="of the persons, for each kind of error")
    arguments.add_argument("--times", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--truth", type=Path, help="a manifest with the true labels: nothing is planted")
    given = arguments.parse_args()
    rows, probabilities, by_model, label_space = read_results(given.results)
    if given.truth:
        known = pd.read_parquet(given.truth, columns=["image_id", "label"]).set_index("image_id")["label"]
        truth, times = known.loc[rows["image_id"]].to_numpy(), [rows["label"].to_numpy()]
    else:
        truth = rows["label"].to_numpy()
        times = [plant(rows, label_space, given.share, given.seed + time) for time in range(given.times)]
    found = [measure(rows.assign(label=told), truth, probabilities, by_model, label_space) for told in times]
    print(f"{len(rows):,} images, {rows['profile'].nunique():,} persons, {len(by_model)} models", end="; ")
    print(f"images with an error: {np.mean([time['planted'] for time in found]):.0f}; mean of {len(times)}")
    for method in [name for name in found[0] if name != "planted"]:
        precision, recall = np.mean([time[method] for time in found], axis=0)
        print(f"{method}: precision {precision:.3f}, recall {recall:.3f} at the number planted")
    if "cleanlab" not in found[0]:
        print("cleanlab: not installed, not compared")


def read_results(results: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, LabelSpace]:
    """Rows, probabilities of the ensemble (N, C) and of the models (M, N, C), and the classes of a finished run."""
    label_space = read_label_space(results / "data/classes.json")
    voted = read_table(results / "ensemble/oof.parquet")
    probabilities = voted[[PROBABILITY + name for name in label_space.classes]].to_numpy()
    paths = sorted(results.glob("oof/model=*/fold=*/predictions.parquet"))
    expected = Counter(member_of(path)[0] for path in paths)
    split = read_record(results / "ensemble/oof.parquet")["split_sha256"]
    records, faults = sound_records(paths, "oof", expected, label_space.classes, split)
    gathered, more = average_over_folds(
        records, pa.array(voted["image_id"], pa.string()), label_space.classes, lambda _: []
    )
    raise_all(faults + more)
    rows = voted[["image_id", "profile", "label", "fold"]]
    return rows, probabilities, model_probabilities(candidates_of(gathered, label_space)), label_space


def measure(
    rows: pd.DataFrame, truth: np.ndarray, probabilities: np.ndarray, by_model: np.ndarray, label_space: LabelSpace
) -> dict[str, float | tuple[float, float]]:
    """The number of images whose label is wrong, and (precision, recall) of each method in finding them."""
    labels = rows["label"].to_numpy()
    wrong = labels != truth
    number = int(wrong.sum())
    issues = label_issues(rows, probabilities, by_model, label_space, least=0.0)
    ids = issues["image_id"].where(issues["kind"] != "swap", issues["image_id"] + BETWEEN + issues["other_image_id"])
    reported = ids.str.split(BETWEEN, regex=False).explode().drop_duplicates()
    ranked = {
        "foldvote": pd.Index(rows["image_id"]).get_indexer(reported),
        "self-confidence": np.argsort(probabilities[np.arange(len(rows)), labels], kind="stable"),
    }
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        pass
    else:
        for method, adjusted in (("normalized_margin", True), ("self_confidence", True)):
            scores = get_label_quality_scores(labels, probabilities, method=method, adjust_pred_probs=adjusted)
            name = "cleanlab" if method == "normalized_margin" else f"cleanlab, {method}"
            ranked[name] = np.argsort(scores, kind="stable")
    hits = {name: int(wrong[places[:number]].sum()) for name, places in ranked.items()}
    shown = {name: (hits[name] / min(number, len(ranked[name])), hits[name] / number) for name in ranked}
    return {"planted": number} | shown


def plant(rows: pd.DataFrame, label_space: LabelSpace, share: float, seed: int) -> np.ndarray:
    """Labels with errors: int64 (images,). For each field at least one person is drawn."""
    draws = generator(seed, "plant")
    levels = {name: level_codes(label_space, name)[rows["label"].to_numpy()] for name in fields(label_space)}
    own = group_fields(rows, label_space)
    groups = list(rows.groupby("profile").indices.values())
    for name, given in levels.items():
        count = max(1, round(share * len(groups)))
        number = len(fields(label_space)[name])
        for chosen in draws.permutation(len(groups))[:count]:
            places = groups[chosen]
            if name in own:
                given[places] = moved(given[places[0]], number, draws)
                continue
            first = draws.choice(places)
            others = places[given[places] != given[first]]
            if len(others):
                second = draws.choice(others)
                given[[first, second]] = given[[second, first]]
            else:  # nothing to swap with
                given[first] = moved(given[first], number, draws)
    shape = tuple(len(known) for known in fields(label_space).values())
    return np.ravel_multi_index(tuple(levels.values()), shape)


def moved(level: int, number: int, draws: np.random.Generator) -> int:
    """A neighbouring level."""
    neighbours = [other for other in (level - 1, level + 1) if 0 <= other < number]
    return int(draws.choice(neighbours))


if __name__ == "__main__":
    main()
