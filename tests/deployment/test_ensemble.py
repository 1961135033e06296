"""The ensemble as an object: it predicts what the workflow predicts, from files or arrays, and names bad images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from foldvote import Ensemble
from foldvote.config.image_size import Framing
from foldvote.data.face_detection import write_boxes
from foldvote.data.image_decoding import decode
from foldvote.data.packed_images import PackedImages, pack_images
from foldvote.deployment.new_pixels import NewImage, read_new
from foldvote.errors import UserError
from foldvote.io.parquet import read_table
from support.data_folders import encoded, picture, put
from support.deployed_run import HOME, RULES, DeployedRun, deployed_run

NOISE = {"name": "noise", "steps": [{"GaussNoise": {"std_range": [0.2, 0.3], "p": 1.0}}], "then": "hflip"}
MODELS = {
    "joint": {},
    "heads": {"heads": {"mask": "classes", "age": "ordinal"}, "size": "20x28", "roi": "centre-30x30", "fit": "crop"},
    "padded": {"size": "32x32", "fit": "pad", "pack": 1.25},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DeployedRun:
    """Three models of three sizes, regions and fits, one packed larger, a flip, and a view with random steps."""
    return deployed_run(tmp_path_factory.mktemp("run"), MODELS, use="greedy+offsets", views=["identity", NOISE])


@pytest.fixture(scope="module")
def ensemble(made: DeployedRun) -> Ensemble:
    return Ensemble.load(made.results, device="cpu", threads=1)


def expected(run: DeployedRun) -> tuple[np.ndarray, np.ndarray]:
    table = read_table(run.results / "ensemble/test.parquet")
    return table[[f"p_{name}" for name in HOME.classes]].to_numpy(), table["prediction"].to_numpy()


def test_the_tests_predictions_are_those_of_the_workflow_to_the_last_bit(made: DeployedRun, ensemble: Ensemble) -> None:
    files, (probabilities, codes) = made.photographs("test"), expected(made)
    ids = read_table(made.results / "ensemble/test.parquet")["image_id"].tolist()
    assert ids == [path.relative_to(made.root).as_posix() for path in files]
    found, chosen = ensemble.votes(files, ids)
    assert found.tolist() == probabilities.tolist()
    assert chosen.tolist() == codes.tolist()
    assert len(set(chosen.tolist())) > 1


def test_in_other_batches_and_with_processes_that_read_the_predictions_differ_in_last_bits_only(
    made: DeployedRun,
) -> None:
    small = Ensemble.load(str(made.results), device="cpu", threads=1, batch_size=5)
    small.images_at_once = 5
    files, (probabilities, codes) = made.photographs("test"), expected(made)
    ids = [path.relative_to(made.root).as_posix() for path in files]
    pieces = list(small.pieces(files * 40, ids * 40, workers=2))
    assert len(pieces) == len(files) * 40 // 5
    assert np.concatenate([piece.rows for piece in pieces]).tolist() == list(range(len(files) * 40))
    found = np.concatenate([piece.probabilities for piece in pieces])
    assert np.abs(found - np.tile(probabilities, (40, 1))).max() < 1e-6
    assert np.concatenate([piece.codes for piece in pieces]).tolist() == codes.tolist() * 40


def test_an_array_is_predicted_as_its_file_wherever_it_lies_and_whatever_stands_beside_it(
    made: DeployedRun, ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random views are drawn by the content of an image that has no id."""
    files = made.photographs("test")[:4]
    arrays = [decode(path.read_bytes(), RULES).pixels for path in files]
    elsewhere = put(tmp_path / "other name.png", files[2].read_bytes())
    (tmp_path / "link.png").symlink_to(files[1])
    monkeypatch.chdir(tmp_path)
    mixed = [arrays[0], "link.png", elsewhere, Path("other name.png"), picture(90, 33, seed=5)]
    from_files = ensemble.predict_proba(files)
    assert np.allclose(ensemble.predict_proba(arrays), from_files, atol=1e-6)
    assert np.allclose(ensemble.predict_proba(mixed)[:4], from_files[[0, 1, 2, 2]], atol=1e-6)
    assert np.allclose(ensemble.predict_proba(np.stack(arrays)), from_files, atol=1e-6)
    assert ensemble.predict(iter(files)).tolist() == ensemble.predict(files).tolist()
    assert ensemble.predict_proba([]).shape == (0, len(HOME.classes))


def test_scikit_learns_metrics_take_its_answers_and_columns(made: DeployedRun, ensemble: Ensemble) -> None:
    """They take columns in the alphabetical order of names, which is not that of the codes here."""
    files = made.photographs("test")
    truth = read_table(made.results / "data/manifest/split=test/manifest.parquet")["class_name"].to_numpy()
    answers, probabilities = ensemble.predict(files), ensemble.predict_proba(files)
    assert list(ensemble.classes_) == sorted(HOME.classes) != list(HOME.classes)
    assert accuracy_score(truth, answers) == np.mean(truth == answers)
    assert 0 <= f1_score(truth, answers, average="macro", zero_division=0) <= 1
    own = [np.log(row[list(ensemble.classes_).index(name)]) for row, name in zip(probabilities, truth, strict=True)]
    assert log_loss(truth, probabilities, labels=ensemble.classes_) == pytest.approx(-np.mean(own))
    assert ensemble.votes(files)[0][:, HOME.classes.index("wear-old")].tolist() == pytest.approx(
        probabilities[:, list(ensemble.classes_).index("wear-old")].tolist()
    )


def test_bad_images_are_named_all_at_once_and_one_image_is_no_list(
    made: DeployedRun, ensemble: Ensemble, tmp_path: Path
) -> None:
    good = made.photographs("test")[0]
    cut = put(tmp_path / "cut.jpg", encoded(picture())[:-900])
    wrong = [np.zeros((40, 40), np.uint8), np.zeros((40, 40, 3)), np.zeros((40, 4, 3), np.uint8)]
    with pytest.raises(UserError) as raised:
        ensemble.predict([good, cut, tmp_path / "absent.jpg", *wrong])
    faults = raised.value.faults
    assert [fault.split(":")[0] for fault in faults] == [
        str(cut),
        str(tmp_path / "absent.jpg"),
        "images[3]",
        "images[4]",
        "images[5]",
    ]
    for fault, reason in zip(faults, ("truncated", "missing", "format", "format", "too_small"), strict=True):
        assert f": {reason}: " in fault
    (piece,) = ensemble.pieces([good, cut, good])
    assert (piece.rows.tolist(), list(piece.bad), piece.bad[1].reason) == ([0, 2], [1], "truncated")
    for one in (str(good), good, np.zeros((40, 40, 3), np.uint8)):
        with pytest.raises(UserError, match=r"is one image; give a list: \[image\]"):
            ensemble.predict(one)
    with pytest.raises(UserError, match=r"images\[1\]: is a NoneType; give a path or a uint8 array"):
        ensemble.predict([good, None])


def test_faces_are_cropped_as_for_packed_images_and_own_boxes_are_refused(tmp_path: Path) -> None:
    made = deployed_run(tmp_path)
    box = made.results / "data/boxes/split=train/boxes.parquet"
    manifest = made.results / "data/manifest/split=test/manifest.parquet"
    write_boxes(manifest, made.root, RULES, box, workers=1)
    pack_images(manifest, made.root, RULES, "32x24", "face-0.30", tmp_path / "x.arrow", 1, box, 0.3)
    packed = PackedImages(tmp_path / "x.arrow")
    for row, path in enumerate(made.photographs("test")):
        one = read_new(RULES, [Framing("32x24", "face-0.30", "pad")], 0.3, False, (path.parent, path.name))
        assert isinstance(one, NewImage)
        assert np.array_equal(one.pixels[0], packed[row])


def test_importing_the_library_imports_no_torch_and_the_class_is_there() -> None:
    code = "import sys, foldvote; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "workflow/scripts"), "PATH": ""},
    )
    assert done.stdout == "False\n"
    assert Ensemble.__module__ == "foldvote.deployment.ensemble"


def test_a_region_outside_an_image_is_a_fault_of_the_image(made: DeployedRun) -> None:
    found = read_new(RULES, [Framing("32x24", "box-90-0-99-9")], 0.5, False, picture(48, 40))
    assert (found.reason, "lies outside an image of 40x48" in found.message) == ("roi", True)
