"""What a student is taught, and that no network that knows its validation groups can teach it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import factor_label_space, write_label_space
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.io.parquet import read_record, write_table
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.splits.folds import fold_rows, read_folds
from foldvote.training.dataloader import Batch
from foldvote.training.first_round import PseudoInputs, tempered
from foldvote.training.state import MemberSpec
from foldvote.training.training_set import MemberInputs, TrainingSet, build_training_set
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny_with_tests, recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny_with_tests(tmp_path_factory.mktemp("tiny"))


def learnt_ids(tiny: Tiny, fold: int) -> list[str]:
    return fold_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0], fold)[0]["image_id"].tolist()


def said(tiny: Tiny, model: str, part: str = "teach", fold: int = 0, of: int | None = None, **record: object) -> Path:
    """What a member predicts in two views, its images in no order; `of`: of the images of another fold."""
    own = fold if of is None else of
    ids = [f"test{number}" for number in range(8)] if part == "test" else learnt_ids(tiny, own)
    manifest = tiny.manifest if part == "teach" else tiny.root / "test.parquet"
    about = {"model": model, "fold": fold, "split": part, "classes": list(LABEL_SPACE.classes)}
    about |= {"split_sha256": read_folds(tiny.split.folds, tiny.split.certificate)[1], "weights_sha256": model}
    about |= {"data_sha256": read_record(manifest)["data_sha256"], "views": ["hflip", "identity"]} | record
    frames = []
    for view in ("identity", "hflip"):
        rows = pd.DataFrame({"image_id": ids, "profile": None, "label": pd.array([None] * len(ids), "Int16")})
        logits = [generator(1, model, view, name).normal(0, 3, len(LABEL_SPACE.classes)) for name in ids]
        rows[[LOGIT + name for name in LABEL_SPACE.classes]] = np.array(logits, np.float32)
        frames.append(rows.assign(view=view))
    frame = pd.concat(frames).sample(frac=1, random_state=3)
    path = tiny.root / f"{part}/model={model}/fold={fold}/predictions.parquet"
    write_table(frame, path, predictions_schema(LABEL_SPACE.classes), record=about)
    return path


def expected(models: list[str], ids: list[str]) -> np.ndarray:
    """The mean of the models over their views, by hand."""
    draws = [
        [softmax(generator(1, model, view, name).normal(0, 3, (1, 3)).astype(np.float32))[0] for name in ids]
        for model in models
        for view in ("identity", "hflip")
    ]
    return np.mean(draws, axis=0)


def student(
    tiny: Tiny, paths: list[Path], tests: list[Path] | None = None, fold: int = 0, **asked: object
) -> TrainingSet:
    names = [path.parent.parent.name.removeprefix("model=") for path in paths]
    distill = {"models": names, "temperature": 3, "test_images": tests is not None}
    pseudo = PseudoInputs(tiny.root / "test.arrow", tuple(tests)) if tests else None
    inputs = MemberInputs(tiny.pixels, tiny.split, pseudo=pseudo, teachers=tuple(paths))
    return build_training_set(recipe(distill=distill, **asked), fold, inputs)


def test_a_student_learns_the_softened_mean_of_its_teachers_beside_the_labels(tiny: Tiny) -> None:
    chosen = student(tiny, [said(tiny, "one"), said(tiny, "two")])
    plain = build_training_set(recipe(), 0, MemberInputs(tiny.pixels, tiny.split))
    pd.testing.assert_frame_equal(chosen.training, plain.training)
    pd.testing.assert_frame_equal(chosen.validation, plain.validation)
    np.testing.assert_array_equal(chosen.targets, plain.targets)
    powers = expected(["one", "two"], chosen.training["image_id"].tolist()) ** (1 / 3)
    np.testing.assert_allclose(chosen.taught, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)
    spec = MemberSpec(MemberSeeds(1, "s", 0), recipe(augment="none"), MemberInputs(tiny.pixels, tiny.split), chosen)
    places = np.array([5, 0, 7])
    targets = spec.augmented_images[Batch(0, 0, places)][1].numpy()
    np.testing.assert_array_equal(targets[:, :3].argmax(axis=1), plain.targets[places])
    np.testing.assert_array_equal(targets[:, 3:], chosen.taught[places])


def test_test_images_are_taught_as_they_were_predicted(tiny: Tiny) -> None:
    chosen = student(tiny, [said(tiny, "one")], [said(tiny, "one", "test")])
    added = chosen.training["image_id"].str.startswith("test").to_numpy()
    assert added.sum() == 8 and chosen.origin["pseudo"]["images"] == 8
    predicted = expected(["one"], chosen.training["image_id"][added].tolist())
    np.testing.assert_allclose(chosen.targets[added], predicted, rtol=1e-4)
    np.testing.assert_allclose(chosen.taught[added], tempered(predicted, 3), rtol=1e-4)
    assert chosen.batch_targets(grouped=False).shape == (len(chosen.training), 6)


def test_a_student_of_one_factor_learns_its_share_of_whole_classes(tiny: Tiny, tmp_path: Path) -> None:
    space = factor_label_space({"colour": ("blue", "green"), "size": ("small", "large")})
    split, ids = replace(tiny.split, classes=tmp_path / "classes.json"), learnt_ids(tiny, 0)
    write_label_space(space, split.classes)
    logits = np.log(np.tile([[0.1, 0.2, 0.3, 0.4]], (len(ids), 1))).astype(np.float32)
    frame = pd.DataFrame({"image_id": ids, "profile": None, "label": pd.array([None] * len(ids), "Int16")})
    frame[[LOGIT + name for name in space.classes]] = logits
    record = read_record(said(tiny, "one")) | {"classes": list(space.classes), "views": ["identity"]}
    path = tmp_path / "teach/model=one/fold=0/predictions.parquet"
    write_table(frame.assign(view="identity"), path, predictions_schema(space.classes), record=record)
    asked = recipe(factors=["size"], distill={"models": ["one"], "temperature": 1})
    chosen = build_training_set(asked, 0, MemberInputs(tiny.pixels, split, teachers=(path,)))
    np.testing.assert_allclose(chosen.taught, np.tile([[0.4, 0.6]], (len(ids), 1)), rtol=1e-5)


def test_no_member_of_another_fold_can_teach(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="is of fold 1, and fold 0 may learn from its own alone"):
        student(tiny, [said(tiny, "one", fold=1)])
    moved = said(tiny, "one", fold=1).replace(said(tiny, "one"))
    with pytest.raises(UserError, match="holds the teach predictions of model one fold 1, not the teach predictions"):
        student(tiny, [moved])


def test_predictions_of_other_images_splits_and_data_cannot_teach(tiny: Tiny) -> None:
    with pytest.raises(UserError) as caught:  # images of the student's own validation fold, and too few of its training
        student(tiny, [said(tiny, "one", of=1)])
    assert any("are not in the images that fold 0 learns from" in fault for fault in caught.value.faults)
    assert any("of the images that fold 0 learns from are missing" in fault for fault in caught.value.faults)
    with pytest.raises(UserError, match="was made with another split"):
        student(tiny, [said(tiny, "one", split_sha256="0" * 64)])
    with pytest.raises(UserError, match="predicts other data than the member learns from"):
        student(tiny, [said(tiny, "one", data_sha256="others")])
    with pytest.raises(UserError, match="holds the oof predictions of model one fold 0"):
        student(tiny, [said(tiny, "one", split="oof")])


def test_other_teachers_or_other_predictions_of_theirs_change_the_digests_of_a_student(tiny: Tiny) -> None:
    first = student(tiny, [said(tiny, "one")]).origin["distill"]
    assert first["weights_sha256"] == ["one"]
    assert student(tiny, [said(tiny, "one")]).origin["distill"] == first
    assert student(tiny, [said(tiny, "two")]).origin["distill"]["targets_sha256"] != first["targets_sha256"]


@given(st.integers(0, 2**31 - 1), st.floats(1, 50))
@settings(deadline=None, max_examples=30)
def test_tempered_probabilities_are_the_softmax_of_divided_logits(seed: int, temperature: float) -> None:
    logits = generator(seed, "logits").normal(0, 4, (6, 5))
    np.testing.assert_allclose(tempered(softmax(logits), temperature), softmax(logits / temperature), rtol=1e-4)
