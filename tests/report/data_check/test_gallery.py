"""Which images a data check shows, and their thumbnails."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from foldvote.config.experiment import Config
from foldvote.errors import UserError
from foldvote.report.data_check.gallery import MOST_IMAGES, choose_images, choose_subjects
from foldvote.report.data_check.inputs import DataCheckFiles, DataCheckInputs
from foldvote.report.thumbnails import load_thumbnails
from support.data_check_run import SCRIPT
from support.data_folders import encoded


def test_a_contact_sheet_has_persons_of_every_stratum_and_is_the_same_each_time() -> None:
    folds = pd.DataFrame({"profile": [f"p{n:02d}" for n in range(40)], "stratum": ["rare"] * 3 + ["common"] * 37})
    chosen = choose_subjects(folds, 8, seed=1)
    assert (
        chosen == choose_subjects(folds.sample(frac=1, random_state=0), 8, seed=1) != choose_subjects(folds, 8, seed=2)
    )
    assert len(set(chosen)) == 8
    assert {"p00", "p01", "p02"} < set(chosen)
    assert len(choose_subjects(folds, 100, seed=1)) == 40


def test_a_person_with_many_pictures_is_cut_and_the_rest_counted(inputs: DataCheckInputs) -> None:
    many = inputs.train.assign(profile="one", group="one")
    folds = inputs.folds.assign(profile="one", group="one")
    row = choose_images(replace(inputs, manifests=inputs.manifests | {"train": many}, folds=folds), seed=0).persons[0]
    assert (row.name, len(row.images), row.more) == ("one", MOST_IMAGES, len(many) - MOST_IMAGES)
    assert row.images[0].note.endswith(f": {SCRIPT}")  # classes differ, so each picture says its own


def test_pictures_are_small_and_a_changed_image_is_named(
    hostile: tuple[Config, DataCheckFiles, Path], inputs: DataCheckInputs, tmp_path: Path
) -> None:
    config, _, _ = hostile
    keys = [("train", inputs.train["image_id"].iloc[0]), ("test", inputs.manifests["test"]["image_id"].iloc[0])]
    small = load_thumbnails(inputs.manifests, keys, config.root, config.images, height=12, workers=1)
    assert [small[key].shape for key in keys] == [(12, 10, 3)] * 2
    other = tmp_path / "data"
    shutil.copytree(config.root, other)
    (other / inputs.train["path"].iloc[0]).write_bytes(encoded(Image.new("RGB", (40, 48)), "PNG"))
    with pytest.raises(UserError, match="has changed since the manifest was made"):
        load_thumbnails(inputs.manifests, keys, other, config.images, height=12, workers=1)
