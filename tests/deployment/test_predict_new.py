"""New images of a folder or table: bad ones are listed, and only those without a prediction are predicted."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote import Ensemble
from foldvote.config.data import FoldersLayout, Layout, MaskbaseLayout, TableLayout
from foldvote.config.runtime import Runtime
from foldvote.deployment.new_images import list_new_images
from foldvote.deployment.predict_new import NewFiles, predict_new
from foldvote.deployment.prediction_store import PredictionStore
from foldvote.errors import UserError
from foldvote.io.csv_files import read_csv
from foldvote.io.files import read_json, sha256_file, write_json
from foldvote.io.parquet import read_table
from foldvote.runtime.resources import JobResources
from support.data_folders import encoded, picture, put, put_csv
from support.deployed_run import HOME, DeployedRun, deployed_run

NOISE = {"name": "noise", "steps": [{"GaussNoise": {"std_range": [0.2, 0.3], "p": 1.0}}]}
FOLDERS = FoldersLayout(layout="folders", group_pattern="(.*)")
TABLE = TableLayout(layout="table", table="t.csv", path="file", id="name")
COLUMNS = ["image_id", "path", "class", "confidence", "set", "size", "review"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> DeployedRun:
    return deployed_run(tmp_path_factory.mktemp("run"), views=["identity", NOISE])


@pytest.fixture
def made(finished: DeployedRun, tmp_path: Path) -> DeployedRun:
    """A copy of the run, with twelve new images in a folder."""
    shutil.copytree(finished.results, tmp_path / "results")
    for number in range(12):
        put(tmp_path / f"new/{'deep/' * (number % 3)}{number:02d}.jpg", encoded(picture(seed=number)))
    return DeployedRun(tmp_path, finished.views)


def files_of(made: DeployedRun) -> NewFiles:
    folder = made.results / "new"
    return NewFiles(folder / "predictions.parquet", folder / "predictions.csv", folder / "bad.csv", folder / "parts")


def predict(
    made: DeployedRun, layout: Layout = FOLDERS, new: str = "new", code: str = "code", batch: int = 4
) -> pd.DataFrame:
    """Predict what `new` names, in pieces of one small batch, and give the table."""
    listed = list_new_images(made.root / new, layout, made.results)
    predict_new(made.results, listed, files_of(made), JobResources(0, 1, Runtime(predict_batch=batch)), code)
    return read_table(files_of(made).table)


def bad_of(made: DeployedRun) -> dict[str, str]:
    """Reasons by the path of each bad image, relative to the folder of the run."""
    table = read_csv(files_of(made).bad, ["path", "reason", "message"], extra=False, empty=True)
    return {
        os.path.relpath(path, made.root): reason for path, reason in zip(table["path"], table["reason"], strict=True)
    }


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldvote.deployment.ensemble._MOST_IMAGES", 1)  # so that a piece is a batch


def told(captured: pytest.CaptureFixture[str]) -> str:
    return captured.readouterr().err.splitlines()[-1]


def test_a_folder_is_predicted_and_bad_images_are_listed(made: DeployedRun, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: sha256_file(path) for path in made.results.rglob("*") if path.is_file()}
    korean = unicodedata.normalize("NFD", "새 사진/얼굴.png")
    put(made.root / "new" / korean, encoded(picture(seed=50), "PNG"))
    put(made.root / "new/a cut.jpg", encoded(picture())[:-700])
    put(made.root / "new/b.jpg", b"")
    put(made.root / "new/notes.txt", "no image")
    put(made.root / "new/.hidden.jpg", b"")
    (made.root / "new/out.jpg").symlink_to(put(made.root / "elsewhere.png", encoded(picture(), "PNG")))
    os.mkfifo(made.root / "new/pipe.jpg")
    table = predict(made)
    assert "17 images: 13 predicted now, 0 known from before, 4 bad" in told(capsys)
    assert bad_of(made) == {
        "new/a cut.jpg": "truncated",
        "new/b.jpg": "empty",
        "new/out.jpg": "outside",
        "new/pipe.jpg": "unreadable",
    }
    assert table["image_id"].tolist() == [
        *sorted(f"{'deep/' * (number % 3)}{number:02d}.jpg" for number in range(12)),
        "새 사진/얼굴.png",
    ]
    assert list(table) == [*COLUMNS, *(f"p_{name}" for name in HOME.classes)]
    ensemble = Ensemble.load(made.results, device="cpu", threads=1)
    probabilities, codes = ensemble.votes(table["path"], table["image_id"].tolist())
    assert np.abs(table[[f"p_{name}" for name in HOME.classes]].to_numpy() - probabilities).max() < 1e-6
    assert table["class"].tolist() == [HOME.classes[code] for code in codes]
    assert (table["confidence"] == [table.at[row, f"p_{name}"] for row, name in enumerate(table["class"])]).all()
    least = read_json(made.results / "ensemble/coverage.json")["least_probability"]
    assert (table["size"] == np.maximum((probabilities >= least).sum(axis=1), 1)).all()
    assert (table["set"].str.count(r"\|") + 1 == table["size"]).all()
    assert table["review"].tolist() == (table["size"] > 1).tolist()
    written = pd.read_csv(files_of(made).csv)
    assert list(written) == list(table)
    assert written["image_id"].tolist() == table["image_id"].tolist()
    assert written["review"].tolist() == table["review"].tolist()
    assert np.abs(written["confidence"] - table["confidence"]).max() < 1e-6
    assert {path: sha256_file(path) for path in before} == before


def test_only_what_is_new_or_changed_is_predicted_and_what_is_gone_is_in_no_table(
    made: DeployedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    first = predict(made).set_index("image_id")
    again = files_of(made).table.read_bytes()
    predict(made)
    assert "12 images: 0 predicted now, 12 known from before, 0 bad" in told(capsys)
    assert files_of(made).table.read_bytes() == again
    put(made.root / "new/03.jpg", encoded(picture(seed=90)))
    put(made.root / "new/000.jpg", encoded(picture(seed=91)))
    put(made.root / "new/06.jpg", b"bad now")
    (made.root / "new/09.jpg").unlink()
    table = predict(made).set_index("image_id")
    assert "12 images: 2 predicted now, 9 known from before, 1 bad" in told(capsys)
    assert set(table.index) == {*first.index, "000.jpg"} - {"06.jpg", "09.jpg"}
    same = [name for name in table.index if name not in ("000.jpg", "03.jpg")]
    assert table.loc[same].equals(first.loc[same])
    assert table.at["03.jpg", "confidence"] != first.at["03.jpg", "confidence"]
    put(made.root / "new/03.jpg", encoded(picture(seed=3)))
    assert predict(made).set_index("image_id").loc["03.jpg"].equals(first.loc["03.jpg"])
    assert "12 images: 0 predicted now, 11 known from before" in told(capsys)  # both contents of 03.jpg are known


def test_after_a_kill_or_damage_only_the_rest_is_predicted(
    made: DeployedRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(made)
    shutil.rmtree(made.results / "new")
    add = PredictionStore.add

    def killed(self: PredictionStore, *piece: object) -> np.ndarray:
        if any((made.results / "new/parts").rglob("*1.parquet")):
            raise KeyboardInterrupt
        return add(self, *piece)

    with monkeypatch.context() as patched:
        patched.setattr(PredictionStore, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(made)
    assert not files_of(made).table.exists()
    assert np.allclose(predict(made)["confidence"], whole["confidence"], atol=1e-6)
    assert "12 images: 4 predicted now, 8 known from before" in told(capsys)
    part = sorted((made.results / "new/parts").rglob("*.parquet"))[1]
    part.write_bytes(part.read_bytes()[:-100])
    assert np.allclose(predict(made)["confidence"], whole["confidence"], atol=1e-6)
    assert "12 images: 4 predicted now, 8 known from before" in told(capsys)


def test_a_changed_ensemble_or_code_predicts_anew_and_another_threshold_does_not(
    made: DeployedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    first = predict(made)
    coverage = read_json(made.results / "ensemble/coverage.json")
    write_json(made.results / "ensemble/coverage.json", coverage | {"least_probability": 0.9999})
    strict = predict(made)
    assert strict["size"].tolist() == [1] * 12 != first["size"].tolist()
    assert first["review"].any() and not strict["review"].any()
    assert "0 predicted now, 12 known from before" in told(capsys)
    weights = read_json(made.results / "ensemble/weights.json")
    write_json(
        made.results / "ensemble/weights.json", weights | {"calibration": {"method": "temperature", "temperature": 90}}
    )
    hot = predict(made)
    assert "12 predicted now, 0 known from before" in told(capsys)
    assert (hot["confidence"] < first["confidence"]).all()
    predict(made, code="other")
    assert "12 predicted now, 0 known from before" in told(capsys)
    assert len([path for path in files_of(made).store.iterdir() if path.is_dir()]) == 1


def test_all_bad_images_are_no_failure_and_no_images_are_one(
    made: DeployedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        put(made.root / f"bad/{number}.jpg", b"x" * number)
    assert len(predict(made, new="bad")) == 0
    assert "all 3 images are bad, so none is predicted" in told(capsys)
    assert set(bad_of(made)) == {"bad/0.jpg", "bad/1.jpg", "bad/2.jpg"}
    (made.root / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images; name the folder that does"):
        predict(made, new="empty")


def test_a_table_names_images_below_its_own_folder(made: DeployedRun, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ("하나", "new/00.jpg", 1),
        ("둘", "./new/deep/01.jpg", 2),
        ("셋", "new/absent.jpg", 3),
        ("넷", "../x.jpg", 4),
    ]
    put_csv(made.root / "images.csv", ["name", "file", "more"], rows)
    table = predict(made, TABLE, "images.csv")
    assert table["image_id"].tolist() == ["하나", "둘"]
    assert "4 images: 2 predicted now, 0 known from before, 2 bad" in told(capsys)
    assert sorted(read_csv(files_of(made).bad)["reason"]) == ["missing", "outside"]
    pd.DataFrame(rows[:2], columns=["name", "file", "more"]).to_parquet(made.root / "images.parquet")
    assert predict(made, TABLE, "images.parquet").equals(table)
    put_csv(
        made.root / "images.csv", ["name", "file"], [("a", "new/00.jpg"), ("", "new/x.jpg"), ("a", "new/deep/01.jpg")]
    )
    with pytest.raises(UserError) as raised:
        predict(made, TABLE, "images.csv")
    assert [fault.partition("images.csv")[2] for fault in raised.value.faults] == [
        ", row 3: name is empty; name the image",
        ": the image id 'a' is that of 'new/00.jpg' and of 'new/deep/01.jpg'; rename one",
    ]


def test_a_table_of_the_home_tasks_layout_names_files_in_the_folder_beside_it(made: DeployedRun) -> None:
    for name in ("가.jpg", "나.jpg"):
        put(made.root / "eval" / "images" / name, encoded(picture(seed=1)))
    put_csv(made.root / "eval/info.csv", ["ImageID", "ans"], [("나.jpg", 0), ("가.jpg", 0)])
    assert predict(made, MaskbaseLayout(layout="maskbase"), "eval/info.csv")["image_id"].tolist() == [
        "나.jpg",
        "가.jpg",
    ]
    shutil.move(made.root / "eval/info.csv", made.root / "eval/images/mine.csv")
    listed = list_new_images(made.root / "eval/images/mine.csv", MaskbaseLayout(layout="maskbase"), made.results)
    assert listed.root == made.root / "eval/images"


def test_a_run_without_sets_of_classes_is_not_finished(made: DeployedRun) -> None:
    (made.results / "ensemble/coverage.json").unlink()
    with pytest.raises(UserError, match=r"coverage\.json is missing; run the workflow to its end"):
        predict(made)
