"""What models of a first round teach: pseudo-labels of test images, and the soft targets of a student.

Pseudo-labels: Lee, ICML workshops 2013. Distillation: Hinton, Vinyals and Dean, arXiv:1503.02531, 2015. A member of
fold k learns only from members of fold k. None of these has seen the groups of fold k, or those of the reserve, so its
out-of-fold predictions stay unbiased. A member of another fold was trained on the groups of fold k: what it predicts of
any image tells something of their labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from foldvote.errors import UserError, raise_all
from foldvote.evaluation.probabilities import weighted_mean
from foldvote.inference.prediction_files import read_member
from foldvote.io.ids import id_faults, positions_in


@dataclass(frozen=True)
class PseudoInputs:
    """The test images that are learnt from, and what a first round predicts of them.

    Attributes:
        images: test images, packed as the recipe says.
        predictions: for each first-round model the test predictions of its member of this fold.
    """

    images: Path
    predictions: tuple[Path, ...]


@dataclass(frozen=True)
class FirstRound:
    """What the members of a first round predict of the same images.

    Attributes:
        path: the first of their files.
        image_ids: ids of the images, sorted.
        probabilities: mean over the members and their views: float32 (images, classes), rows sum to 1.
        sureness: probability of the most likely class in this mean, of each model as a share of what its label
            smoothing leaves: float64 (images,).
        data_sha256: digest of the images' manifest.
        sources: SHA-256 of the weights of each member.
    """

    path: Path
    image_ids: list[str]
    probabilities: npt.NDArray[np.float32]
    sureness: npt.NDArray[np.float64]
    data_sha256: str
    sources: list[str]

    def surer_than(self, confidence: float) -> "FirstRound":
        """The images of which the first round is at least so sure: smoothed by 0.1, a model is never surer than 0.9."""
        return self._of(np.flatnonzero(self.sureness >= confidence))

    def of_images(self, image_ids: list[str], fold: int, data_sha256: str) -> "FirstRound":
        """The same in the order of these images, which must be those that were predicted.

        Args:
            image_ids: ids of the images that a member is trained on.
            fold: its fold.
            data_sha256: digest of their manifest.

        Raises:
            UserError: if other images were predicted, or images of another manifest.
        """
        again = f"run your command again with `-R {self.path}`"
        if self.data_sha256 != data_sha256:
            raise UserError(f"{self.path}: predicts other data than the member learns from; {again}")
        if sorted(image_ids) != self.image_ids:
            where = f"the images that fold {fold} learns from"
            raise_all(id_faults(self.path, self.image_ids, image_ids, where, again))
        return self._of(positions_in(pa.array(self.image_ids, pa.string()), pa.array(image_ids, pa.string())))

    def _of(self, places: npt.NDArray[np.integer]) -> "FirstRound":
        ids = [self.image_ids[place] for place in places]
        return replace(self, image_ids=ids, probabilities=self.probabilities[places], sureness=self.sureness[places])


def read_first_round(
    paths: Sequence[Path], part: str, fold: int, classes: Sequence[str], split_sha256: str
) -> FirstRound:
    """Read what the members of a first round predict.

    Args:
        paths: `<results>/<part>/model=<m>/fold=<fold>/predictions.parquet` of each model.
        part: `test` or `teach`.
        fold: fold of the member that learns from them.
        classes: class names in the order of their codes.
        split_sha256: digest of the certified folds.

    Raises:
        UserError: if a file belongs to another fold, split or task, or the files hold different images.
    """
    members = [read_member(path, part, classes, split_sha256) for path in sorted(paths)]
    ids = pa.array(sorted(members[0].ids.to_pylist()), pa.string())
    raise_all(
        f"{member.path}: is of fold {member.fold}, and fold {fold} may learn from its own alone; run your command again"
        for member in members
        if member.fold != fold
    )
    order = [positions_in(ids, member.ids) for member in members]
    if any(len(member.ids) != len(ids) or (own < 0).any() for member, own in zip(members, order, strict=True)):
        what = "test images" if part == "test" else "images"
        raise UserError(f"{members[0].path}: holds other {what} than the other models; run your command again")
    means = np.stack([member.mean[own] for member, own in zip(members, order, strict=True)])
    smoothing = [float(member.record.get("label_smoothing", 0.0)) for member in members]
    return FirstRound(
        members[0].path,
        ids.to_pylist(),
        weighted_mean(means).astype(np.float32),
        weighted_mean(np.stack(list(map(without_smoothing, means, smoothing)))).max(axis=1),
        members[0].record["data_sha256"],
        [member.record["weights_sha256"] for member in members],
    )


def tempered(probabilities: np.ndarray, temperature: float) -> npt.NDArray[np.float32]:
    """Probabilities softened by a temperature: to the power of 1 / temperature, and scaled to sum to 1.

    Of a single network these are the softmax of its logits divided by the temperature.

    Args:
        probabilities: float (images, classes), rows sum to 1.
        temperature: 1 changes nothing; above 1 the classes become more alike.
    """
    powers = probabilities.astype(np.float64) ** (1 / temperature)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def without_smoothing(probabilities: np.ndarray, smoothing: float) -> np.ndarray:
    """The probabilities of which smoothed targets would make those given (Szegedy et al., CVPR 2016).

    Args:
        probabilities: float (images, classes), rows sum to 1.
        smoothing: the share of the targets that was spread over all classes, below 1.

    Returns:
        An array of the same shape, rows sum to 1; unlikely classes may be slightly below 0.
    """
    if smoothing == 0:
        return probabilities
    return (probabilities - smoothing / probabilities.shape[1]) / (1 - smoothing)
