"""One network from all members of a model: their weights averaged, and scored on the reserve.

"Model soups", Wortsman et al., ICML 2022 (arXiv:2203.05482): the uniform average, and a greedy one. Each member has
learnt from the groups that the others are validated on, so that an average knows every fold: only the reserve, which no
member has seen, can score it. Averaging works for networks that began with the same pretrained weights and stayed close
to each other. Networks that began with weights of their own draw lie far apart, and their mean is no network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import nn

from foldvote.config.recipe import Recipe
from foldvote.data.label_space import known_classes, read_label_space
from foldvote.data.packed_images import open_packed_images
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.bootstrap import BETTER, GroupSums, group_sums, scores
from foldvote.evaluation.paired_scores import SHOWN, mean_sums, paired_scores
from foldvote.evaluation.probabilities import softmax, weighted_mean
from foldvote.inference.forward import predict_logits
from foldvote.inference.predict_member import load_member
from foldvote.inference.prediction_files import labelled_faults, read_member
from foldvote.inference.tta import plain_view, views_of
from foldvote.io.files import write_json
from foldvote.io.ids import positions_in
from foldvote.models.factory import normalisation
from foldvote.runtime.device import name_nondeterminism
from foldvote.runtime.job_log import log
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.splits.folds import SplitFiles, read_folds
from foldvote.splits.reserve import reserve_rows
from foldvote.splits.train_only import learnt_rows
from foldvote.training.dataloader import EpochOrder, plain_batches
from foldvote.training.weight_averaging import (
    State,
    clone_state,
    model_soup,
    recompute_batchnorm,
    with_weights,
    write_weights,
)

Floats = npt.NDArray[np.float64]
Members = tuple[int, ...]
Predict = Callable[[Members], Floats]
VOTE, ONE, UNIFORM, GREEDY = "vote", "one member", "uniform", "greedy"
_OF_A_MEMBER = ("fold", "last_sha256", "epochs")  # what the record of an average has not


@dataclass(frozen=True)
class AverageInputs:
    """The files that an average is made from.

    Attributes:
        weights: model.safetensors of each member, in the order of the folds.
        sidecars: their model.json.
        reserve: their predictions of the reserve.
        pixels: packed training images.
        split: classes and folds.
    """

    weights: Sequence[Path]
    sidecars: Sequence[Path]
    reserve: Sequence[Path]
    pixels: Path
    split: SplitFiles


@dataclass(frozen=True)
class AverageFiles:
    """The files that are written.

    Attributes:
        weights: the uniform average.
        greedy: the greedy average.
        sidecar: model.json of the uniform average.
        scores: scores.json.
    """

    weights: Path
    greedy: Path
    sidecar: Path
    scores: Path


@dataclass(frozen=True)
class ReserveRows:
    """The images of the reserve: codes of their labels and of their groups, int64 (images,), and their ids."""

    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    ids: list[str]

    def sums(self, probabilities: Floats) -> GroupSums:
        """The sums by group that scores are computed from."""
        return group_sums(self.labels, probabilities, self.groups, probabilities.shape[1])

    def score(self, probabilities: Floats, score: str, of: npt.NDArray[np.bool_] | None = None) -> float:
        """One score, of some of the images: higher is better."""
        chosen = np.ones(len(self.labels), bool) if of is None else of
        codes = np.unique(self.groups[chosen], return_inverse=True)[1]
        own = group_sums(self.labels[chosen], probabilities[chosen], codes, probabilities.shape[1])
        return scores(own)[score] * (1 if BETTER[score] == "higher" else -1)


@name_nondeterminism()
def average_members(
    inputs: AverageInputs,
    files: AverageFiles,
    views: list[str | dict[str, Any]],
    score: str,
    draws: int,
    seed: int,
    resources: JobResources,
) -> None:
    """Average the weights of a model's members, score the average on the reserve, and write it.

    Args:
        inputs: the members, what they predict of the reserve, and the images.
        files: what is written.
        views: the test-time views of the checked configuration.
        score: by which the greedy average is chosen; one that is not in paired_scores.SHOWN is replaced by macro-F1.
        draws: number of bootstrap draws.
        seed: the run's seed.
        resources: the resources of this job.

    Raises:
        UserError: if members, predictions and split do not belong together, or the members are not of one recipe.
    """
    loaded = [load_member(*paths, inputs.split) for paths in zip(inputs.weights, inputs.sidecars, strict=True)]
    abouts, recipe = [about for about, _, _ in loaded], loaded[0][1]
    if recipe.metadata is not None:
        raise UserError(
            f"{inputs.sidecars[0]}: sees metadata, which each member encodes in its own way, so that weights make "
            "no average; drop the model's metadata"
        )
    raise_all(
        f"{path}: was trained with another recipe than {inputs.sidecars[0]}; run your command again"
        for path, (_, own, _) in zip(inputs.sidecars, loaded, strict=True)
        if own != recipe
    )
    rows, alone = _read_reserve(inputs, recipe, abouts)
    chosen_by = score if score in SHOWN else "macro_f1"
    average = _averager(loaded, inputs, rows.ids, views, seed, resources)
    predictions: dict[Members, Floats] = {(member,): own for member, own in enumerate(alone)}

    def predict(members: Members) -> Floats:
        if members not in predictions:
            predictions[members] = average(members)[1]
        return predictions[members]

    everyone = tuple(range(len(loaded)))
    greedy, crossed = greedy_members(alone, predict, rows, chosen_by, seed)
    sums = {
        ONE: mean_sums([rows.sums(own) for own in alone]),
        UNIFORM: rows.sums(predict(everyone)),
        GREEDY: rows.sums(crossed),
        VOTE: rows.sums(weighted_mean(np.stack(alone))),
    }
    scored = paired_scores(sums, VOTE, draws, seed)
    against = paired_scores(sums, ONE, draws, seed)[UNIFORM]
    verdict = in_words(abouts[0]["model"], len(loaded), scored, against, chosen_by, recipe)
    log(verdict)
    digest = write_weights(average(everyone)[0], files.weights)
    folds = [abouts[member]["fold"] for member in greedy]
    chosen = {"folds": folds, "sha256": write_weights(average(greedy)[0], files.greedy)}
    about = {key: value for key, value in abouts[0].items() if key not in _OF_A_MEMBER and not key.startswith("val_")}
    known = {str(own["fold"]): own["sha256"] for own in abouts}
    write_json(files.sidecar, about | {"sha256": digest, "members": known, "greedy": chosen})
    described: dict[str, Any] = {"images": len(rows.labels), "groups": int(rows.groups.max()) + 1}
    described |= {"networks": len(loaded), "greedy_by": chosen_by, "greedy_folds": folds, "in_words": verdict}
    differences = {name: value for name, value in against.items() if "_difference" in name}
    write_json(files.scores, described | {"scores": scored, "uniform_against_one_member": differences})


def greedy_members(
    alone: Sequence[Floats], predict: Predict, rows: ReserveRows, score: str, seed: int
) -> tuple[Members, Floats]:
    """Choose members greedily: from the best one on, each next one is kept if the average does not become worse.

    Args:
        alone: what each member predicts, float64 (images, classes).
        predict: what the average of some members predicts.
        rows: the reserve.
        score: what is compared, in bootstrap.METRICS.
        seed: the run's seed.

    Returns:
        The members that all groups choose; and predictions of which each half of the groups was predicted by the
        members that the other half chose, float64 (images, classes), by which the choice is scored.
    """

    def choose(of: npt.NDArray[np.bool_] | None) -> Members:
        order = sorted(range(len(alone)), key=lambda member: (-rows.score(alone[member], score, of), member))
        chosen: Members = (order[0],)
        best = rows.score(alone[order[0]], score, of)
        for member in order[1:]:
            more = tuple(sorted((*chosen, member)))
            if (value := rows.score(predict(more), score, of)) >= best:
                chosen, best = more, value
        return chosen

    count = int(rows.groups.max()) + 1
    half = (generator(seed, "average", "halves").permutation(count) % 2)[rows.groups]
    crossed = np.empty_like(alone[0])
    for number in (0, 1):
        crossed[half == number] = predict(choose(half != number))[half == number]
    return choose(None), crossed


def in_words(
    model: str,
    count: int,
    scored: dict[str, dict[str, float]],
    against: dict[str, float],
    score: str,
    recipe: Recipe,
) -> str:
    """What the scores say, in one line.

    Args:
        model: name of the model.
        count: number of its members.
        scored: of `paired_scores`, with differences to the vote.
        against: the uniform average, with differences to one member.
        score: the score that is told.
        recipe: of the model.
    """
    sign = 1 if BETTER[score] == "higher" else -1
    told = ", ".join(f"{name} {scored[name][score]:.3f}" for name in (UNIFORM, GREEDY, ONE))
    text = f"average_weights: {model}: {score} on the reserve: average of {count} members: {told} (on average), {VOTE} "
    text += f"of {count} {scored[VOTE][score]:.3f}"
    ends = [sign * against[f"{score}_difference_{end}"] for end in ("low", "high")]
    if max(ends) < 0:
        destroyed = scored[UNIFORM]["accuracy"] <= scored[ONE]["accuracy"] / 2
        why = "they were trained from scratch" if recipe.pretrained is None else "they moved far from where they began"
        return (
            f"{text}. Averaging {'destroys' if destroyed else 'harms'} this network: the average is worse than one of "
            f"its members ({why}, and a mean of weights far apart is no network); use the vote or a student (distill)"
        )
    name = f"{score}_difference"
    low, high = scored[UNIFORM][f"{name}_low"], scored[UNIFORM][f"{name}_high"]
    return f"{text}; average less vote {scored[UNIFORM][name]:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"


def _read_reserve(
    inputs: AverageInputs, recipe: Recipe, abouts: Sequence[dict[str, Any]]
) -> tuple[ReserveRows, list[Floats]]:
    """The images of the reserve, and what each member predicts of them in the classes of its model."""
    whole = read_label_space(inputs.split.classes)
    label_space, code_of = known_classes(recipe, whole)
    folds, digest = read_folds(inputs.split.folds, inputs.split.certificate)
    table = reserve_rows(folds)
    ids = pa.array(table["image_id"], pa.string())
    members = [read_member(path, "reserve", whole.classes, digest) for path in inputs.reserve]
    raise_all(fault for member in members for fault in labelled_faults(member, table, "the reserve"))
    raise_all(
        f"{member.path}: predicted with other weights than those to be averaged; run your command again with "
        f"`-R {member.path}`"
        for member, about in zip(members, abouts, strict=True)
        if member.record["weights_sha256"] != about["sha256"]
    )
    own_classes = np.eye(len(label_space.classes))[code_of]
    labels, groups = code_of[table["label"].to_numpy(np.int64)], np.unique(table["group"], return_inverse=True)[1]
    rows = ReserveRows(labels, groups.astype(np.int64), ids.to_pylist())
    return rows, [member.mean[positions_in(member.ids, ids)] @ own_classes for member in members]


def _averager(
    loaded: Sequence[tuple[dict[str, Any], Recipe, nn.Module]],
    inputs: AverageInputs,
    ids: list[str],
    views: list[str | dict[str, Any]],
    seed: int,
    resources: JobResources,
) -> Callable[[Members], tuple[State, Floats]]:
    """A function that averages the weights of some members, and says what the average predicts of images.

    Batch-normalisation statistics are recomputed on the images that members were trained on. A single member keeps its
    own.
    """
    about, recipe, network = loaded[0]
    states = [clone_state(own.state_dict()) for _, _, own in loaded]
    device, batch_size = resources.device(recipe), resources.runtime.predict_batch
    model, images = (
        device.place(network),
        open_packed_images(inputs.pixels, recipe.packed, about["data_sha256"]),
    )
    folds, _ = read_folds(inputs.split.folds, inputs.split.certificate)
    learnt = images.rows(sorted(learnt_rows(folds)["image_id"]))
    order = EpochOrder(MemberSeeds(seed, about["model"], 0), len(learnt), recipe.batch_size)
    ready, places, plain = views_of(recipe, views), images.rows(ids), plain_view(recipe)
    mean, std = normalisation(model, device.torch_device)

    def average(members: Members) -> tuple[State, Floats]:
        with with_weights(model, model_soup([states[member] for member in members])):
            if len(members) > 1:
                batches = plain_batches(images, learnt, order.batches(recipe.epochs))
                normalised = (plain.move(device.normalise(batch, mean, std)) for batch in batches)
                recompute_batchnorm(model, normalised, about["parts"], recipe.freeze_epochs >= recipe.epochs, device)
            logits = predict_logits(model, images, places, ready, device, batch_size)
            state = clone_state(model.state_dict(), "cpu")
        return state, weighted_mean(np.stack([softmax(own) for own in logits.values()]))

    return average
