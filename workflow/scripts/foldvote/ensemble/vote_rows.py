"""The finished predictions of the vote, image by image: their groups, and what is needed to make sets of classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError, first_few
from foldvote.evaluation.conformal import prediction_sets
from foldvote.evaluation.vote_table import PROBABILITY, votes_schema
from foldvote.io.ids import positions_in
from foldvote.io.parquet import read_columns

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
BETWEEN = "|"  # between the names of the classes in a set
_PIECE = 1 << 14  # images at once


@dataclass(frozen=True)
class GroupsOfImages:
    """The group of each image.

    Attributes:
        ids: of the images, string (images,).
        groups: of each image, string (images,); null where it is not known.
    """

    ids: pa.Array
    groups: pa.Array


NO_GROUPS = GroupsOfImages(pa.array([], pa.string()), pa.array([], pa.string()))


@dataclass(frozen=True)
class VoteRows:
    """Predictions of the vote, sorted by image id.

    Attributes:
        ids: string (images,).
        group_names: string (images,); null where the group is not known.
        groups: the code of each image's group, int64 (images,), 0 up to the number of groups - 1; an image whose group
            is not known is a group by itself.
        predicted: codes, int64 (images,).
        confidence: the probability of the predicted class, float64 (images,).
        probabilities: columns of the classes, double (images,) each.
        names: of the classes, by their codes.
        labels, folds: int64 (images,); empty for test images.
        own: the probability of the true class, float64 (images,); empty for test images.
    """

    ids: pa.Array
    group_names: pa.Array
    groups: Codes
    predicted: Codes
    confidence: Array
    probabilities: pa.Table
    names: npt.NDArray[np.object_]
    labels: Codes
    folds: Codes
    own: Array

    @property
    def right(self) -> Bools:
        """Whether the prediction is the true class, bool (images,)."""
        return self.labels == self.predicted

    def by_group(self, values: npt.NDArray[Any]) -> Array:
        """Sums of a value over the images of each group, float64 (groups,)."""
        return np.bincount(self.groups, values).astype(np.float64)

    def sizes(self, least: Array | float) -> Codes:
        """Number of classes in the set of each image, int64 (images,); `least` as in `prediction_sets`."""
        return np.concatenate([sets.sum(axis=1) for sets, _ in self._sets(least)])

    def texts(self, least: Array | float) -> npt.NDArray[np.object_]:
        """The names of the classes in the set of each image, the likeliest first; `least` as in `prediction_sets`."""
        texts: list[str] = []
        for sets, probabilities in self._sets(least):
            texts += set_texts(sets, probabilities, self.names)
        return np.array(texts, dtype=object)

    def _sets(self, least: Array | float) -> Iterator[tuple[Bools, Array]]:
        each = np.broadcast_to(np.asarray(least, np.float64), len(self.predicted))
        for start, probabilities in _pieces(self.probabilities):
            piece = slice(start, start + len(probabilities))
            yield prediction_sets(probabilities, self.predicted[piece], each[piece]), probabilities


def set_texts(sets: Bools, probabilities: Array, names: npt.NDArray[np.object_]) -> list[str]:
    """The names of the classes in the set of each image, the likeliest first.

    Args:
        sets: which classes are in the set, shape (images, classes).
        probabilities: shape (images, classes).
        names: of the classes, by their codes.
    """
    images, codes = np.nonzero(sets)
    ordered = names[codes[np.lexsort((codes, -probabilities[sets], images))]].tolist()
    ends = np.cumsum(sets.sum(axis=1)).tolist()
    return [BETWEEN.join(ordered[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def groups_of_split(folds: Path) -> GroupsOfImages:
    """The groups of training images, from the split."""
    table = read_columns(folds)
    first = table.filter(pc.equal(table["repeat"], pc.min(table["repeat"]))).combine_chunks()
    return GroupsOfImages(_strings(first, "image_id"), _strings(first, "group"))


def groups_of_manifest(manifest: Path) -> GroupsOfImages:
    """The groups of the images of a manifest, as far as they are known."""
    table = read_columns(manifest).combine_chunks()
    return GroupsOfImages(_strings(table, "image_id"), _strings(table, "group"))


def read_vote_rows(path: Path, label_space: LabelSpace, known: GroupsOfImages, *, labelled: bool) -> VoteRows:
    """Read ensemble/oof.parquet, reserve.parquet or test.parquet.

    Args:
        path: the file.
        label_space: the classes.
        known: the groups of its images.
        labelled: whether the images have labels and belong to the split; the groups of others may be unknown.

    Raises:
        UserError: if the file is missing or damaged, or a labelled image has no group.
    """
    table = read_columns(path, votes_schema(label_space.classes, labelled=labelled), key=("image_id",))
    table = table.take(pc.sort_indices(table["image_id"])).combine_chunks()
    ids, found = _strings(table, "image_id"), positions_in(_strings(table, "image_id"), known.ids)
    if labelled and (found < 0).any():
        lost = first_few(ids.filter(pa.array(found < 0)).to_pylist())
        raise UserError(
            f"{path}: ids are not in the split: {lost}; run your command again with `-R ensemble` to make it anew"
        )
    group_names = known.groups.take(pa.array(found, mask=found < 0))
    predicted = table["prediction"].to_numpy().astype(np.int64)
    labels = table["label"].to_numpy().astype(np.int64) if labelled else np.zeros(0, np.int64)
    probabilities = table.select([PROBABILITY + name for name in label_space.classes])
    confidence, own = np.empty(len(predicted)), np.empty(len(labels))
    for start, piece in _pieces(probabilities):
        rows = np.arange(len(piece))
        confidence[start : start + len(piece)] = piece[rows, predicted[start : start + len(piece)]]
        if labelled:
            own[start : start + len(piece)] = piece[rows, labels[start : start + len(piece)]]
    return VoteRows(
        ids,
        group_names,
        _group_codes(group_names),
        predicted,
        confidence,
        probabilities,
        np.asarray(label_space.classes, dtype=object),
        labels,
        table["fold"].to_numpy().astype(np.int64) if labelled else np.zeros(0, np.int64),
        own,
    )


def _pieces(columns: pa.Table) -> Iterator[tuple[int, Array]]:
    """The first row and the values, float64 (rows, columns), of each piece of a table of numbers."""
    for start in range(0, len(columns), _PIECE):
        piece = columns.slice(start, _PIECE)
        yield start, np.column_stack([column.to_numpy() for column in piece.columns])


def _group_codes(names: pa.Array) -> Codes:
    """Codes of groups by the order of their names; images of unknown groups come last, each with its own code."""
    coded = names.dictionary_encode()
    rank = np.argsort(pc.sort_indices(coded.dictionary).to_numpy())
    known = names.is_valid().to_numpy(zero_copy_only=False)
    codes = np.empty(len(names), np.int64)
    codes[known] = rank[coded.indices.drop_null().to_numpy()]
    codes[~known] = len(rank) + np.arange(int((~known).sum()))
    return codes


def _strings(table: pa.Table, name: str) -> pa.Array:
    column = table[name].cast(pa.string())
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
