"""A bundle predicts as its run does, with four packages only, or is not written."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foldvote.config.bundle import NOT_EXPORTED, Bundle
from foldvote.config.ensemble import METHOD_NAMES, Submission
from foldvote.config.image_size import Framing
from foldvote.data.cropping import cut
from foldvote.data.image_decoding import BadImage, read_image
from foldvote.deployment import bundle
from foldvote.deployment.bundle import Source, assemble, exported_run, write_archive, write_bundle
from foldvote.deployment.bundle_files import bundled_code
from foldvote.deployment.bundle_predict import Bundle as Predictor
from foldvote.deployment.ensemble import Ensemble
from foldvote.deployment.finished_run import read_finished_run
from foldvote.deployment.vote_graph import VOTES
from foldvote.errors import UserError
from foldvote.io.files import read_json, sha256_file, write_json
from foldvote.io.parquet import read_table
from foldvote.submission.writer import write_submission
from support.data_folders import encoded, picture, put
from support.deployed_run import HOME, RULES, DeployedRun, deployed_run

TWO = {
    "joint": {},
    "heads": {"heads": {"mask": "classes", "age": "ordinal"}, "size": "32x32", "fit": "pad", "pack": 1.25},
}
# All that may be imported: the standard library, the four requirements, what these import, and the bundle itself.
_ALONE = """
import sys
allowed = {"numpy", "PIL", "cv2", "onnxruntime", "predict", "ingest", "flatbuffers", "google", "packaging"}
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed | sys.stdlib_module_names:
            raise ImportError(f"{name} is no requirement")
sys.meta_path.insert(0, Only())
sys.path.insert(0, sys.argv[1])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> DeployedRun:
    return deployed_run(tmp_path_factory.mktemp("run"), TWO, use="greedy+offsets")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> DeployedRun:
    """A run of one small model, which is exported sooner."""
    return deployed_run(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def built(run: DeployedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle; its zip lies beside it."""
    return build(run, tmp_path_factory.mktemp("built"))


def build(run: DeployedRun, where: Path, **wanted: object) -> Path:
    source = Source(run.results, run.root, Submission(id_column="id"))
    write_bundle(source, Bundle.model_validate(wanted), where / "bundle", where / "bundle.zip", 1)
    return where / "bundle"


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def alone(folder: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that can import the bundle and its requirements only."""
    command = [sys.executable, "-I", "-B", "-c", _ALONE + code, str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def predict(folder: Path, *arguments: object, code: int = 0) -> str:
    """The command line of a bundle; what it says."""
    done = alone(folder, "from predict import main\nsys.exit(main(sys.argv[2:]))", *arguments)
    assert done.returncode == code, done.stderr
    return done.stderr


def test_a_bundle_predicts_as_its_run_with_its_four_requirements_only(
    run: DeployedRun, built: Path, tmp_path: Path
) -> None:
    votes = run.results / "ensemble/test.parquet"
    put(tmp_path / "sample.csv", "id,ans,note\n" + "".join(f"{name},0,x\n" for name in read_table(votes)["image_id"]))
    out, proba = tmp_path / "submission.csv", tmp_path / "proba.csv"
    predict(built, run.root, out, "--sample", tmp_path / "sample.csv", "--proba", proba, "--batch", 5)
    expected = tmp_path / "expected.csv"
    write_submission(votes, built / "classes.json", tmp_path / "sample.csv", expected, id_column="id")
    assert out.read_bytes() == expected.read_bytes()
    assert len({row["ans"] for row in csv.DictReader(out.open())}) > 1
    table, rows = read_table(votes), list(csv.DictReader(proba.open()))
    own = np.array([[float(row[f"p_{name}"]) for name in HOME.classes] for row in rows])
    assert np.abs(own - table[[f"p_{name}" for name in HOME.classes]].to_numpy()).max() < 1e-4
    assert [row["prediction_name"] for row in rows] == table["prediction_name"].tolist()
    assert all(row["prediction_name"] in row["set"].split("|") for row in rows)
    facts = read_json(built / "certificate.json")["parity"]
    assert {part: found["classes_that_differ"] for part, found in facts.items()} == {
        "oof": 0,
        "test": 0,
        "test.parquet": 0,
    }
    assert all(0 < found["largest_difference"] < 1e-4 for found in facts.values())


def test_the_code_of_a_bundle_is_the_librarys_own() -> None:
    code = bundled_code()
    assert not any("from foldvote" in text or "import foldvote" in text for text in code.values())
    assert "from ingest.image_decoding import BadImage, accepted_array, decode, read_image" in code["predict.py"]


HOSTILE = {
    "truncated.jpg": encoded(picture(), "JPEG")[:-300],
    "text.png": b"no image at all, whatever its name says",
    "bitmap.png": encoded(picture(), "BMP"),
    "empty.jpg": b"",
    "cmyk.jpg": encoded(Image.fromarray(picture(60, 50)).convert("CMYK"), "JPEG"),
    "turned.jpg": encoded(
        Image.fromarray(picture(60, 50)),
        "JPEG",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    ),
    "clear.png": encoded(Image.fromarray(picture(60, 50)).quantize(16), "PNG", transparency=3),
    "grey.webp": encoded(Image.fromarray(picture(60, 50)).convert("L"), "WEBP"),
}


def test_hostile_images_are_read_as_the_library_reads_them(built: Path, tmp_path: Path) -> None:
    for name, data in HOSTILE.items():
        put(tmp_path / name, data)
    graphs = read_json(built / "settings.json")["graphs"]
    framings = [Framing("32x24", "none"), Framing("40x40", "none", "pad")]
    assert [one["file"] for one in graphs] == ["32x24-none.onnx", "40x40-none-pad.onnx", "vote.onnx"]
    expected: dict[str, list[str]] = {}
    for name in HOSTILE:
        try:
            pixels = read_image(tmp_path, name, RULES)[1].pixels
        except BadImage as bad:
            expected[name] = [bad.reason, bad.message]
        else:
            expected[name] = [sha256(cut(pixels, framing, None).tobytes()).hexdigest() for framing in framings]
    code = """
import json
from hashlib import sha256
from predict import Bundle
bundle, names = Bundle(sys.argv[1]), sys.argv[3:]
seen, bad = bundle._read([(sys.argv[2], name) for name in names], 0)
found = {names[row]: [sha256(array.tobytes()).hexdigest() for array in arrays] for row, arrays in seen.items()}
print(json.dumps(found | {names[row]: [one.reason, one.message] for row, one in bad.items()}))
"""
    done = alone(built, code, tmp_path, *HOSTILE)
    assert json.loads(done.stdout) == expected, done.stderr
    assert {name for name, found in expected.items() if len(found[0]) < 20} == {
        *("truncated.jpg", "text.png", "bitmap.png", "empty.jpg")
    }


def test_bad_images_stop_the_command_in_a_line_each_or_keep_the_cells_of_the_sample(
    built: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "out.csv"
    for name in ("clear.png", "cmyk.jpg", "empty.jpg", "text.png"):
        put(images / name, HOSTILE[name])
    said = predict(built, images, out, code=1).splitlines()
    assert [line.split(":")[1].strip() for line in said] == ["empty.jpg", "text.png"]
    assert not out.exists()
    said = predict(built, images, out, "--bad", "skip")
    assert said.count("left out") == 2
    assert [row["id"] for row in csv.DictReader(out.open())] == ["clear.png", "cmyk.jpg"]
    sample = put(tmp_path / "sample.csv", "id,ans\ntext,2\ncmyk,0\n")
    predict(built, images, out, "--sample", sample, "--bad", "skip")
    rows = [(row["id"], row["ans"]) for row in csv.DictReader(out.open())]
    assert rows == [("text", "2"), ("cmyk", rows[1][1])]
    table = put(tmp_path / "table.csv", "path,note\ncmyk.jpg,a\nclear.png,b\n")
    predict(built, table, out, "--root", images)
    assert [row["id"] for row in csv.DictReader(out.open())] == ["cmyk.jpg", "clear.png"]
    for arguments, said in (
        ([tmp_path / "nothing", out], "is neither a folder nor a .csv table"),
        ([images, tmp_path / "absent/out.csv"], "absent/out.csv: its folder is not there; make it"),
        ([images, out, "--sample", put(tmp_path / "s.csv", "id,ans\nother.png,0\n")], "1 images are not in"),
        ([images, out, "--sample", put(tmp_path / "t.csv", "name\nx\n")], "the column 'id' is missing"),
    ):
        (line,) = predict(built, *arguments, code=1).splitlines()
        assert said in line


def test_from_python_a_bundle_answers_as_the_ensemble_does(run: DeployedRun, built: Path) -> None:
    own, other = Predictor(built, threads=1, batch=7), Ensemble.load(run.results, device="cpu", threads=1)
    files = run.photographs("test")
    assert own.predict(files).tolist() == other.predict(files).tolist()
    assert np.abs(own.predict_proba(files) - other.predict_proba(files)).max() < 1e-4
    arrays = [picture(60, 50, seed) for seed in range(3)]
    assert np.abs(own.votes(arrays)[0] - other.votes(arrays)[0]).max() < 1e-4
    assert own.classes_.tolist() == other.classes_.tolist()
    with pytest.raises(UserError, match=r"images: is one image; give a list"):
        own.predict(str(files[0]))
    with pytest.raises(UserError, match=r"images\[0\]: is an array of float64"):
        own.predict([np.zeros((20, 20, 3))])
    assert own.votes([])[0].shape == (0, len(HOME.classes))


def test_a_bundle_of_some_folds_and_views_is_compared_with_these(one: DeployedRun, tmp_path: Path) -> None:
    folder = build(one, tmp_path, folds=[1], views=["identity"])
    facts = read_json(folder / "certificate.json")
    assert set(facts["parity"]) == {"oof", "test"}  # the run's own table is of all folds and views
    assert list(facts["members"]["small"]) == ["1"]
    assert "was not scored" in (folder / "README.md").read_text()


def test_a_bundle_that_predicts_otherwise_is_not_written(
    one: DeployedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = bundle.write_graphs

    def wrong(exported, *arguments):
        return right(replace(exported, scaling={"method": "temperature", "temperature": 0.9}), *arguments)

    monkeypatch.setattr(bundle, "write_graphs", wrong)
    with pytest.raises(UserError, match=r"predicts otherwise than the run's networks.*the worst image is train/p"):
        build(one, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_changed_afterwards_is_refused(built: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(built, tmp_path / "copy"))
    (copy / "classes.json").write_text((copy / "classes.json").read_text() + " ")
    (copy / "vote.onnx").unlink()
    with pytest.raises(UserError) as caught:
        Predictor(copy)
    assert sorted(caught.value.faults) == [
        f"{copy}/classes.json: is not the file that the bundle was written with; copy the bundle again",
        f"{copy}/vote.onnx: is missing; copy the bundle again",
    ]


def test_equal_bundles_are_equal_archives(one: DeployedRun, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assemble(read_finished_run(one.results), Submission(), tmp_path / name, Bundle())
        write_archive(tmp_path / name, tmp_path / f"{name}.zip")
    assert sha256_file(tmp_path / "first.zip") == sha256_file(tmp_path / "second.zip")
    shutil.unpack_archive(tmp_path / "first.zip", tmp_path / "unpacked")
    first, unpacked = tmp_path / "first", tmp_path / "unpacked"
    found = {path.relative_to(first): path.read_bytes() for path in files_of(first)}
    assert found == {path.relative_to(unpacked): path.read_bytes() for path in files_of(unpacked)}


def test_what_cannot_be_exported_is_named_before_anything_is_written(
    run: DeployedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Path(shutil.copytree(run.results, tmp_path / "results"))
    seen, fitted = results / "ensemble/prediction.json", results / "ensemble/weights.json"
    steps = {"name": "dark", "steps": [{"RandomGamma": {"gamma_limit": [80, 80], "p": 1}}]}
    write_json(seen, read_json(seen) | {"views": ["hflip", "identity", steps]})
    names = {"kind": "lightgbm", "candidates": read_json(fitted)["candidates"]}
    write_json(fitted, names | {"calibration": read_json(fitted)["calibration"]})
    with pytest.raises(UserError) as caught:
        exported_run(results, Bundle())
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["vote", "predict.views"]
    assert "lightgbm" in caught.value.faults[0] and "dark" in caught.value.faults[1]


def test_every_method_that_the_configuration_does_not_refuse_has_a_graph() -> None:
    assert set(METHOD_NAMES) - set(VOTES) == set(NOT_EXPORTED)


def test_the_loss_of_a_lower_precision_is_measured_on_unseen_images(one: DeployedRun, tmp_path: Path) -> None:
    folder = build(one, tmp_path, precision="int8")
    loss = read_json(folder / "certificate.json")["precision"]
    assert loss["networks"] == "int8"
    assert loss["scored_on"] == "single members, out of fold"
    assert loss["images"] == 36  # every training image, predicted by the member that did not see it
    # In fp32 these are the out-of-fold predictions of the run.
    scored = read_json(one.results / "ensemble/metrics.json")["oof"]["ensemble"]["macro_f1"]
    assert loss["macro_f1_fp32"] == pytest.approx(scored)
    assert loss["difference"] == pytest.approx(loss["macro_f1"] - loss["macro_f1_fp32"])
    assert loss["low"] <= loss["difference"] <= loss["high"]
    assert "The networks are in int8" in (folder / "README.md").read_text()
    parity = read_json(folder / "certificate.json")["parity"]["test"]
    assert parity["largest_difference"] > 1e-6
