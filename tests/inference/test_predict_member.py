"""The prediction job of a member in little memory; it makes out-of-fold and test predictions and pseudo-labels."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from foldvote.config.runtime import Runtime
from foldvote.data.packed_images import PackedImages, open_packed_images
from foldvote.inference import predict_member as module
from foldvote.inference.predict_member import PartFiles, load_member, predict_member
from foldvote.io.files import sha256_file
from foldvote.io.parquet import read_record, read_table
from foldvote.runtime.device import Device
from foldvote.runtime.resources import JobResources
from foldvote.splits.folds import fold_rows, read_folds
from support.tiny_member import Tiny, make_tiny_with_tests
from support.tiny_training import train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    tiny = make_tiny_with_tests(tmp_path_factory.mktemp("tiny"))
    train(tiny, "member", {"epochs": 1})
    return tiny


def predicted(tiny: Tiny, parts: list[str], batch: int, folder: Path) -> list[str]:
    """Digests of the predictions of a batch size, of parts that one job predicts."""
    files, resources = tiny.files("member"), JobResources(0, 1, Runtime(predict_batch=batch))
    made = [
        PartFiles(
            part,
            tiny.root / "test.arrow" if part == "test" else tiny.pixels,
            folder / f"{part}-{batch}/model=tiny/fold=0/predictions.parquet",
            folder / f"{part}.json",
        )
        for part in parts
    ]
    predict_member(files.weights, files.sidecar, tiny.split, made, ["identity", "hflip"], resources)
    return [sha256_file(one.predictions) for one in made]


@pytest.mark.parametrize("part", ["oof", "test"])
def test_predictions_that_do_not_fit_are_the_bytes_of_a_smaller_predict_batch(
    tiny: Tiny, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller, normalise = predicted(tiny, [part], 4, tmp_path), Device.normalise

    def no_room(self: Device, batch: torch.Tensor, *how: Any) -> torch.Tensor:
        if len(batch) > 7:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return normalise(self, batch, *how)

    monkeypatch.setattr(Device, "normalise", no_room)
    assert predicted(tiny, [part], 16, tmp_path) == smaller


def test_a_member_teaches_the_images_that_it_was_trained_on_and_no_others(tiny: Tiny, tmp_path: Path) -> None:
    predicted(tiny, ["teach"], 16, tmp_path)
    path = tmp_path / "teach-16/model=tiny/fold=0/predictions.parquet"
    learnt, validated = fold_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0], 0)
    ids = set(read_table(path)["image_id"])
    assert ids == set(learnt["image_id"]) and not ids & set(validated["image_id"])
    record = read_record(path)
    assert (record["split"], record["fold"]) == ("teach", 0)


def test_parts_of_one_job_are_the_bytes_of_a_job_for_each_with_one_network_and_one_file_of_images_at_a_time(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ["oof", "teach", "test"]
    alone = [predicted(tiny, [part], 16, tmp_path / "alone")[0] for part in parts]
    loaded, opened = [], list[weakref.ref[PackedImages]]()

    def load(*given: Any) -> Any:
        loaded.append(given)
        return load_member(*given)

    def open_one(*given: Any) -> PackedImages:
        assert not any(images() for images in opened)
        images = open_packed_images(*given)
        opened.append(weakref.ref(images))
        return images

    monkeypatch.setattr(module, "load_member", load)
    monkeypatch.setattr(module, "open_packed_images", open_one)
    gc.disable()  # images that only the garbage collection would close are not closed in time
    try:
        assert predicted(tiny, parts, 16, tmp_path / "together") == alone
    finally:
        gc.enable()
    assert (len(loaded), len(opened)) == (1, 3)
    assert all((tmp_path / f"together/{part}.json").is_file() for part in parts)
