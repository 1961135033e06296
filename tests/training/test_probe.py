"""A probe: its features are what the net's classifier gets, and its member is the net with the fitted head."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from foldvote.config.folds import Folds
from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime
from foldvote.data.manifest_table import WEIGHT
from foldvote.data.packed_images import PackedImages
from foldvote.errors import UserError
from foldvote.inference.feature_files import read_features
from foldvote.inference.features import compute_features
from foldvote.inference.predict_member import PartFiles, load_member, predict_member
from foldvote.io.parquet import read_table
from foldvote.models.factory import build_model
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import make_folds
from foldvote.training import probe
from foldvote.training.history import read_history
from foldvote.training.training_set import MemberInputs
from support.tiny_member import LABEL_SPACE, SIZE, Tiny, make_tiny, write_manifest

VIEWS: list[str | dict[str, object]] = ["identity", "hflip"]
RESOURCES = JobResources(0, 1, Runtime(predict_batch=5))


def probe_recipe(given: Path, **changes: object) -> Recipe:
    values = {"kind": "probe", "net": "test_resnet", "pretrained": str(given), "size": SIZE, **changes}
    return Recipe.model_validate(values)


def fit(tiny: Tiny, fold: int = 0) -> None:
    inputs = MemberInputs(tiny.pixels, tiny.split, tiny.root / "given.safetensors")
    recipe, features = probe_recipe(tiny.root / "given.safetensors"), tiny.root / "features.parquet"
    probe.train_probe(
        MemberSeeds(1, "tiny", fold), recipe, "code", inputs, features, tiny.files(f"member{fold}"), RESOURCES
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    given = made.root / "given.safetensors"
    save_file(build_model(probe_recipe(given), LABEL_SPACE, 5).state_dict(), given)
    compute_features(
        probe_recipe(given),
        given,
        "",
        made.pixels,
        VIEWS,
        made.root / "features.parquet",
        made.root / "features.json",
        RESOURCES,
    )
    fit(made)
    return made


def normalised(tiny: Tiny, model: torch.nn.Module) -> torch.Tensor:
    images = PackedImages(tiny.pixels)
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    batch = torch.from_numpy(np.stack([images[row] for row in range(len(images))])).permute(0, 3, 1, 2)
    return (batch / 255 - mean) / std


def test_features_are_what_the_classifier_of_the_net_gets(tiny: Tiny) -> None:
    model = build_model(probe_recipe(tiny.root / "g"), LABEL_SPACE, 0, tiny.root / "given.safetensors").eval()
    images, seen = normalised(tiny, model), []
    model.get_classifier().register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with torch.inference_mode():
        model(images)
        model(images.flip(-1))
    ids = list(PackedImages(tiny.pixels).row_of)
    for view, expected in zip(VIEWS, seen, strict=True):
        found = read_features(tiny.root / "features.parquet", ids, str(view))
        assert found.shape == expected.shape and np.allclose(found, expected.numpy(), atol=1e-5)
    some = [ids[7], ids[2]]
    assert (read_features(tiny.root / "features.parquet", some, "hflip") == found[[7, 2]]).all()


def test_the_member_is_the_given_net_with_another_head(tiny: Tiny) -> None:
    given, made = load_file(tiny.root / "given.safetensors"), load_file(tiny.files("member0").weights)
    assert {name for name in given if not torch.equal(given[name], made[name])} == {"fc.weight", "fc.bias"}
    history = read_history(tiny.files("member0").history)
    assert len(history) == 1 and history["val_loss"][0] < np.log(3)
    assert json.loads(tiny.files("member0").sidecar.read_text())["recipe"]["kind"] == "probe"


@pytest.mark.parametrize("part", ["oof", "test", "teach"])
def test_predictions_from_features_are_those_of_the_networks_own_forward_pass(
    tiny: Tiny, part: str, tmp_path: Path
) -> None:
    files, tables = tiny.files("member0"), []
    for features in (None, tiny.root / "features.parquet"):
        out, timing = tmp_path / f"{bool(features)}/model=tiny/fold=0/p.parquet", tmp_path / "t.json"
        parts = [PartFiles(part, tiny.pixels, out, timing, features)]
        predict_member(files.weights, files.sidecar, tiny.split, parts, VIEWS, RESOURCES)
        tables.append(read_table(out))
    names = [name for name in tables[0] if name.startswith("logit_")]
    pd.testing.assert_frame_equal(tables[0].drop(columns=names), tables[1].drop(columns=names))
    assert np.abs(tables[0][names].to_numpy() - tables[1][names].to_numpy()).max() < 1e-4
    assert np.ptp(tables[0][names].to_numpy()) > 0.1
    _, _, model = load_member(files.weights, files.sidecar, tiny.split)
    assert not model.get_classifier().weight.isnan().any()


def test_no_validation_image_reaches_the_fit_or_its_scaling(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folds = read_table(tiny.split.folds)
    read = probe.read_features
    before = load_file(tiny.files("member0").weights)
    held_out = set(folds.loc[folds["fold"] == 0, "image_id"])

    def other_validation(path: Path, ids: list[str], view: str) -> np.ndarray:
        features = read(path, ids, view)
        features[[image_id in held_out for image_id in ids]] = 1e6
        return features

    monkeypatch.setattr(probe, "read_features", other_validation)
    fit(tiny)
    after = load_file(tiny.files("member0").weights)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_probe_learns_by_the_weights_of_its_images(tiny: Tiny, tmp_path: Path) -> None:
    given, features, heads = tiny.root / "given.safetensors", tiny.root / "features.parquet", {}
    light = {f"person{number:02d}": 1e-6 for number in (3, 7)}
    for name, weights in {"alike": {}, "light": light}.items():
        own = Tiny(tmp_path / name)
        own.root.mkdir()
        rows = read_table(tiny.manifest)
        write_manifest(rows.assign(**{WEIGHT: rows["group"].map(weights).fillna(2.0).astype(float)}), own.manifest)
        make_folds(own.manifest, Folds(k=3), 7, own.split.folds, own.split.certificate, own.split.classes)
        inputs = MemberInputs(tiny.pixels, own.split, given)
        files = own.files("member")
        probe.train_probe(MemberSeeds(1, "tiny", 0), probe_recipe(given), "code", inputs, features, files, RESOURCES)
        heads[name] = load_file(files.weights)["fc.weight"]
    plain = load_file(tiny.files("member0").weights)["fc.weight"]
    assert torch.allclose(heads["alike"], plain, atol=1e-3)
    assert not torch.allclose(heads["light"], plain, atol=1e-2)


def test_features_of_other_weights_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file(build_model(probe_recipe(other), LABEL_SPACE, 6).state_dict(), other)
    inputs = MemberInputs(tiny.pixels, tiny.split, other)
    with pytest.raises(UserError, match="another pretrained_sha256 than this job expects"):
        probe.train_probe(
            MemberSeeds(1, "tiny", 1),
            probe_recipe(other),
            "code",
            inputs,
            tiny.root / "features.parquet",
            tiny.files("refused"),
            RESOURCES,
        )


def test_weights_that_are_not_those_that_are_pinned_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    given, out = tiny.root / "given.safetensors", tmp_path / "features.parquet"
    with pytest.raises(UserError, match="has the SHA-256"):
        compute_features(
            probe_recipe(given), given, "0" * 64, tiny.pixels, VIEWS, out, tmp_path / "features.json", RESOURCES
        )
    assert not out.exists()


def test_a_damaged_file_of_features_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    content = bytearray((tiny.root / "features.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "f.parquet").write_bytes(content)
    ids = list(PackedImages(tiny.pixels).row_of)
    with pytest.raises(UserError, match="damaged"):
        [read_features(tmp_path / "f.parquet", ids, str(view)) for view in VIEWS]


def test_a_net_without_a_linear_classifier_is_refused() -> None:
    from foldvote.inference.features import probe_head

    with pytest.raises(UserError, match="use kind: network"):
        probe_head(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)), "conv")


def test_keys_of_training_are_ignored_and_those_of_what_is_learnt_refused() -> None:
    plain = Recipe.model_validate({"kind": "probe", "net": "test_resnet", "pretrained": "w.pth"})
    base = {"epochs": 9, "augment": "light", "optimizer": "sgd", "label_smoothing": 0.1, "mix": "mixup", "ema": 0.9}
    assert Recipe.model_validate({"kind": "probe", "net": "test_resnet", "pretrained": "w.pth", **base}) == plain
    assert Recipe.model_validate_json(plain.model_dump_json()) == plain
    assert plain.label_smoothing == 0 and plain.epochs == 1
    refused = {"class_weights": "inverse", "heads": "factored", "distill": {"models": ["other"]}, "fit": "pad"}
    with pytest.raises(ValueError, match="set pretrained, such as resources/weights/tf_efficientnet_lite0") as error:
        Recipe.model_validate({"kind": "probe", "net": "test_resnet", **refused})
    assert all(f"{key}: a probe" in str(error.value) for key in refused)
