"""Metadata beside the images: what a member learns from it, of which images, and how it predicts with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from foldvote.config.runtime import Runtime
from foldvote.inference.predict_member import PartFiles, predict_member
from foldvote.io.files import read_json
from foldvote.io.parquet import read_record, read_table
from foldvote.models.factory import build_model, head_parameters, metadata_width
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import fold_rows, read_folds
from foldvote.training.dataloader import Batch
from foldvote.training.first_round import PseudoInputs
from foldvote.training.state import MemberSpec, build_spec
from foldvote.training.training_set import MemberInputs, build_training_set
from support.tiny_member import (
    LABEL_SPACE,
    Tiny,
    make_tiny,
    make_tiny_with_tests,
    recipe,
    with_metadata,
    write_manifest,
)
from support.tiny_training import teach, train

UNLIKE = [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 2, 1]  # labels that the pictures do not show
SEEN = {"metadata": True, "epoch": "last", "epochs": 1, "augment": "none"}
LEARNS = SEEN | {"epochs": 8, "head_lr_factor": 20.0}


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    made = make_tiny(tmp_path, told=UNLIKE)
    write_manifest(with_metadata(read_table(made.manifest)), made.manifest)
    return made


def spec_of(tiny: Tiny, **changes: object) -> MemberSpec:
    inputs = MemberInputs(tiny.pixels, tiny.split, metadata=(tiny.manifest,))
    return build_spec(MemberSeeds(1, "tiny", 0), recipe(**changes), "code", inputs)


def validated(tiny: Tiny) -> np.ndarray:
    """Which rows of the manifest are validation images of the first fold."""
    scored = fold_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0], 0)[1]
    return read_table(tiny.manifest)["image_id"].isin(scored["image_id"]).to_numpy()


def predicted(tiny: Tiny, name: str, part: str = "oof") -> pd.DataFrame:
    files, out = tiny.files(name), tiny.root / f"{name}-{part}/model=tiny/fold=0/predictions.parquet"
    resources = JobResources(0, 1, Runtime(predict_batch=5))
    views: list[str | dict[str, object]] = ["identity", "hflip"]
    parts = [PartFiles(part, tiny.pixels, out, tiny.root / "t.json", manifest=tiny.manifest)]
    predict_member(files.weights, files.sidecar, tiny.split, parts, views, resources)
    return read_table(out)


def test_a_network_learns_what_only_the_metadata_tells(tiny: Tiny) -> None:
    train(tiny, "with", LEARNS)
    rows = predicted(tiny, "with")
    right = rows.filter(like="logit_").to_numpy().argmax(axis=1) == rows["label"]
    assert right.mean() > 0.9 and read_json(tiny.files("with").sidecar)["val_accuracy"] > 0.9
    train(tiny, "without", LEARNS | {"metadata": None})
    assert read_json(tiny.files("without").sidecar)["val_accuracy"] < 0.6


def test_nothing_is_fitted_on_validation_images(tiny: Tiny) -> None:
    """Other metadata of these images leaves the network as it is to the byte, and changes what it predicts of them."""
    digest, before = train(tiny, "one", SEEN), predicted(tiny, "one")
    rows, held_out = read_table(tiny.manifest), validated(tiny)
    rows.loc[held_out, "meta_age"], rows.loc[held_out, "meta_site"] = 1e6, "a level of theirs"
    write_manifest(rows, tiny.manifest)
    assert train(tiny, "other", SEEN) == digest
    columns = read_json(tiny.files("other").sidecar)["metadata"]["columns"]
    ages = rows.loc[~held_out, "meta_age"]
    assert columns[0] == {"name": "age", "mean": pytest.approx(ages.mean()), "scale": pytest.approx(ages.std(ddof=0))}
    assert columns[1] == {"name": "site", "levels": [f"site of {name}" for name in LABEL_SPACE.classes]}
    after = predicted(tiny, "other")
    assert (before["image_id"] == after["image_id"]).all()
    assert not np.allclose(before.filter(like="logit_"), after.filter(like="logit_"))
    rows.loc[~held_out, "meta_age"] += 1.5 * np.arange((~held_out).sum())
    write_manifest(rows, tiny.manifest)
    assert train(tiny, "learnt", SEEN) != digest


def test_a_batch_carries_metadata_some_of_it_hidden_before_its_weighted_targets(tiny: Tiny) -> None:
    spec = spec_of(tiny, metadata={"columns": ["site"], "dropped": 0.3})
    chosen = spec.training_set
    assert chosen.metadata is not None
    assert chosen.metadata.encoding.width == 4
    spec = replace(spec, training_set=replace(chosen, weights=np.full(len(chosen.training), 2.0, np.float32)))
    data, everything = spec.augmented_images, np.arange(len(chosen.training))
    codes, sites = chosen.training["label"].to_numpy(), []
    for epoch in range(20):
        _, targets, _ = data[Batch(epoch, 0, everything)]
        np.testing.assert_array_equal(targets[:, 4:], 2 * np.eye(3)[codes])
        sites.append(targets[:, :4].argmax(dim=1).numpy())
        assert torch.equal(data[Batch(epoch, 0, everything)][1], targets)
    told = np.stack(sites)
    assert ((told == codes) | (told == 3)).all()
    hidden = (told == 3).mean(axis=0)
    assert hidden.mean() == pytest.approx(0.3, abs=0.05) and (hidden < 1).all() and (hidden > 0).sum() > 30


def test_students_and_pseudo_labels_carry_metadata_of_their_images(tmp_path: Path) -> None:
    tiny = make_tiny_with_tests(tmp_path)
    write_manifest(with_metadata(read_table(tiny.manifest)), tiny.manifest)
    tests = read_table(tmp_path / "test.parquet").assign(meta_age=1.0, meta_site="site of red")
    write_manifest(tests, tmp_path / "test.parquet")
    train(tiny, "first", {"epochs": 1, "metadata": True})
    teach(tiny, "first")
    files, out = tiny.files("first"), tmp_path / "test/model=tiny/fold=0/predictions.parquet"
    parts = [PartFiles("test", tmp_path / "test.arrow", out, tmp_path / "t.json", manifest=tmp_path / "test.parquet")]
    predict_member(files.weights, files.sidecar, tiny.split, parts, ["identity"], JobResources(0, 1, Runtime()))
    assert read_record(out)["split"] == "test"
    changes = {"metadata": ["site"], "distill": {"models": ["tiny"], "test_images": True}}
    inputs = MemberInputs(
        *(tiny.pixels, tiny.split),
        pseudo=PseudoInputs(tmp_path / "test.arrow", (out,)),
        teachers=(tiny.taught,),
        metadata=(tiny.manifest, tmp_path / "test.parquet"),
    )
    chosen = build_training_set(recipe(**changes), 0, inputs)
    spec = MemberSpec(MemberSeeds(1, "tiny", 0), recipe(**changes), inputs, chosen)
    places = np.arange(len(chosen.training) - 8, len(chosen.training))
    _, targets, _ = spec.augmented_images[Batch(3, 0, places)]
    assert targets.shape == (8, 4 + 3 + 3)
    assert set(targets[:, :4].argmax(dim=1).tolist()) <= {2, 3}  # red, or hidden
    np.testing.assert_allclose(targets[:, 4:7].sum(dim=1), 1, rtol=1e-5)
    assert build_training_set(recipe(**changes), 0, inputs).origin == chosen.origin
    write_manifest(tests.assign(meta_site="site of blue"), tmp_path / "test.parquet")
    assert build_training_set(recipe(**changes), 0, inputs).origin["metadata"] != chosen.origin["metadata"]


def test_a_network_without_metadata_is_given_none_and_one_with_it_needs_its_encoding() -> None:
    model = build_model(recipe(), LABEL_SPACE, 0)
    assert metadata_width(model) == 0
    with pytest.raises(ValueError, match="belongs to a recipe that has metadata"):
        build_model(recipe(metadata=True), LABEL_SPACE, 0)


def test_metadata_reaches_the_logits_through_its_head_alone(tiny: Tiny) -> None:
    chosen = spec_of(tiny, metadata=True).training_set
    assert chosen.metadata is not None
    encoding = chosen.metadata.encoding
    model = build_model(recipe(metadata=True), LABEL_SPACE, 0, metadata=encoding).eval()
    images, beside = torch.randn(3, 3, 32, 24), torch.from_numpy(chosen.metadata.rows[:3])
    assert metadata_width(model) == encoding.width == 6
    alone, missing = model(images), torch.from_numpy(encoding.missing).expand(3, -1)
    assert torch.equal(alone, model(images, missing)) and not torch.equal(alone, model(images, beside))
    assert torch.equal(alone, model(images))  # nothing is left of the call before
    assert {name for name in head_parameters(model) if "embed" in name}
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(images, beside), model(images, beside))
    torch.testing.assert_close(compiled(images), alone)
