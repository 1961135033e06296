"""The section `bundle`: folds and views that exist, and what its target refuses by name before any job."""

import pytest

from foldvote.config.experiment import check_config
from foldvote.errors import UserError

BASE = {"data": {"layout": "maskbase"}, "data_root": "data", "models": {"a": {"net": "resnet18"}}}
DARK = {"name": "dark", "steps": [{"RandomGamma": {"gamma_limit": [80, 80], "p": 1}}]}


def test_folds_and_views_that_do_not_exist_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        check_config(BASE | {"folds": {"k": 3}, "bundle": {"folds": [0, 3], "views": ["hflip", "vflip"]}})
    assert [fault.removeprefix("config: ") for fault in caught.value.faults] == [
        "bundle.folds: there is no fold 3; the last one is 2",
        "bundle.views: there is no view 'vflip' in predict.views (identity, hflip)",
    ]


def test_parts_that_cannot_be_exported_are_refused_by_name() -> None:
    face = {"net": "resnet18", "roi": "face-0.30"}
    config = check_config(
        BASE
        | {
            "guests": {"other": {"oof": "oof.csv", "test": "test.csv"}},
            "vote": {"use": "lightgbm+offsets", "kinds": ["lightgbm+offsets"]},
            "predict": {"views": ["identity", DARK]},
            "faces": {"file": "boxes.csv"},
            "models": {"a": face},
        }
    )
    assert [fault.split(": ")[1] for fault in config.bundle_refusals()] == [
        "guests.other",
        "vote.use",
        "predict.views",
        "faces.file",
    ]
    assert check_config(BASE).bundle_refusals() == []
    left_out = {"predict": {"views": ["identity", DARK]}, "bundle": {"views": ["identity"]}}
    assert check_config(BASE | left_out).bundle_refusals() == []
