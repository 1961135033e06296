"""Likely label errors, ranked by out-of-fold predictions: wrong persons, swapped images, single wrong images.

The score is the log-odds of another level against the given one. Each probability is first divided by the mean
self-confidence of its level (the mean probability of the given level over the images labelled with it), as in confident
learning (Northcutt, Jiang and Chuang, "Confident learning", JAIR 2021). Every factor is scored separately. Log-odds are
pooled where one label decision covers several images (a person's gender, two swapped images), so that the three kinds
can be ranked together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.data.label_space import LabelSpace
from foldvote.data.layouts.base import DataLayout
from foldvote.evaluation.group_consistency import by_group, check, fields, group_fields, level_codes, marginals
from foldvote.io.csv_files import write_csv
from foldvote.io.parquet import read_table
from foldvote.runtime.job_log import log

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Table = dict[str, npt.NDArray[Any]]
BETWEEN = "|"  # separates the image ids of a person
SURE = 1e-4  # smaller probabilities are raised to this, so that one overconfident shot cannot outvote all others
SAME = 1e-6  # a model whose probabilities of the two levels differ by less has no opinion
NO_IMAGES = 1.0  # self-confidence of a level without images: the highest value, which makes it hard to suggest

LABEL_ISSUES = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("other_image_id", pa.string()),
        pa.field("profile", pa.string(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("given", pa.string(), nullable=False),
        pa.field("suggested", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("self_confidence", pa.float64(), nullable=False),
        pa.field("margin", pa.float64(), nullable=False),
        pa.field("disagreement", pa.float64(), nullable=False),
        pa.field("shots", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class _Evidence:
    """The evidence on one field.

    Attributes:
        marginal: probability of each level, shape (images, levels).
        relative: log-probabilities, less the log of each level's mean self-confidence; same shape.
        given: code of the given level, shape (images,).
    """

    marginal: Floats
    relative: Floats
    given: Codes


def label_issues(
    rows: pd.DataFrame,
    probabilities: npt.NDArray[np.floating],
    by_model: npt.NDArray[np.floating],
    label_space: LabelSpace,
    least: float = 0.5,
) -> pd.DataFrame:
    """Rank likely label errors, the most likely first.

    Kinds: `person`, one row per person and field that belongs to the person (see group_consistency.group_fields), from
    all shots of the person; the more similar the shots, the less they count. `swap`, two shots of a person of which
    each looks like the label of the other. `image`, everything else. An image of a swap is not listed again for the
    same field.

    Args:
        rows: one row per image: image_id, profile, label (code).
        probabilities: of the ensemble, out-of-fold, shape (images, classes), rows sum to 1.
        by_model: probabilities of every model, shape (models, images, classes); models may be 0.
        label_space: the classes.
        least: the lowest score that is listed; from 0.5 on the suggestion is more likely than the given level.

    Returns:
        The columns of LABEL_ISSUES. image_id: the image; for a person all images, separated by `|`. other_image_id:
        the second image of a swap, which is labelled `suggested` and looks like `given`; else null. score: 0..1, the
        probability of the suggestion against the given level with equal priors. self_confidence: probability of the
        given level; margin: this minus the probability of the suggested level (both are means over the images of the
        row). disagreement: the share of the models' opinions on these images that prefer the given level. shots: number
        of these images that support the suggestion. The order of `rows` does not matter.

    Raises:
        ValueError: if the shapes do not match.
    """
    check(rows, probabilities, label_space)
    if np.ndim(by_model) != 3 or np.shape(by_model)[1:] != np.shape(probabilities):
        raise ValueError(f"by_model has the shape {np.shape(by_model)}, expected (models, *{np.shape(probabilities)})")
    person, order, starts = by_group(rows)
    own = group_fields(rows, label_space)
    parts = []
    for field in fields(label_space):
        known = _evidence(rows["label"].to_numpy(np.int64), probabilities, label_space, field)
        if field in own:
            table, members = _of_persons(known, order, starts, least)
        else:
            table, members = _of_images(known, person, order, least)
        parts.append(_described(table, members, rows, by_model, label_space, field, known.marginal))
    issues = pd.concat(parts, ignore_index=True)
    issues = issues.sort_values(
        ["log_odds", "self_confidence", "field", "image_id"], ascending=[False, True, True, True], ignore_index=True
    )
    issues["rank"] = np.arange(1, len(issues) + 1)
    return issues[LABEL_ISSUES.names]


def draft_corrections(issues: pd.DataFrame, top: int, layout: DataLayout) -> pd.DataFrame:
    """Turn the first issues into rows of a corrections file, which a person has to review.

    Their certainty is `suspected`, which is applied only if the configuration lists it.

    Args:
        issues: the table that `label_issues` returns.
        top: number of issues to take, from rank 1.
        layout: the layout of the data; it turns one issue into any number of corrections.

    Returns:
        Strings, columns id, field, from, to, source, certainty.
    """
    drafted = [
        (*correction, f"foldvote, rank {issue['rank']}, score {issue['score']:.3f}")
        for issue in issues.nsmallest(top, "rank").to_dict("records")
        for correction in layout.draft(issue)
    ]
    columns = ["id", "field", "from", "to", "source"]
    return pd.DataFrame(drafted, columns=columns, dtype="str").assign(certainty="suspected")


def write_draft(issues_path: Path, path: Path, top: int, layout: DataLayout) -> None:
    """Draft corrections from a table of label issues and write them as CSV.

    Args:
        issues_path: `ensemble/label_issues.parquet`.
        path: the CSV file.
        top: number of issues to take, from rank 1.
        layout: the layout of the data.

    Raises:
        UserError: if the table is damaged.
    """
    drafted = draft_corrections(read_table(issues_path, LABEL_ISSUES, key=("rank",)), top, layout)
    write_csv(drafted, path)
    log(f"{path}: {len(drafted)} suspected labels. Look at each; then name the file as `corrections`")


def _evidence(labels: Codes, probabilities: npt.NDArray[np.floating], label_space: LabelSpace, field: str) -> _Evidence:
    marginal = marginals(probabilities, label_space, field)
    given, levels = level_codes(label_space, field)[labels], marginal.shape[1]
    images = np.bincount(given, minlength=levels)
    # Rounded, because the last digits of the sums depend on the order of the rows.
    mean = np.round(np.bincount(given, marginal[np.arange(len(marginal)), given], levels) / np.maximum(images, 1), 12)
    usual = np.where(images > 0, np.maximum(mean, SURE), NO_IMAGES)
    return _Evidence(marginal, np.round(np.log(np.clip(marginal, SURE, 1.0)) - np.log(usual), 12), given)


def _of_persons(known: _Evidence, order: Codes, starts: Codes, least: float) -> tuple[Table, list[Codes]]:
    """Score each person as a whole, or each image of it if the labels of its images differ.

    Args:
        known: the evidence on a field that belongs to the person.
        order: positions of the images, sorted by person.
        starts: index in `order` at which each person starts.
        least: the lowest score that is listed.

    Returns:
        One row per person or image that is listed, and for each row the positions of its images.
    """
    shots, given = np.diff(starts, append=len(order)), known.given[order]
    mixed = np.minimum.reduceat(given, starts) != np.maximum.reduceat(given, starts)
    share = _alike(_best(known.relative, known.given, "image")["log_odds"][order], starts, shots)
    # Shots of one person make the same mistakes, so their log-odds must not simply add up: a cluster of n shots with
    # correlation r carries the evidence of n / (1 + (n - 1) r) independent ones (the design effect of Kish, 1965).
    weight = shots / (1 + (shots - 1) * share)
    pooled = np.add.reduceat(known.relative[order], starts, axis=0) / shots[:, None] * weight[:, None]
    persons = _best(pooled, given[starts], "person")
    alone = order[np.repeat(mixed, shots)]
    images = _best(known.relative[alone], known.given[alone], "image")
    whole, single = np.flatnonzero(~mixed & _likely(persons, least)), np.flatnonzero(_likely(images, least))
    members = [order[starts[row] : starts[row] + shots[row]] for row in whole]
    return _stacked(persons, whole, images, single), [*members, *alone[single][:, None]]


def _of_images(known: _Evidence, person: Codes, order: Codes, least: float) -> tuple[Table, list[Codes]]:
    """Score each image, and each pair of images of a person that look swapped.

    Args:
        known: the evidence on a field that belongs to the image.
        person: number of the person of each image.
        order: positions of the images, sorted by person.
        least: the lowest score that is listed.

    Returns:
        One row per image or swap that is listed, and for each row the positions of its images.
    """
    images = _best(known.relative, known.given, "image")
    first, second = _swaps(images, person, order)
    swaps = {name: values[first] for name, values in images.items()}
    # A swap is one event that explains both images, so the evidence of both counts for it.
    swaps["log_odds"] = images["log_odds"][first] + images["log_odds"][second]
    swaps["kind"] = np.full(len(first), "swap", dtype=object)
    single = _likely(images, least)
    single[first] = single[second] = False
    likely, rest = np.flatnonzero(_likely(swaps, least)), np.flatnonzero(single)
    pairs = np.stack([first, second], axis=1)[likely]
    return _stacked(swaps, likely, images, rest), [*pairs, *rest[:, None]]


def _swaps(table: Table, person: Codes, order: Codes) -> tuple[Codes, Codes]:
    """Find pairs of shots of one person of which each looks like the label of the other.

    Returns:
        Positions of the first and of the second image of each pair.
    """
    suspects = order[table["log_odds"][order] > 0]
    frame = pd.DataFrame(
        {
            "place": suspects,
            "person": person[suspects],
            "given": table["given"][suspects],
            "suggested": table["suggested"][suspects],
            "log_odds": table["log_odds"][suspects],
        }
    ).sort_values("log_odds", ascending=False, kind="stable")
    # The strongest suspect labelled a that looks like b is paired with the strongest labelled b that looks like a, the
    # second strongest with the second, and so on: `turn` is this rank.
    frame["turn"] = frame.groupby(["person", "given", "suggested"]).cumcount()
    pairs = frame[frame["given"] < frame["suggested"]].merge(
        frame, left_on=["person", "given", "suggested", "turn"], right_on=["person", "suggested", "given", "turn"]
    )
    return pairs["place_x"].to_numpy(np.int64), pairs["place_y"].to_numpy(np.int64)


def _best(relative: Floats, given: Codes, kind: str) -> Table:
    """The most likely other level of each row, and its log-odds against the given level."""
    every = np.arange(len(given))
    others = relative.copy()
    others[every, given] = -np.inf
    suggested = others.argmax(axis=1)
    log_odds = relative[every, suggested] - relative[every, given]
    kinds = np.full(len(given), kind, dtype=object)
    return {"given": given, "suggested": suggested, "log_odds": log_odds, "kind": kinds}


def _likely(table: Table, least: float) -> npt.NDArray[np.bool_]:
    return _score(table["log_odds"]) >= least


def _stacked(first: Table, rows: Codes, second: Table, others: Codes) -> Table:
    return {name: np.concatenate([first[name][rows], second[name][others]]) for name in first}


def _alike(values: Floats, starts: Codes, shots: Codes) -> float:
    """Intraclass correlation of the shots of a person in 0..1, by analysis of variance (Fisher 1925).

    Returns 1, which counts all shots of a person as one, if fewer than two persons have several shots.
    """
    several = shots > 1
    persons, images = int(several.sum()), int(shots[several].sum())
    if persons < 2:
        return 1.0
    means = np.add.reduceat(values, starts) / shots
    squares = np.add.reduceat((values - np.repeat(means, shots)) ** 2, starts)[several].sum()
    total = (means * shots)[several].sum() / images
    within = squares / (images - persons)
    between = (shots * (means - total) ** 2)[several].sum() / (persons - 1)
    usual = (images - (shots[several] ** 2).sum() / images) / (persons - 1)
    whole = between + (usual - 1) * within
    return float(np.clip((between - within) / whole, 0, 1)) if whole > 0 else 1.0


def _score(log_odds: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(log_odds / 2))


def _described(
    table: Table,
    members: list[Codes],
    rows: pd.DataFrame,
    by_model: npt.NDArray[np.floating],
    label_space: LabelSpace,
    field: str,
    marginal: Floats,
) -> pd.DataFrame:
    """Build the columns of LABEL_ISSUES but `rank`, and log_odds, for the rows that are listed.

    Args:
        table: given and suggested levels, log-odds and kind of each row.
        members: positions of the images of each row.
        rows: one row per image: image_id, profile.
        by_model: probabilities of every model, shape (models, images, classes).
        label_space: the classes.
        field: the field of all these rows.
        marginal: probability of each level of the field, shape (images, levels).
    """
    levels = np.array(fields(label_space)[field], dtype=object)
    sizes = np.array([len(own) for own in members], dtype=np.int64)
    place = np.concatenate([*members, np.zeros(0, np.int64)]).astype(np.int64)
    ids, profiles = (np.asarray(rows[name].iloc[place], dtype=object) for name in ("image_id", "profile"))
    starts = np.cumsum(sizes) - sizes
    issue, swap = np.repeat(np.arange(len(members)), sizes), table["kind"] == "swap"
    second = np.zeros(len(place), dtype=bool)
    second[np.flatnonzero(np.diff(issue, prepend=-1) == 0)] = True
    turned = second & swap[issue]  # the second image of a swap has the two levels exchanged
    given, suggested = table["given"][issue], table["suggested"][issue]
    given, suggested = np.where(turned, suggested, given), np.where(turned, given, suggested)

    def mean(values: Floats) -> Floats:
        return np.bincount(issue, values, len(members)) / sizes

    ids_of = [ids[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    others = [own[1] if pair else None for own, pair in zip(ids_of, swap, strict=True)]
    margin = marginal[place, given] - marginal[place, suggested]
    kept, opinions = np.zeros(len(place)), np.zeros(len(place))
    for model in by_model:
        own = marginals(model[place], label_space, field)
        difference = own[np.arange(len(place)), given] - own[np.arange(len(place)), suggested]
        kept += difference > SAME
        opinions += np.abs(difference) > SAME
    asked = np.bincount(issue, opinions, len(members))
    return pd.DataFrame(
        {
            "image_id": [BETWEEN.join(own[:1] if pair else own) for own, pair in zip(ids_of, swap, strict=True)],
            "other_image_id": pd.Series(others, dtype="str"),
            "profile": profiles[starts],
            "field": field,
            "given": levels[table["given"]],
            "suggested": levels[table["suggested"]],
            "kind": table["kind"],
            "score": _score(table["log_odds"]),
            "self_confidence": mean(marginal[place, given]),
            "margin": mean(margin),
            "disagreement": np.bincount(issue, kept, len(members)) / np.maximum(asked, 1),
            "shots": np.bincount(issue, margin < 0, len(members)).astype(np.int64),
            "log_odds": table["log_odds"],
        }
    )
