"""The prediction job of a member in little memory; it makes out-of-fold and test predictions and pseudo-labels."""

from pathlib import Path
from typing import Any

import pytest
import torch

from foldvote.config.runtime import Runtime
from foldvote.inference.predict_member import predict_member
from foldvote.io.files import sha256_file
from foldvote.io.parquet import read_record, read_table
from foldvote.runtime.device import Device
from foldvote.runtime.resources import JobResources
from foldvote.splits.folds import fold_rows, read_folds
from support.tiny_member import Tiny, make_tiny
from support.tiny_training import train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    tiny = make_tiny(tmp_path_factory.mktemp("tiny"))
    train(tiny, "member", {"epochs": 1})
    return tiny


def predicted(tiny: Tiny, part: str, batch: int, folder: Path) -> str:
    """Digest of the predictions of a batch size."""
    files, out = tiny.files("member"), folder / f"{part}-{batch}/model=tiny/fold=0/predictions.parquet"
    resources = JobResources(0, 1, Runtime(predict_batch=batch))
    views: list[str | dict[str, object]] = ["identity", "hflip"]
    predict_member(
        files.weights, files.sidecar, tiny.pixels, tiny.split, part, views, out, folder / "t.json", resources
    )
    return sha256_file(out)


@pytest.mark.parametrize("part", ["oof", "test"])
def test_predictions_that_do_not_fit_are_the_bytes_of_a_smaller_predict_batch(
    tiny: Tiny, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller, normalise = predicted(tiny, part, 4, tmp_path), Device.normalise

    def no_room(self: Device, batch: torch.Tensor, *how: Any) -> torch.Tensor:
        if len(batch) > 7:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return normalise(self, batch, *how)

    monkeypatch.setattr(Device, "normalise", no_room)
    assert predicted(tiny, part, 16, tmp_path) == smaller


def test_a_member_teaches_the_images_that_it_was_trained_on_and_no_others(tiny: Tiny, tmp_path: Path) -> None:
    predicted(tiny, "teach", 16, tmp_path)
    path = tmp_path / "teach-16/model=tiny/fold=0/predictions.parquet"
    learnt, validated = fold_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0], 0)
    ids = set(read_table(path)["image_id"])
    assert ids == set(learnt["image_id"]) and not ids & set(validated["image_id"])
    record = read_record(path)
    assert (record["split"], record["fold"]) == ("teach", 0)
