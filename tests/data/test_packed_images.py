"""Packed images: cropped, resized, in order, read without copies, and refused where they are not what was packed."""

import multiprocessing
import pickle
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from foldvote.config.data import Images
from foldvote.config.image_size import Framing
from foldvote.data.cropping import resize
from foldvote.data.face_detection import BOXES
from foldvote.data.packed_images import PackedImages, open_packed_images, pack_images
from foldvote.errors import UserError
from foldvote.io.files import sha256_bytes, sha256_file
from foldvote.io.parquet import read_record, write_table
from support.tiny_member import manifest_row, write_manifest

RULES = Images(min_side=4)


def data_folder(root: Path, count: int, height: int = 20, width: int = 16) -> Path:
    """So many PNG images below `root` and their manifest, whose path is returned."""
    rows = []
    for number in range(count):
        image = np.random.default_rng(number).integers(256, size=(height, width, 3), dtype=np.uint8)
        name = f"im{number * 11 % count:04d}.png"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
        rows.append(manifest_row(name, f"g{number}", 0, sha256_bytes(path.read_bytes())))
    write_manifest(pd.DataFrame(rows), root / "manifest.parquet")
    return root / "manifest.parquet"


def packed(root: Path, size: str = "20x16", roi: str = "none", workers: int = 1) -> PackedImages:
    pack_images(root / "manifest.parquet", root, RULES, size, roi, root / "p.arrow", workers)
    return PackedImages(root / "p.arrow")


def original(root: Path, image_id: str) -> np.ndarray:
    return cv2.imread(str(root / image_id))[..., ::-1]


def boxes_file(root: Path, rows: list[tuple[float | None, ...]], data_sha256: str | None = None) -> Path:
    """Boxes for the images of `data_folder`, in the manifest's order."""
    frame = pd.DataFrame(rows, columns=BOXES.names[1:], dtype=np.float32)
    frame.insert(0, "image_id", pd.read_parquet(root / "manifest.parquet")["image_id"][: len(rows)])
    record = {"data_sha256": data_sha256 or read_record(root / "manifest.parquet")["data_sha256"]}
    write_table(frame, root / "boxes.parquet", BOXES, record=record)
    return root / "boxes.parquet"


def packed_faces(
    root: Path, boxes: Path | None, roi: str = "face-0.50", least: float = 0.5, workers: int = 1
) -> PackedImages:
    pack_images(root / "manifest.parquet", root, RULES, "6x4", roi, root / "p.arrow", workers, boxes, least)
    return PackedImages(root / "p.arrow")


def test_faces_are_packed_where_they_are_sure_and_else_the_centre(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_folder(tmp_path, 4)  # 16x20, width x height
    none = (None, None, None, None, 0.0)
    boxes = boxes_file(tmp_path, [(4, 6, 8, 10, 0.9), (4, 6, 8, 10, 0.4), none, (4, 6, 8, 10, 0.5)])
    pixels = packed_faces(tmp_path, boxes)
    images = [original(tmp_path, image_id) for image_id in pixels.row_of]
    centre = (slice(0, 20), slice(2, 15))  # 20 rows have 13 columns beside them, of 16
    for row, place in enumerate([(slice(2, 14), slice(2, 10)), centre, centre, (slice(2, 14), slice(2, 10))]):
        assert np.array_equal(pixels[row], resize(images[row][place], 6, 4))
    assert pixels.record["fallbacks"] == 2 and pixels.record["boxes_sha256"] == sha256_file(boxes)
    assert "2 of 4 images have no confident face" in capsys.readouterr().err
    assert packed_faces(tmp_path, boxes, least=0.4).record["fallbacks"] == 1
    assert "fallbacks" not in packed_faces(tmp_path, boxes, roi="none").record


def test_packed_faces_are_the_same_whatever_the_workers(tmp_path: Path) -> None:
    data_folder(tmp_path, 450, height=6, width=5)
    boxes = boxes_file(tmp_path, [(1, 1, 2 + row % 3, 3, row % 2) for row in range(450)])
    packed_faces(tmp_path, boxes)
    alone = (tmp_path / "p.arrow").read_bytes()
    packed_faces(tmp_path, boxes, workers=2)
    assert (tmp_path / "p.arrow").read_bytes() == alone


def test_boxes_of_other_images_or_none_are_refused(tmp_path: Path) -> None:
    data_folder(tmp_path, 2)
    box = (4, 6, 8, 10, 0.9)
    with pytest.raises(UserError, match="needs boxes, and none were given"):
        packed_faces(tmp_path, None)
    for boxes in (boxes_file(tmp_path, [box]), boxes_file(tmp_path, [box, box], "0" * 64)):
        with pytest.raises(UserError, match=r"boxes\.parquet: holds the boxes of other images than the manifest"):
            packed_faces(tmp_path, boxes)
    assert not (tmp_path / "p.arrow").exists()


def test_packed_pixels_are_those_of_the_files_in_the_manifests_order(tmp_path: Path) -> None:
    data_folder(tmp_path, 5)
    pixels = packed(tmp_path)
    assert list(pixels.row_of) == pd.read_parquet(tmp_path / "manifest.parquet")["image_id"].tolist()
    assert pixels.shape == (20, 16, 3) and len(pixels) == 5
    for image_id, row in pixels.row_of.items():
        assert np.array_equal(pixels[row], original(tmp_path, image_id))
    assert pixels.record["size"] == "20x16" and pixels.record["roi"] == "none"
    assert len(pixels.record["data_sha256"]) == 64


def test_a_region_is_cut_before_the_resize(tmp_path: Path) -> None:
    data_folder(tmp_path, 2)
    pixels = packed(tmp_path, size="4x6", roi="box-2-4-14-12")
    image = original(tmp_path, next(iter(pixels.row_of)))
    assert np.array_equal(pixels[0], cv2.resize(image[4:12, 2:14], (6, 4), interpolation=cv2.INTER_AREA))


def test_another_fit_is_another_file_that_says_so_and_is_opened_as_such_only(tmp_path: Path) -> None:
    manifest = data_folder(tmp_path, 2)  # 16x20, width x height
    found = {}
    for fit in ("squash", "pad", "crop"):
        framing = Framing("12x12", "none", fit)
        path = tmp_path / framing.folder / "train.arrow"
        path.parent.mkdir(parents=True)
        pack_images(manifest, tmp_path, RULES, *framing[:2], path, 1, fit=fit)
        found[framing] = open_packed_images(path, framing, read_record(manifest)["data_sha256"])
        for other in {Framing("12x12", "none", name) for name in ("squash", "pad", "crop")} - {framing}:
            with pytest.raises(UserError, match=r"train\.arrow: was packed from other fit than this job expects"):
                open_packed_images(path, other, None)
    squash, pad, crop = found.values()
    image = original(tmp_path, next(iter(squash.row_of)))
    assert np.array_equal(squash[0], resize(image, 12, 12)) and set(squash.record) == {"data_sha256", "size", "roi"}
    assert np.array_equal(crop[0], resize(image[2:18], 12, 12)) and crop.record["fit"] == "crop"
    assert np.array_equal(pad[0][:, 1:11], resize(image, 12, 10)) and (pad[0][:, [0, 11]] == 128).all()
    assert [framing.folder.count("/fit=") for framing in found] == [0, 1, 1]


def test_f48_the_file_is_the_same_whatever_the_workers_and_has_many_blocks(tmp_path: Path) -> None:
    data_folder(tmp_path, 560, height=6, width=5)
    pixels = packed(tmp_path, size="3x4")
    alone = (tmp_path / "p.arrow").read_bytes()
    assert len(pixels) == 560
    for row in (0, 255, 256, 511, 512, 559):
        image_id = list(pixels.row_of)[row]
        assert np.array_equal(pixels[row], resize(original(tmp_path, image_id), 3, 4))
    packed(tmp_path, size="3x4", workers=2)
    assert (tmp_path / "p.arrow").read_bytes() == alone


def test_pixels_are_views_of_the_file_that_nobody_can_write_to(tmp_path: Path) -> None:
    data_folder(tmp_path, 2)
    view = packed(tmp_path)[1]
    assert not view.flags.owndata and not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0


def first_bytes(pixels: PackedImages) -> bytes:
    return pixels[0].tobytes()


def test_another_process_opens_the_file_for_itself(tmp_path: Path) -> None:
    data_folder(tmp_path, 3)
    pixels = packed(tmp_path)
    assert len(pickle.dumps(pixels)) < 1000
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(first_bytes, (pixels,)) == first_bytes(pixels)


def test_rows_are_found_by_id(tmp_path: Path) -> None:
    data_folder(tmp_path, 5)
    pixels = packed(tmp_path)
    ids = list(pixels.row_of)[::-1]
    assert pixels.rows(ids).tolist() == [4, 3, 2, 1, 0]
    with pytest.raises(UserError, match=r"lacks 2 images, such as x\.png; run your command again with `-R pixels`"):
        pixels.rows([*ids, "x.png", "y.png"])


@pytest.mark.parametrize("workers", [1, 2])
def test_f15_an_image_that_changed_or_went_is_named_and_no_file_left(tmp_path: Path, workers: int) -> None:
    data_folder(tmp_path, 210, height=5, width=4)
    (tmp_path / "im0009.png").write_bytes((tmp_path / "im0010.png").read_bytes())
    with pytest.raises(UserError, match=r"image im0009\.png: im0009\.png has changed since the manifest was made"):
        packed(tmp_path, workers=workers)
    (tmp_path / "im0009.png").unlink()
    with pytest.raises(UserError, match=r"image im0009\.png"):
        packed(tmp_path, workers=workers)
    assert not list(tmp_path.glob("*.arrow*")) + list(tmp_path.glob(".*"))


def test_a_region_outside_an_image_names_the_image(tmp_path: Path) -> None:
    data_folder(tmp_path, 2)
    with pytest.raises(UserError, match=r"image im000\d\.png: roi box-16-0-20-4 lies outside an image of 16x20"):
        packed(tmp_path, roi="box-16-0-20-4")


def test_f46_a_place_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    data_folder(tmp_path, 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        pack_images(tmp_path / "manifest.parquet", tmp_path, RULES, "8x8", "none", tmp_path / "file/p.arrow", 1)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing; run your command again"):
        PackedImages(tmp_path / "none.arrow")
    (tmp_path / "x.arrow").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        PackedImages(tmp_path / "x.arrow")
    with pa.OSFile(str(tmp_path / "y.arrow"), "wb") as sink:
        table = pa.table({"a": [1]})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(UserError, match="damaged"):
        PackedImages(tmp_path / "y.arrow")


@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path: Path, part: float) -> None:
    data_folder(tmp_path, 3)
    packed(tmp_path)
    content = (tmp_path / "p.arrow").read_bytes()
    (tmp_path / "cut.arrow").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UserError, match=r"cut\.arrow: damaged"):
        PackedImages(tmp_path / "cut.arrow")


def test_after_a_flipped_bit_the_file_is_refused_or_all_images_are_as_packed(tmp_path: Path) -> None:
    data_folder(tmp_path, 3, height=4, width=4)
    sound = packed(tmp_path, size="2x2")
    images = {image_id: sound[row].copy() for image_id, row in sound.row_of.items()}
    content = (tmp_path / "p.arrow").read_bytes()
    draws = np.random.default_rng(0)
    refused = 0
    for position in range(0, len(content), 2):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(draws.integers(8))
        path = tmp_path / f"damaged{position}.arrow"  # an open map must not change below its reader
        path.write_bytes(damaged)
        try:
            pixels = PackedImages(path)
            assert all(np.array_equal(pixels[row], images[image_id]) for image_id, row in pixels.row_of.items())
        except UserError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 40


def test_a_flipped_byte_names_file_and_image_and_spoils_no_other(tmp_path: Path) -> None:
    data_folder(tmp_path, 300, height=6, width=5)
    sound = packed(tmp_path, size="3x4")
    content = (tmp_path / "p.arrow").read_bytes()
    damaged = content.replace(sound[270].tobytes(), bytes(36))
    assert damaged != content
    (tmp_path / "damaged.arrow").write_bytes(damaged)
    pixels = PackedImages(tmp_path / "damaged.arrow")
    name = list(pixels.row_of)[270]
    for _ in range(2):
        with pytest.raises(UserError, match=rf"damaged\.arrow: damaged: the pixels of image {name} \(row 270\)"):
            pixels[270]
    assert all(np.array_equal(pixels[row], sound[row]) for row in range(300) if row != 270)
