"""Likely label errors, ranked from out-of-fold predictions: wrong persons, swapped pictures, single wrong images.

The evidence is the log-odds of another level over the given one, each level relative to the mean self-confidence of
the images labelled so, as in confident learning (Northcutt, Jiang and Chuang, "Confident learning", JAIR 2021). It is
taken for each factor on its own, and pooled where a label is one decision about several pictures: a person's gender,
or two pictures that changed places. That makes the three kinds comparable.
"""

from collections.abc import Iterable
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
BETWEEN = "|"  # between the image ids of a person
SURE = 1e-4  # probabilities below it count as it, so that one overconfident shot does not outvote all others
SAME = 1e-6  # a model whose probabilities differ by less says nothing of the two levels
NO_IMAGES = 1.0  # self-confidence of a level that no image has: the highest, so that it is not suggested lightly

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
    """What is known of one field: `said` (images, levels), `relative` log-probabilities of that shape, `given`."""

    said: Floats
    relative: Floats
    given: Codes


def label_issues(
    rows: pd.DataFrame,
    probabilities: npt.NDArray[np.floating],
    by_model: npt.NDArray[np.floating],
    scheme: LabelSpace,
    least: float = 0.5,
) -> pd.DataFrame:
    """Rank likely label errors, the likeliest first.

    Kinds: `person`, one row per person and field that belongs to the person (see group_consistency.group_fields), from
    all shots of the person, which count as fewer the more alike they are; `swap`, two shots of a person that look like
    each other's label; `image`, everything else. An image of a swap is not listed again for the same field.

    Args:
        rows: a row an image: image_id, profile, label (code).
        probabilities: of the vote, out-of-fold, shape (images, classes), rows sum to 1.
        by_model: of every model, shape (models, images, classes); there may be no model.
        scheme: the classes.
        least: the lowest score that is listed; from 0.5 on the suggestion is the likelier one.

    Returns:
        The columns of LABEL_ISSUES. image_id: the image; of a person all images, with `|` between. other_image_id:
        the second image of a swap, which is labelled `suggested` and looks `given`; else null. score: 0..1, the
        probability of the suggestion against the given level if both were as likely beforehand. self_confidence:
        probability of the given level; margin: that less the suggested level's (both means over the images of the
        row). disagreement: the share of the models' opinions on these images that prefer the given level; shots: how
        many of these images support the suggestion. The order of `rows` changes nothing.

    Raises:
        ValueError: if the shapes do not go together.
    """
    check(rows, probabilities, scheme)
    if np.ndim(by_model) != 3 or np.shape(by_model)[1:] != np.shape(probabilities):
        raise ValueError(f"by_model has the shape {np.shape(by_model)}, expected (models, *{np.shape(probabilities)})")
    person, order, starts = by_group(rows)
    own = group_fields(rows, scheme)
    parts = []
    for field in fields(scheme):
        known = _evidence(rows["label"].to_numpy(np.int64), probabilities, scheme, field)
        if field in own:
            table, members = _of_persons(known, order, starts, least)
        else:
            table, members = _of_images(known, person, order, least)
        parts.append(_described(table, members, rows, by_model, scheme, field, known.said))
    issues = pd.concat(parts, ignore_index=True)
    issues = issues.sort_values(
        ["log_odds", "self_confidence", "field", "image_id"], ascending=[False, True, True, True], ignore_index=True
    )
    issues["rank"] = np.arange(1, len(issues) + 1)
    return issues[LABEL_ISSUES.names]


def draft_corrections(issues: pd.DataFrame, top: int, layout: DataLayout) -> pd.DataFrame:
    """The first issues as rows for corrections.csv, each to be looked at by a person before it counts.

    Their certainty is `suspected`, which is applied only where the configuration names it.

    Args:
        issues: as `label_issues` gives them.
        top: how many issues, from the first.
        layout: of the data, which says how its corrections are written. An issue may take several rows or none.

    Returns:
        Texts, columns id, field, from, to, source, certainty.
    """
    drafted = [
        (*correction, f"foldvote, rank {issue['rank']}, score {issue['score']:.3f}")
        for issue in issues.nsmallest(top, "rank").to_dict("records")
        for correction in layout.draft(issue)
    ]
    columns = ["id", "field", "from", "to", "source"]
    return pd.DataFrame(drafted, columns=columns, dtype="str").assign(certainty="suspected")


def write_draft(issues_path: Path, path: Path, top: int, layout: DataLayout) -> None:
    """Write `draft_corrections` of a table of label issues as CSV.

    Args:
        issues_path: `ensemble/label_issues.parquet`.
        path: the CSV file.
        top: how many issues, from the first.
        layout: of the data.

    Raises:
        UserError: if the table is damaged.
    """
    drafted = draft_corrections(read_table(issues_path, LABEL_ISSUES, key=("rank",)), top, layout)
    write_csv(drafted, path)
    log(f"{path}: {len(drafted)} suspected labels. Look at each; then name the file as `corrections`")


def _evidence(labels: Codes, probabilities: npt.NDArray[np.floating], scheme: LabelSpace, field: str) -> _Evidence:
    said = marginals(probabilities, scheme, field)
    given, levels = level_codes(scheme, field)[labels], said.shape[1]
    images = np.bincount(given, minlength=levels)
    # Rounded, since the sums behind it depend on the order of the rows in the last place.
    mean = np.round(np.bincount(given, said[np.arange(len(said)), given], levels) / np.maximum(images, 1), 12)
    usual = np.where(images > 0, np.maximum(mean, SURE), NO_IMAGES)
    return _Evidence(said, np.round(np.log(np.clip(said, SURE, 1.0)) - np.log(usual), 12), given)


def _of_persons(known: _Evidence, order: Codes, starts: Codes, least: float) -> tuple[Table, list[Codes]]:
    """A row a person, and the positions of its images. Where its labels differ, a row an image instead."""
    shots, given = np.diff(starts, append=len(order)), known.given[order]
    mixed = np.minimum.reduceat(given, starts) != np.maximum.reduceat(given, starts)
    share = _alike(_best(known.relative, known.given, "image")["log_odds"][order], starts, shots)
    weight = shots / (1 + (shots - 1) * share)  # how many independent shots they are worth
    pooled = np.add.reduceat(known.relative[order], starts, axis=0) / shots[:, None] * weight[:, None]
    persons = _best(pooled, given[starts], "person")
    alone = order[np.repeat(mixed, shots)]
    images = _best(known.relative[alone], known.given[alone], "image")
    whole, single = np.flatnonzero(~mixed & _likely(persons, least)), np.flatnonzero(_likely(images, least))
    members = [order[starts[row] : starts[row] + shots[row]] for row in whole]
    return _stacked(persons, whole, images, single), [*members, *alone[single][:, None]]


def _of_images(known: _Evidence, person: Codes, order: Codes, least: float) -> tuple[Table, list[Codes]]:
    """A row an image or a swap, and the positions of its images."""
    images = _best(known.relative, known.given, "image")
    first, second = _swaps(images, person, order)
    swaps = {name: values[first] for name, values in images.items()}
    swaps["log_odds"] = images["log_odds"][first] + images["log_odds"][second]
    swaps["kind"] = np.full(len(first), "swap", dtype=object)
    single = _likely(images, least)
    single[first] = single[second] = False
    likely, rest = np.flatnonzero(_likely(swaps, least)), np.flatnonzero(single)
    pairs = np.stack([first, second], axis=1)[likely]
    return _stacked(swaps, likely, images, rest), [*pairs, *rest[:, None]]


def _swaps(table: Table, person: Codes, order: Codes) -> tuple[Codes, Codes]:
    """Positions of the shots that look like each other's label: the strongest of both sides are paired first."""
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
    frame["turn"] = frame.groupby(["person", "given", "suggested"]).cumcount()
    pairs = frame[frame["given"] < frame["suggested"]].merge(
        frame, left_on=["person", "given", "suggested", "turn"], right_on=["person", "suggested", "given", "turn"]
    )
    return pairs["place_x"].to_numpy(np.int64), pairs["place_y"].to_numpy(np.int64)


def _best(relative: Floats, given: Codes, kind: str) -> Table:
    """The likeliest other level of each row, and its log-odds over the given one."""
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
    """Intraclass correlation of the shots of a person in 0..1, by analysis of variance (Fisher 1925)."""
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
    scheme: LabelSpace,
    field: str,
    said: Floats,
) -> pd.DataFrame:
    """Names and numbers of the rows that are listed; only their images are looked up."""
    levels = np.array(fields(scheme)[field], dtype=object)
    sizes = np.array([len(own) for own in members], dtype=np.int64)
    ids, profiles = (np.asarray(rows[name], dtype=object) for name in ("image_id", "profile"))
    place = np.concatenate([*members, np.zeros(0, np.int64)]).astype(np.int64)
    issue, swap = np.repeat(np.arange(len(members)), sizes), table["kind"] == "swap"
    second = np.zeros(len(place), dtype=bool)
    second[np.flatnonzero(np.diff(issue, prepend=-1) == 0)] = True
    turned = second & swap[issue]  # the other image of a swap has the two levels the other way round
    given, suggested = table["given"][issue], table["suggested"][issue]
    given, suggested = np.where(turned, suggested, given), np.where(turned, given, suggested)

    def mean(values: Floats) -> Floats:
        return np.bincount(issue, values, len(members)) / sizes

    others = [ids[own[1]] if pair else None for own, pair in zip(members, swap, strict=True)]
    margin = said[place, given] - said[place, suggested]
    kept, opinions = np.zeros(len(place)), np.zeros(len(place))
    for model in by_model:
        own = marginals(model[place], scheme, field)
        difference = own[np.arange(len(place)), given] - own[np.arange(len(place)), suggested]
        kept += difference > SAME
        opinions += np.abs(difference) > SAME
    asked = np.bincount(issue, opinions, len(members))
    return pd.DataFrame(
        {
            "image_id": _joined((own[:1] if pair else own for own, pair in zip(members, swap, strict=True)), ids),
            "other_image_id": pd.Series(others, dtype="str"),
            "profile": [profiles[own[0]] for own in members],
            "field": field,
            "given": levels[table["given"]],
            "suggested": levels[table["suggested"]],
            "kind": table["kind"],
            "score": _score(table["log_odds"]),
            "self_confidence": mean(said[place, given]),
            "margin": mean(margin),
            "disagreement": np.bincount(issue, kept, len(members)) / np.maximum(asked, 1),
            "shots": np.bincount(issue, margin < 0, len(members)).astype(np.int64),
            "log_odds": table["log_odds"],
        }
    )


def _joined(members: Iterable[Codes], ids: npt.NDArray[np.object_]) -> list[str]:
    return [BETWEEN.join(ids[own]) for own in members]
