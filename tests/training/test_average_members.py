"""Averages of members' weights: what they predict, how they are chosen and scored, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from foldvote.config.folds import Folds
from foldvote.config.runtime import Runtime, Tracking
from foldvote.data.manifest_table import ONLY
from foldvote.data.packed_images import PackedImages
from foldvote.errors import UserError
from foldvote.evaluation.paired_scores import mean_sums, paired_scores
from foldvote.inference.predict_member import PartFiles, load_member, predict_member
from foldvote.io.files import read_json, sha256_file, write_json
from foldvote.io.parquet import read_table
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.splits.folds import make_folds, read_folds
from foldvote.splits.reserve import reserve_rows
from foldvote.splits.train_only import TRAIN_ONLY
from foldvote.training.average_members import (
    AverageFiles,
    AverageInputs,
    ReserveRows,
    average_members,
    greedy_members,
    in_words,
)
from foldvote.training.train_member import train_member
from foldvote.training.training_set import MemberInputs
from support.tiny_member import Tiny, make_tiny, recipe, write_manifest

RESOURCES = JobResources(0, 1, Runtime(workers=0, predict_batch=16, tracking=Tracking(tensorboard=False)))


def make_members(tiny: Tiny, seeds: list[int], **changes: object) -> AverageInputs:
    """Members of two folds and their predictions of the reserve; equal seeds begin with the same weights."""
    kinds = ("weights", "sidecars", "reserve")
    paths: dict[str, list[Path]] = {kind: [] for kind in kinds}
    for fold, seed in enumerate(seeds):
        files = tiny.files(f"train/model=tiny/fold={fold}")
        inputs = MemberInputs(tiny.pixels, tiny.split)
        asked = recipe(epoch="last", lr=0.01, epochs=6, augment="none", label_smoothing=0.0, **changes)
        name = MemberSeeds(seed, "tiny", fold)
        train_member(name, asked, "code", inputs, tiny.resume / str(fold), tiny.root, files, RESOURCES)
        path = tiny.root / f"reserve/model=tiny/fold={fold}/predictions.parquet"
        parts = [PartFiles("reserve", tiny.pixels, path, path.with_name("t.json"))]
        predict_member(files.weights, files.sidecar, tiny.split, parts, ["identity", "hflip"], RESOURCES)
        for kind, made in zip(kinds, (files.weights, files.sidecar, path), strict=True):
            paths[kind].append(made)
    return AverageInputs(paths["weights"], paths["sidecars"], paths["reserve"], tiny.pixels, tiny.split)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"), persons=24)
    split, manifest = made.split, read_table(made.manifest)
    only = manifest["image_id"].str.endswith("/3.png")  # of every person, those of the reserve among them
    write_manifest(manifest.assign(**{ONLY: only}), made.manifest)
    make_folds(made.manifest, Folds(k=2, reserve=0.4), 7, split.folds, split.certificate, split.classes)
    return made


@pytest.fixture(scope="module")
def scratch(tiny: Tiny) -> AverageInputs:
    return make_members(tiny, [1, 2])


def averaged(inputs: AverageInputs, folder: Path) -> tuple[AverageFiles, dict]:
    names = ("model.safetensors", "greedy.safetensors", "model.json", "scores.json")
    files = AverageFiles(*(folder / name for name in names))
    average_members(inputs, files, ["identity", "hflip"], "accuracy", 100, 1, RESOURCES)
    return files, read_json(files.scores)


def test_the_average_of_equal_members_is_as_good_as_the_vote_and_loads_as_a_member(
    tiny: Tiny, scratch: AverageInputs, tmp_path: Path
) -> None:
    first = [[paths[0]] * 2 for paths in (scratch.weights, scratch.sidecars, scratch.reserve)]
    twice = AverageInputs(*first, tiny.pixels, tiny.split)
    files, found = averaged(twice, tmp_path)
    own, mean = load_file(scratch.weights[0]), load_file(files.weights)
    learnt = [name for name in own if "running_" not in name and "num_batches" not in name]
    assert all(own[name].equal(mean[name]) for name in learnt)  # but for statistics, which are computed anew
    assert any(not own[name].equal(mean[name]) for name in own if "running_mean" in name)
    assert found["scores"]["uniform"]["accuracy"] == pytest.approx(found["scores"]["vote"]["accuracy"], abs=0.1)
    about = load_member(files.weights, files.sidecar, tiny.split)[0]
    assert about["members"] and "fold" not in about and not any(name.startswith("val_") for name in about)


def test_statistics_are_of_images_that_members_learnt_from(
    tiny: Tiny, scratch: AverageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    rows = PackedImages.rows
    monkeypatch.setattr(PackedImages, "rows", lambda own, ids: (asked.append(list(ids)), rows(own, ids))[1])
    averaged(scratch, tmp_path)
    folds, _ = read_folds(tiny.split.folds, tiny.split.certificate)
    kept_out = folds[folds["group"].isin(reserve_rows(folds)["group"])]
    assert (kept_out["fold"] == TRAIN_ONLY).any()
    assert [ids for ids in asked if not set(ids) & set(reserve_rows(folds)["image_id"])] == [
        sorted(set(folds["image_id"]) - set(kept_out["image_id"]))
    ]


def test_the_uniform_average_is_of_all_and_the_greedy_one_of_those_that_were_chosen(
    tiny: Tiny, scratch: AverageInputs, tmp_path: Path
) -> None:
    files, found = averaged(scratch, tmp_path)
    states = [load_file(path) for path in scratch.weights]
    name = next(name for name, tensor in states[0].items() if tensor.ndim == 4)
    mean = (states[0][name] + states[1][name]) / 2
    assert load_file(files.weights)[name].allclose(mean)
    chosen = [states[fold][name] for fold in found["greedy_folds"]]
    assert load_file(files.greedy)[name].allclose(sum(chosen[1:], chosen[0]) / len(chosen))
    assert found["images"] == len(reserve_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0]))
    assert found["scores"]["vote"]["accuracy_difference"] == 0
    about = read_json(files.sidecar)
    assert about["members"] == {str(fold): sha256_file(path) for fold, path in enumerate(scratch.weights)}
    assert about["greedy"] == {"folds": found["greedy_folds"], "sha256": sha256_file(files.greedy)}


@pytest.mark.parametrize(("pretrained", "why"), [(None, "trained from scratch"), ("net.pth", "moved far")])
def test_an_average_that_is_no_network_is_called_so(pretrained: str | None, why: str) -> None:
    alone, rows = simulated([2.0, 2.0])
    told = []
    for uniform in (np.full_like(alone[0], 1 / 3), simulated([1.0])[0][0], np.mean(alone, axis=0)):
        sums = {"one member": mean_sums([rows.sums(own) for own in alone]), "uniform": rows.sums(uniform)}
        sums |= {"greedy": sums["uniform"], "vote": rows.sums(np.mean(alone, axis=0))}
        scored, against = paired_scores(sums, "vote", 50, 1), paired_scores(sums, "one member", 50, 1)["uniform"]
        own = recipe(pretrained=pretrained)
        told += [in_words("tiny", 2, scored, against, score, own) for score in ("accuracy", "log_loss")]
    assert all("Averaging destroys this network" in text and why in text for text in told[:2])
    assert all("Averaging harms this network" in text and why in text for text in told[2:4])
    assert not any("Averaging" in text for text in told[4:])
    assert "average less vote +0.000 (95 % interval +0.000 to +0.000)" in told[4]


def test_members_of_another_recipe_or_other_weights_than_those_that_predicted_are_refused(
    scratch: AverageInputs, tmp_path: Path
) -> None:
    about = read_json(scratch.sidecars[1])
    other = tmp_path / "model.json"
    write_json(other, about | {"recipe": about["recipe"] | {"lr": 0.5}})
    sidecars = [scratch.sidecars[0], other]
    with pytest.raises(UserError, match="was trained with another recipe"):
        averaged(AverageInputs(scratch.weights, sidecars, scratch.reserve, scratch.pixels, scratch.split), tmp_path)
    swapped = scratch.reserve[::-1]
    with pytest.raises(UserError, match="predicted with other weights than those to be averaged"):
        averaged(AverageInputs(scratch.weights, scratch.sidecars, swapped, scratch.pixels, scratch.split), tmp_path)


def simulated(skills: list[float], images: int = 400, seed: int = 3) -> tuple[list[np.ndarray], ReserveRows]:
    draw = generator(seed, "soup")
    labels, groups = draw.integers(0, 3, images), np.arange(images) // 4
    rows = ReserveRows(labels, groups, [str(number) for number in range(images)])
    logits = [skill * np.eye(3)[labels] + draw.normal(0, 1, (images, 3)) for skill in skills]
    return [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in logits], rows


def test_greedy_keeps_what_helps_and_each_half_is_predicted_by_what_the_other_half_chose() -> None:
    alone, rows = simulated([1.0, 2.0, 1.9])

    def predict(members: tuple[int, ...]) -> np.ndarray:
        if len(members) == 1:
            return alone[members[0]]
        return np.full_like(alone[0], 1 / 3) if 0 in members else np.mean([alone[one] for one in members], axis=0)

    chosen, crossed = greedy_members(alone, predict, rows, "log_loss", 1)
    assert chosen == (1, 2)  # with the first one the average predicts nothing
    np.testing.assert_array_equal(crossed, np.mean(alone[1:], axis=0))
    assert rows.score(crossed, "log_loss") < 0


def test_the_choice_is_not_scored_on_the_groups_that_made_it() -> None:
    bests, honest = [], []
    for seed in range(20):
        alone, rows = simulated([0.0] * 20, images=40, seed=seed)

        def predict(members: tuple[int, ...], alone: list[np.ndarray] = alone, rows: ReserveRows = rows) -> np.ndarray:
            return alone[members[0]] if len(members) == 1 else np.eye(3)[(rows.labels + 1) % 3]

        chosen, crossed = greedy_members(alone, predict, rows, "accuracy", seed)
        assert len(chosen) == 1
        bests.append(rows.score(alone[chosen[0]], "accuracy"))
        honest.append(rows.score(crossed, "accuracy"))
    assert np.mean(bests) > 0.45
    assert np.mean(honest) == pytest.approx(1 / 3, abs=0.05)  # guesses are right in a third of the images
