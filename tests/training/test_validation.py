"""Scores at the end of an epoch, and when they end a training."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foldvote.data.packed_images import PackedImages
from foldvote.evaluation.metrics import macro_f1
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.training.validation import early_stop_reason, selection_score, validate
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def test_scores_are_over_all_rows_whatever_the_batches(tiny: Tiny) -> None:
    images, model = PackedImages(tiny.pixels), build_model(recipe(), LABEL_SPACE, 1)
    ids = list(images.row_of)[::-1][:23]
    rows = pd.DataFrame({"image_id": ids, "label": np.arange(23) % 3})
    scores, predicted = validate(model, images, rows, LABEL_SPACE, CPU, 5)
    again, same = validate(model, images, rows, LABEL_SPACE, CPU, 64)
    assert predicted.tolist() == same.tolist() and scores == pytest.approx(again, rel=1e-5)
    assert set(scores) == {"val_loss", "val_macro_f1", "val_accuracy", "val_balanced_accuracy"}
    assert scores["val_macro_f1"] == macro_f1(rows["label"].to_numpy(), predicted, 3)
    assert scores["val_accuracy"] == (predicted == rows["label"]).mean()
    right, _ = validate(model, images, rows.assign(label=predicted), LABEL_SPACE, CPU, 64)
    assert right["val_accuracy"] == 1


def history(*scores: float, seconds: float = 60.0) -> list[dict]:
    return [{"val_macro_f1": score, "val_loss": -score, "seconds": seconds} for score in scores]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 5))
def test_patience_counts_the_epochs_since_the_best(scores: list[float], patience: int) -> None:
    reason = early_stop_reason(history(*scores), recipe(epochs=50, patience=patience))
    waited = len(scores) - 1 - scores.index(max(scores))
    assert bool(reason) == (waited >= patience)
    assert early_stop_reason(history(*scores), recipe(epochs=len(scores), patience=patience)) == ""


def test_minutes_end_a_training_that_another_epoch_would_overrun() -> None:
    asked = recipe(epochs=10, max_minutes=3.5)
    assert early_stop_reason([], asked) == ""
    assert early_stop_reason(history(0.1, 0.2), asked) == ""
    assert early_stop_reason(history(0.1, 0.2, 0.3), asked).startswith("3.0 minutes are spent")


def test_a_loss_is_better_when_it_is_lower() -> None:
    low, high = {"val_loss": 0.1, "val_accuracy": 0.5}, {"val_loss": 0.9, "val_accuracy": 0.9}
    assert selection_score(low, recipe(best_by="loss")) > selection_score(high, recipe(best_by="loss"))
    assert selection_score(low, recipe(best_by="accuracy")) < selection_score(high, recipe(best_by="accuracy"))
