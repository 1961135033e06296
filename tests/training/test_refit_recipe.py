"""The recipe of networks that learn from all groups, and their training without validation images."""

from pathlib import Path

import pandas as pd
import pytest

from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime, Tracking
from foldvote.errors import UserError
from foldvote.inference.predict_member import PartFiles, predict_member
from foldvote.io.files import read_json, sha256_file, write_json
from foldvote.io.parquet import read_record, write_table
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import FOLDS, SplitFiles, fold_rows, read_folds, split_sha256
from foldvote.splits.refit_split import everyone
from foldvote.training.history import read_history
from foldvote.training.refit_recipe import refit_recipe, write_refit_recipe
from foldvote.training.train_member import train_member
from foldvote.training.training_set import MemberInputs
from support.tiny_member import Tiny, make_tiny, recipe

LAST = {"epoch": "last", "epochs": 3}


def train(tiny: Tiny, name: str, split: SplitFiles, fold: int, trackers: bool = False, **changes: object) -> None:
    runtime = Runtime(workers=0, tracking=Tracking(tensorboard=trackers))
    train_member(
        MemberSeeds(1, "tiny", fold),
        recipe(**changes),
        "code",
        MemberInputs(tiny.pixels, split),
        tiny.resume / name,
        tiny.root / "runs",
        tiny.files(name),
        JobResources(0, 1, runtime),
    )


def put_split(tiny: Tiny, name: str, table: pd.DataFrame) -> SplitFiles:
    """A split of the tiny images, certified."""
    files = SplitFiles(tiny.split.classes, tiny.root / f"{name}.parquet", tiny.root / f"{name}.json")
    about = read_json(tiny.split.certificate) | {"split_sha256": split_sha256(table)}
    write_table(table, files.folds, FOLDS, key=("image_id", "repeat"))
    write_json(files.certificate, about)
    return files


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"swa": 0.5, "net": "test_efficientnet"}], ids=str)
def test_without_validation_the_same_images_give_the_same_weights_and_no_score(tiny: Tiny, more: dict) -> None:
    table, _ = read_folds(tiny.split.folds, tiny.split.certificate)
    learnt = everyone(table[table["image_id"].isin(fold_rows(table, 1)[0]["image_id"])])
    split = put_split(tiny, "learnt", learnt)
    train(tiny, "member", tiny.split, 1, **LAST, **more)
    train(tiny, "refit", split, 1, trackers=True, **LAST, **more)
    member, refit = tiny.files("member"), tiny.files("refit")
    assert sha256_file(refit.weights) == sha256_file(refit.last) == sha256_file(member.weights)
    both = read_history(member.history), read_history(refit.history)
    assert [name for name in both[0] if name not in both[1]] == [name for name in both[0] if name.startswith("val_")]
    pd.testing.assert_series_equal(both[0]["train_loss"], both[1]["train_loss"])
    assert not both[1]["best"].any()
    sidecars = read_json(member.sidecar), read_json(refit.sidecar)
    assert {name for name in sidecars[0] if name.startswith("val_")} == set(sidecars[0]) - set(sidecars[1])
    assert sidecars[1]["validation_images"] == 0 and "validation_images" not in sidecars[0]
    assert sidecars[1]["epochs"] == [3]


def test_a_network_of_all_groups_is_predicted_like_a_member(tiny: Tiny) -> None:
    table, _ = read_folds(tiny.split.folds, tiny.split.certificate)
    split = put_split(tiny, "everyone", everyone(table))
    train(tiny, "whole", split, 7, **LAST)
    files, out = tiny.files("whole"), tiny.root / "whole.predictions.parquet"
    resources = JobResources(0, 1, Runtime(workers=0))
    parts = [PartFiles("test", tiny.pixels, out, tiny.root / "timing.json")]
    predict_member(files.weights, files.sidecar, split, parts, ["identity"], resources)
    assert len(pd.read_parquet(out)) == table["image_id"].nunique()
    assert (read_record(out)["fold"], read_record(out)["split_sha256"]) == (7, split_sha256(everyone(table)))


@pytest.mark.parametrize("more", [{"epoch": "best"}, {"epoch": "last", "patience": 1}], ids=str)
def test_a_recipe_that_decides_by_scores_cannot_do_without_validation(tiny: Tiny, more: dict) -> None:
    table, _ = read_folds(tiny.split.folds, tiny.split.certificate)
    split = put_split(tiny, "undecided", everyone(table))
    with pytest.raises(UserError, match="tiny fold 0: learns from all groups, and its recipe decides by validation"):
        train(tiny, "undecided", split, 0, **more)


def test_it_has_the_epochs_that_the_folds_found_and_decides_nothing() -> None:
    last = Recipe(net="resnet18", epochs=8)
    assert refit_recipe(last, [[8], [8], [8]]) == last
    early = Recipe(net="resnet18", epochs=30, patience=3, warmup_epochs=3, max_minutes=5, best_by="accuracy")
    made = refit_recipe(early, [[9], [12], [10]])
    assert (made.epochs, made.patience, made.max_minutes) == (10, None, None) and not made.chooses_epochs
    assert made.warmup_epochs == pytest.approx(1.0)
    best = Recipe(net="resnet18", epochs=8, epoch="best", soup=2, pretrained="w.pth", freeze_epochs=6)
    made = refit_recipe(best, [[5, 4], [4, 2], [1, 2]])  # means 4.5, 3 and 1.5
    assert (made.epochs, made.epoch, made.soup, made.freeze_epochs) == (3, "last", 1, 3)
    stepped = Recipe(net="resnet18", epochs=8, epoch="best", schedule={"name": "step", "every": 4})
    assert refit_recipe(stepped, [[4]]).schedule.every == 2
    mixed = Recipe(net="resnet18", epochs=3, epoch="best", mix="mixup", mix_off_epochs=2)
    assert [refit_recipe(mixed, [[found]]).mix_off_epochs for found in (1, 2, 3)] == [0, 1, 2]
    growing = Recipe(net="resnet18", epochs=4, epoch="best", progressive={"size": "64x48", "epochs": 2})
    first = [refit_recipe(growing, [[found]]).progressive for found in (1, 2, 4)]
    assert first == [None, growing.progressive.model_copy(update={"epochs": 1}), growing.progressive]


def test_it_is_written_with_where_its_epochs_come_from(tmp_path: Path) -> None:
    sidecars = [tmp_path / f"model=a/fold={fold}/model.json" for fold in (0, 1, 10)]
    for path, epochs in zip(sidecars, ([3], [4], [4]), strict=True):
        path.parent.mkdir(parents=True)
        write_json(path, {"epochs": epochs})
    write_refit_recipe(Recipe(net="resnet18", epochs=8, epoch="best"), sidecars, tmp_path / "recipe.json")
    found = read_json(tmp_path / "recipe.json")
    assert found["epochs_of_folds"] == {"0": [3], "1": [4], "10": [4]}
    assert Recipe.model_validate(found["recipe"]).epochs == 4
