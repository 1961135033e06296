"""The leak check: one probe scored with several kinds of splits, on drawn labels, and on telling train from test.

Splits by image leak where images of a group resemble one another. Here the gain is measured, on features that are
computed once, in seconds and before any training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.data import Layout
from foldvote.data.further_columns import column_values
from foldvote.data.label_space import read_label_space
from foldvote.evaluation.bootstrap import GroupSums, bootstrap, drawn_units, group_sums, scores
from foldvote.evaluation.intervals import compare, interval, reflected_interval
from foldvote.evaluation.metrics import macro_f1
from foldvote.evaluation.probabilities import softmax
from foldvote.evaluation.ranking import ranks, roc_auc
from foldvote.inference.feature_files import check_features, feature_ids, read_features
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_record, read_table
from foldvote.models.linear_probe import choose_strength, deal_parts, fit_probe
from foldvote.runtime.checks import Finding
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import derive, generator
from foldvote.splits.folds import SplitFiles, read_folds
from foldvote.splits.train_only import scored_rows

Codes = npt.NDArray[np.integer]
Text = npt.NDArray[np.str_]
PARTS = 5
MOST_IMAGES = 20_000  # of more, whole groups are drawn
_DRAWS, _AUC_DRAWS, _SHUFFLES = 1000, 200, 20
_DEALS = 4  # of the images to parts: the luck of one is as large as many a leak
_DIFFERENCES = ("difference", "difference_low", "difference_high")
_VIEW = "identity"
_TOLD = ("level", "text", "remedy")


@dataclass(frozen=True)
class Rows:
    """Images with features.

    Attributes:
        features: float32 (images, features).
        labels: codes, int64 (images,).
        groups: names of groups, (images,).
        classes: number of classes.
        seed: the run's seed.
    """

    features: np.ndarray
    labels: Codes
    groups: Text
    classes: int
    seed: int


@dataclass(frozen=True)
class LeakInputs:
    """The files of a leak check.

    Attributes:
        features: of the training images.
        manifest: of the training images.
        test_features: of the test images; None without any.
        test_manifest: of these; None without any.
        split: classes and folds.
        tables: tables of the layout, for columns that the manifest lacks.
    """

    features: Path
    manifest: Path
    test_features: Path | None
    test_manifest: Path | None
    split: SplitFiles
    tables: tuple[Path, ...] = ()


def check_leaks(inputs: LeakInputs, layout: Layout, columns: Sequence[str], seed: int, path: Path) -> None:
    """Score the probe in every way, and write the scores and what they say.

    Images that are only trained on are left out: nothing is scored on them, and they need not look like test images.

    Args:
        inputs: the files.
        layout: the section `data` of the configuration.
        columns: further columns to split by.
        seed: the run's seed.
        path: the JSON file to write, see docs/files.md.

    Raises:
        UserError: if the files do not belong together, or a column is nowhere.
    """
    folds, _ = read_folds(inputs.split.folds, inputs.split.certificate)
    table = scored_rows(folds).drop_duplicates("image_id").sort_values("image_id", kind="stable").reset_index(drop=True)
    table = table[_some_groups(table["group"].to_numpy(str), MOST_IMAGES, seed)]
    certified = read_json(inputs.split.certificate)["data_sha256"]
    about = check_features(inputs.features, {"data_sha256": certified}, [_VIEW])
    ids = table["image_id"].tolist()
    rows = Rows(
        read_features(inputs.features, ids, _VIEW),
        table["label"].to_numpy(np.int64),
        table["group"].to_numpy(str),
        len(read_label_space(inputs.split.classes).classes),
        seed,
    )
    manifest = read_table(inputs.manifest).set_index("image_id")
    values = {name: column_values(manifest, inputs.tables, layout, ids, name) for name in columns}
    strength = choose_strength(rows.features, rows.labels, rows.groups, rows.classes, derive(seed, "leak check"))
    splits = score_splits(rows, values, strength)
    drawn = score_drawn_labels(rows, strength)
    apart = _train_against_test(inputs, rows, strength)
    found = {key: about[key] for key in ("net", "pretrained_sha256", "size", "roi", "data_sha256")}
    found |= {"images": len(ids), "groups": len(np.unique(rows.groups)), "penalty": strength}
    found |= {"splits": splits, "drawn_labels": drawn, "train_against_test": apart}
    findings = told(splits, drawn, apart)
    write_json(path, found | {"told": [{key: getattr(one, key) for key in _TOLD} for one in findings]})
    log(f"leak check: a probe on {about['net']}, {len(ids):,} images of {found['groups']:,} groups")
    for finding in findings:
        log(f"  {finding.text}")


def score_splits(rows: Rows, values: Mapping[str, Text], strength: float) -> dict[str, dict[str, Any]]:
    """Cross-validated macro-F1 with groups, images and the values of further columns kept together.

    Args:
        rows: the images.
        values: the value of each image, by the name of the column. Images of a held-out value's groups are not learnt
            from either.
        strength: the penalty of the probe.

    Returns:
        By "group", "image" and name: parts, units, macro_f1, low, high; and, of all but "group", difference,
        difference_low and difference_high to "group". A column that leaves nothing to learn from has `parts` alone: 0.
    """
    units = {"group": rows.groups, "image": np.arange(len(rows.labels)).astype(str), **values}
    _, group = np.unique(rows.groups, return_inverse=True)
    sums: dict[str, GroupSums] = {}
    deals: dict[str, list[float]] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, unit in units.items():
        dealt = [deal_parts(rows.labels, unit, PARTS, rows.seed, "leak check", "parts", n) for n in range(_DEALS)]
        predicted = [_cross_predicted(rows, parts, strength, apart=name not in ("group", "image")) for parts in dealt]
        said = [one for one in predicted if one is not None]
        if len(said) < _DEALS:
            found[name] = {"parts": 0, "units": len(np.unique(unit))}
            continue
        labels, groups = np.tile(rows.labels, _DEALS), np.tile(group, _DEALS)
        sums[name] = group_sums(labels, np.concatenate(said), groups, rows.classes)
        deals[name] = [macro_f1(rows.labels, one.argmax(axis=1), rows.classes) for one in said]
        found[name] = {"parts": int(dealt[0].max()) + 1, "units": len(np.unique(unit))}
    drawn = {name: own["macro_f1"] for name, own in bootstrap(sums, _DRAWS, rows.seed).items()}
    points = {name: scores(own)["macro_f1"] for name, own in sums.items()}
    for name, point in points.items():
        low, high = reflected_interval(drawn[name], point, 0, 1)
        found[name] |= {"macro_f1": point, "low": low, "high": high}
        if name != "group" and "group" in points:
            pair = compare(drawn[name], drawn["group"], "higher", points=(point, points["group"]))
            luck = float(2 * np.std(np.subtract(deals[name], deals["group"]), ddof=1) / math.sqrt(_DEALS))
            found[name] |= dict(zip(_DIFFERENCES, _widened(*pair[:3], luck), strict=True))
    return found


def _widened(point: float, low: float, high: float, luck: float) -> tuple[float, float, float]:
    """A number and its interval over groups, widened by what it owes to the luck of the deals."""
    return point, point - math.hypot(point - low, luck), point + math.hypot(high - point, luck)


def score_drawn_labels(rows: Rows, strength: float) -> dict[str, float]:
    """Macro-F1 on labels that say nothing: each group gets those of another group, in a drawn order.

    Args:
        rows: the images.
        strength: the penalty of the probe.

    Returns:
        macro_f1, low, high, and chance: what these predictions score on shuffled labels.
    """
    draw = generator(rows.seed, "leak check", "labels")
    names, group = np.unique(rows.groups, return_inverse=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group, minlength=len(names)))[:-1])
    labels = rows.labels.copy()
    for own, other in zip(members, draw.permutation(len(names)), strict=True):
        labels[own] = np.resize(draw.permutation(rows.labels[members[other]]), len(own))
    false = Rows(rows.features, labels, rows.groups, rows.classes, rows.seed)
    parts = deal_parts(labels, rows.groups, PARTS, rows.seed, "leak check", "parts")
    probabilities = _cross_predicted(false, parts, strength)
    if probabilities is None:
        return {}
    sums, predicted = group_sums(labels, probabilities, group, rows.classes), probabilities.argmax(axis=1)
    point = scores(sums)["macro_f1"]
    low, high = reflected_interval(bootstrap({"": sums}, _DRAWS, rows.seed)[""]["macro_f1"], point, 0, 1)
    chances = [macro_f1(draw.permutation(labels), predicted, rows.classes) for _ in range(_SHUFFLES)]
    return {"macro_f1": point, "low": low, "high": high, "chance": float(np.mean(chances))}


def score_apart(train: np.ndarray, test: np.ndarray, groups: Text, strength: float, seed: int) -> dict[str, float]:
    """How well a probe tells train images from test images of groups that it has not seen.

    Args:
        train: features of training images, float32 (train, features).
        test: those of test images.
        groups: the groups of both, (train + test,).
        strength: the penalty of the probe.
        seed: the run's seed.

    Returns:
        auc (0.5: alike, 1: told apart), low and high.
    """
    features = np.concatenate([train, test])
    labels = np.repeat([0, 1], [len(train), len(test)])
    rows = Rows(features, labels, groups, 2, seed)
    parts = deal_parts(labels, groups, PARTS, seed, "leak check", "test")
    probabilities = _cross_predicted(rows, parts, strength)
    if probabilities is None:
        return {}
    place = np.empty(len(labels))  # within a part: regressions of different parts have scales of their own
    for part in np.unique(parts):
        own = np.flatnonzero(parts == part)
        place[own] = (np.argsort(np.argsort(probabilities[own, 1], kind="stable")) + 0.5) / len(own)
    of = ranks(labels, np.stack([1 - place, place], axis=1), 1)
    draws = of.counts_of_draws(*drawn_units(np.unique(groups, return_inverse=True)[1], _AUC_DRAWS, seed))
    low, high = interval(np.array([roc_auc(*counts) for counts in draws]))
    return {"auc": roc_auc(*of.counts()), "low": low, "high": high}


def told(splits: Mapping[str, Any], drawn: Mapping[str, float], apart: Mapping[str, Any] | None) -> list[Finding]:
    """What the scores say, one sentence each, in the order of the arguments.

    Args:
        splits: from `score_splits`.
        drawn: from `score_drawn_labels`.
        apart: from `score_apart`, with `groups_known`; None without test images.
    """
    honest = splits["group"]
    if "macro_f1" not in honest:
        return [Finding("ok", "there are too few groups to learn from some and score the others")]
    score = f"{honest['macro_f1']:.3f} ({honest['low']:.3f} to {honest['high']:.3f}) macro-F1"
    found = [Finding("ok", f"splitting by group scores {score}")]
    found += [_of_split(name, own, honest) for name, own in splits.items() if name != "group"]
    found += [_of_drawn_labels(drawn)] if drawn else []
    return found + ([_of_test_images(apart)] if apart and "auc" in apart else [])


def _of_split(name: str, own: Mapping[str, Any], honest: Mapping[str, Any]) -> Finding:
    """What the score of one split says beside that by group."""
    if "difference" not in own:
        why = f"its {own['units']} value(s) leave no image of other groups to learn from"
        return Finding("ok", f"{name} cannot be held out: {why}")
    pair = f"({own['macro_f1']:.3f} instead of {honest['macro_f1']:.3f})"
    gap, by = own["difference"], "splitting by image" if name == "image" else f"holding out whole values of {name}"
    if name == "image" and own["units"] == honest["units"]:
        return Finding("ok", f"every image is its own group, so that splitting by image is as good {pair}")
    if own["difference_low"] > 0 and name == "image":
        return Finding("ok", f"splitting by image would flatter you by {gap:.3f} {pair}")
    if own["difference_high"] < 0:
        text = f"{by} costs {-gap:.3f} {pair}: new values of {name} will score lower than your folds say"
        return Finding("warning", text, f"If test images have new values of {name}, keep each in one fold.")
    return Finding("ok", f"{by} makes no difference that these images show {pair}")


def _of_drawn_labels(drawn: Mapping[str, float]) -> Finding:
    text = "drawn labels of groups score {macro_f1:.3f}, where guessing scores {chance:.3f}: ".format(**drawn)
    if drawn["low"] > drawn["chance"]:
        text += "images and labels may be joined wrongly, or groups hold images of one another"
        return Finding("warning", text, "Compare some images with their labels and groups.")
    return Finding("ok", text + "nothing but the labels is learnt")


def _of_test_images(apart: Mapping[str, Any]) -> Finding:
    text = f"train and test images are told apart with an AUC of {apart['auc']:.3f} (0.5: not at all): "
    if apart["low"] <= 0.5:
        return Finding("ok", text + "they look alike")
    text += "the test score may lie below that of cross-validation"
    text += "" if apart["groups_known"] else ", or the probe knows test persons again, as no groups are known"
    return Finding("warning", text, "Look for what differs: light, formats, sizes, cameras.")


def _cross_predicted(rows: Rows, parts: Codes, strength: float, apart: bool = False) -> np.ndarray | None:
    """Probabilities of each part, float64 (images, classes), of a probe fitted on the others; None if none can be.

    With `apart`, the images of a part's groups are left out of its fit.
    """
    probabilities = np.empty((len(rows.labels), rows.classes))
    if len(np.unique(parts)) < 2:
        return None
    for part in np.unique(parts):
        held_out = parts == part
        learnt = ~held_out & ~np.isin(rows.groups, rows.groups[held_out]) if apart else ~held_out
        if not learnt.any():
            return None
        probe = fit_probe(rows.features[learnt], rows.labels[learnt], rows.classes, strength)
        probabilities[held_out] = softmax(probe.logits(rows.features[held_out]))
    return probabilities


def _train_against_test(inputs: LeakInputs, rows: Rows, strength: float) -> dict[str, Any] | None:
    """`score_apart` of the training rows and the test images; None without test images."""
    if inputs.test_features is None or inputs.test_manifest is None:
        return None
    packed = read_record(inputs.test_manifest)["data_sha256"]
    check_features(inputs.test_features, {"data_sha256": packed}, [_VIEW])
    manifest = read_table(inputs.test_manifest).set_index("image_id")
    ids = feature_ids(inputs.test_features).to_pylist()
    known = manifest.reindex(ids)["group"]
    groups = "test " + known.fillna(pd.Series(ids, index=known.index)).to_numpy(str).astype(object)
    chosen = _some_groups(groups.astype(str), MOST_IMAGES, rows.seed)
    kept = [image_id for image_id, use in zip(ids, chosen, strict=True) if use]
    test = read_features(inputs.test_features, kept, _VIEW)
    both = np.concatenate([("train " + rows.groups.astype(object)), groups[chosen]]).astype(str)
    found = score_apart(rows.features, test, both, strength, rows.seed)
    return {"images": len(kept), "groups_known": bool(known.notna().all()), **found}


def _some_groups(groups: Text, most: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which images are kept, so that they are at most so many, of whole groups: all, if they are no more."""
    if len(groups) <= most:
        return np.ones(len(groups), bool)
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = generator(seed, "leak check", "groups").permutation(len(names))
    kept = np.zeros(len(names), bool)
    kept[order[np.cumsum(sizes[order]) <= most]] = True
    return kept[group]
