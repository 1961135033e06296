"""What a member learns from: factors alone, and test images that a first round is sure of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from foldvote.config.layout_facts import NumericFactor
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace, factor_label_space, write_label_space
from foldvote.data.packed_images import ConcatenatedImages, PackedImages
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.splits.folds import FOLDS, read_folds
from foldvote.training.dataloader import Batch
from foldvote.training.first_round import PseudoInputs, without_smoothing
from foldvote.training.state import MemberSpec
from foldvote.training.training_set import MemberInputs, TrainingSet, build_training_set
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny_with_tests, recipe

SIX = factor_label_space({"colour": ("blue", "green", "red"), "size": ("small", "large")})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny_with_tests(tmp_path_factory.mktemp("tiny"))


def said(tiny: Tiny, model: str, probabilities: np.ndarray, fold: int = 0, **record: object) -> Path:
    """Test predictions of one member of a first round, one view."""
    ids = read_table(tiny.root / "test.parquet")["image_id"]
    about = {"model": model, "fold": fold, "split": "test", "classes": list(LABEL_SPACE.classes), "views": ["identity"]}
    about |= {"split_sha256": read_folds(tiny.split.folds, tiny.split.certificate)[1], "weights_sha256": model}
    about |= {"data_sha256": read_record(tiny.root / "test.parquet")["data_sha256"]} | record
    rows = pd.DataFrame({"image_id": ids, "profile": None, "label": pd.array([None] * len(ids), "Int16")})
    logits = np.log(probabilities).astype(np.float32)
    frame = pd.concat([rows, pd.DataFrame(logits, columns=[LOGIT + name for name in LABEL_SPACE.classes])], axis=1)
    path = tiny.root / f"test/model={model}/fold={fold}/predictions.parquet"
    write_table(frame.assign(view="identity"), path, predictions_schema(LABEL_SPACE.classes), record=about)
    return path


def sure_of(count: int) -> np.ndarray:
    """Probabilities of eight images, of which the first `count` are likelier than 0.8 to be green."""
    rows = np.full((8, 3), 1 / 3)
    rows[:count] = [0.05, 0.9, 0.05]
    return rows


def second_round(tiny: Tiny, paths: list[Path], fold: int = 0, **changes: object) -> TrainingSet:
    asked = recipe(pseudo={"models": [path.parent.parent.name.removeprefix("model=") for path in paths]} | changes)
    pseudo = PseudoInputs(tiny.root / "test.arrow", tuple(paths))
    return build_training_set(asked, fold, MemberInputs(tiny.pixels, tiny.split, pseudo=pseudo))


def test_only_images_that_the_mean_of_the_first_round_is_sure_of_are_learnt_from(tiny: Tiny) -> None:
    paths = [said(tiny, "one", sure_of(4)), said(tiny, "two", sure_of(2))]
    plain = build_training_set(recipe(), 0, MemberInputs(tiny.pixels, tiny.split))
    chosen = second_round(tiny, paths, confidence=0.8)
    added = chosen.training.iloc[len(plain.training) :]
    assert added["image_id"].tolist() == ["test0", "test1"]
    own = plain.training["image_id"].str.split("/").str[0]  # the person
    assert (own.groupby(plain.training["group"]).nunique() == 1).all() and own.nunique() == 8
    assert added["group"].nunique() == 2 and not set(added["group"]) & set(plain.training["group"])
    np.testing.assert_allclose(chosen.targets[len(plain.training) :], [[0.05, 0.9, 0.05]] * 2, rtol=1e-6)
    np.testing.assert_array_equal(chosen.targets[: len(plain.training)].argmax(axis=1), plain.targets)
    pd.testing.assert_frame_equal(chosen.validation, plain.validation)
    assert len(second_round(tiny, paths, confidence=0.6).training) == len(plain.training) + 4


def test_confidence_is_a_share_of_what_label_smoothing_leaves(tiny: Tiny) -> None:
    smoothed = 0.8 * np.repeat([[0.02, 0.96, 0.02], [0.3, 0.4, 0.3]], 4, axis=0) + 0.2 / 3  # never above 0.867
    plain = build_training_set(recipe(), 0, MemberInputs(tiny.pixels, tiny.split))
    for record, added in (({}, 0), ({"label_smoothing": 0.2}, 4)):
        chosen = second_round(tiny, [said(tiny, "one", smoothed, **record)], confidence=0.95)
        assert len(chosen.training) == len(plain.training) + added
    np.testing.assert_allclose(chosen.targets[-4:], smoothed[:4], rtol=1e-6)  # what is learnt is what was predicted
    both = [said(tiny, "one", smoothed, label_smoothing=0.2), said(tiny, "two", sure_of(2))]  # 0.96 and 0.9 make 0.93
    assert len(second_round(tiny, both, confidence=0.925).training) == len(plain.training) + 2
    assert len(second_round(tiny, both, confidence=0.935).training) == len(plain.training)


def test_smoothing_hides_most_of_the_images_that_a_model_is_sure_of() -> None:
    draws = generator(1, "sure")
    true = softmax(8 * np.eye(18)[draws.integers(0, 18, 2000)] + draws.normal(0, 1, (2000, 18)))
    smoothed = 0.9 * true + 0.1 / 18
    sure = (true.max(axis=1) >= 0.9).mean()
    assert smoothed.max() < 0.906 and (smoothed.max(axis=1) >= 0.9).mean() < sure - 0.2
    back = without_smoothing(smoothed, 0.1)
    np.testing.assert_allclose(back, true, atol=1e-12)
    assert (back.max(axis=1) >= 0.9).mean() == pytest.approx(sure, abs=1e-3) and sure > 0.8
    assert without_smoothing(true, 0.0) is true


def test_the_pixels_of_test_images_are_those_of_the_test_file(tiny: Tiny) -> None:
    chosen = second_round(tiny, [said(tiny, "one", sure_of(3))], confidence=0.8)
    inputs = MemberInputs(tiny.pixels, tiny.split)
    spec = MemberSpec(MemberSeeds(1, "second", 0), recipe(augment="none"), inputs, chosen)
    places = np.arange(len(chosen.training))
    images, targets, _ = spec.augmented_images[Batch(0, 0, places)]
    train, tests = PackedImages(tiny.pixels), PackedImages(tiny.root / "test.arrow")
    ids = chosen.training["image_id"].tolist()
    own = [train[train.row_of[name]] if name in train.row_of else tests[tests.row_of[name]] for name in ids]
    np.testing.assert_array_equal(images.numpy(), np.stack(own))
    np.testing.assert_allclose(targets.numpy().sum(axis=1), 1, rtol=1e-6)


def test_a_second_round_changes_the_digests_of_a_member(tiny: Tiny) -> None:
    first = second_round(tiny, [said(tiny, "one", sure_of(3))], confidence=0.8).origin
    other = second_round(tiny, [said(tiny, "one", sure_of(3), weights_sha256="others")], confidence=0.8).origin
    assert first["pseudo"] != other["pseudo"]
    assert first["pseudo"]["images"] == 3


def test_a_fold_learns_from_no_other_fold(tiny: Tiny) -> None:
    path = said(tiny, "one", sure_of(3), fold=1)
    with pytest.raises(UserError, match="is of fold 1, and fold 0 may learn from its own alone"):
        second_round(tiny, [path], fold=0)


def test_predictions_of_other_test_images_than_the_packed_ones_are_refused(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="packed from other data_sha256"):
        second_round(tiny, [said(tiny, "one", sure_of(3), data_sha256="others")])


def test_a_sampler_by_stratum_has_no_stratum_for_test_images() -> None:
    with pytest.raises(ValueError, match="test images have no stratum"):
        recipe(pseudo={"models": ["one"]}, sampler={"by": "stratum"})


def of_factors(factors: list[str]) -> Recipe:
    return recipe(factors=factors)


def test_a_model_of_one_factor_learns_and_is_scored_on_its_levels(tiny: Tiny, tmp_path: Path) -> None:
    split = replace(tiny.split, classes=tmp_path / "classes.json")
    write_label_space(SIX, split.classes)
    inputs = MemberInputs(tiny.pixels, split)
    whole = build_training_set(recipe(), 0, inputs)
    chosen = build_training_set(of_factors(["size"]), 0, inputs)
    assert chosen.label_space == LabelSpace(("small", "large"), {"size": ("small", "large")})
    levels = SIX.level_codes("size")
    np.testing.assert_array_equal(chosen.targets, levels[whole.targets])
    np.testing.assert_array_equal(chosen.validation["label"], levels[whole.validation["label"]])
    assert chosen.origin["classes"] == list(SIX.classes)


def test_ages_and_strata_that_a_member_learns_by_are_in_its_digests(tiny: Tiny, tmp_path: Path) -> None:
    """No digest of the split or the data covers them, and a run is not resumed with others."""
    split, manifest = replace(tiny.split, classes=tmp_path / "classes.json"), tmp_path / "manifest.parquet"
    write_label_space(factor_label_space({"age": ("young", "middle", "old")}), split.classes)
    numeric = NumericFactor(name="age", column="age_years", borders=(30, 60))

    def origin(middle: int = 45, stratum: str | None = None, **changes: object) -> dict[str, object]:
        rows = read_table(tiny.manifest)
        ages = pd.DataFrame({"image_id": rows["image_id"], "age_years": rows["label"].map({0: 20, 1: middle, 2: 70})})
        write_table(ages, manifest, pa.schema([("image_id", pa.string()), ("age_years", pa.int64())]))
        folds = read_table(tiny.split.folds)
        if stratum is not None:
            folds["stratum"] = stratum
        write_table(folds, tmp_path / "folds.parquet", FOLDS)
        of = replace(split, folds=tmp_path / "folds.parquet")
        inputs = MemberInputs(tiny.pixels, of, manifest=manifest, numeric=numeric)
        return build_training_set(recipe(**changes), 0, inputs).origin

    soft, drawn = {"labels": {"soft_years": 3}}, {"sampler": {"by": "stratum"}}
    assert origin(**soft) == origin(**soft) != origin(58, **soft)
    assert origin(**drawn) == origin(**drawn) != origin(stratum="one", **drawn)
    assert origin() == origin(58, "one")  # neither is learnt by


def test_packed_files_follow_one_another(tiny: Tiny) -> None:
    train, tests = PackedImages(tiny.pixels), PackedImages(tiny.root / "test.arrow")
    both = ConcatenatedImages(train, tests)
    assert len(both) == len(train) + len(tests)
    np.testing.assert_array_equal(both[len(train) - 1], train[len(train) - 1])
    np.testing.assert_array_equal(both[len(train)], tests[0])
    np.testing.assert_array_equal(both[len(both) - 1], tests[len(tests) - 1])
