"""Inputs of a data check: look-alikes are listed, files of other images are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from foldvote.config.experiment import Config
from foldvote.errors import UserError
from foldvote.report.data_check.inputs import (
    CONFLICT,
    JOINED,
    LEAKED,
    NEAR,
    NEAR_TEST,
    DataCheckFiles,
    lookalikes,
    read_data_check_inputs,
)
from support.data_folders import put
from support.tiny_member import manifest_row


def manifest() -> pd.DataFrame:
    """Six images of three persons, the last two of one group."""
    images = {"p/0": "g1", "p/1": "g1", "p/2": "g1", "q/0": "g2", "q/1": "g2", "r/0": "g2"}
    return pd.DataFrame([manifest_row(name, group, 0, f"{name}-bytes") for name, group in images.items()])


def test_f33_f35_look_alikes_are_gathered_with_the_gravest_first() -> None:
    frame = manifest()
    frame.loc[frame["image_id"].isin(["p/0", "q/0", "q/1"]), "sha256"] = "same"  # q/0 and q/1 are of one person
    frame["label"] = (frame["image_id"] == "q/1").astype(int)
    near = {"bits": 4, "pairs": 1, "nearest": [{"distance": 3, "a": "p/1", "b": "r/0"}]}
    overlap = {
        "same_bytes": [["p/2", "t/1", "t/2"]],
        "near_duplicates": {"bits": 4, "pairs": 1, "nearest": [{"distance": 1, "a": "p/1", "b": "t/3"}]},
    }
    pairs = lookalikes(frame, {"near_duplicates": near}, overlap)
    assert pairs.to_numpy().tolist() == [
        [CONFLICT, 0, "p/0", "train", "q/1", "train"],
        [LEAKED, 0, "p/2", "train", "t/1", "test"],
        [LEAKED, 0, "p/2", "train", "t/2", "test"],
        [JOINED, 0, "p/0", "train", "q/0", "train"],
        [NEAR, 3, "p/1", "train", "r/0", "train"],
        [NEAR_TEST, 1, "p/1", "train", "t/3", "test"],
    ]
    assert lookalikes(manifest(), {"near_duplicates": near | {"nearest": []}}, None).empty


def test_facts_of_other_images_are_refused(hostile: tuple[Config, DataCheckFiles, Path], tmp_path: Path) -> None:
    _, files, _ = hostile
    with pytest.raises(UserError, match="was measured on other images"):
        read_data_check_inputs(replace(files, light={**files.light, "train": files.light["test"]}))
    other = json.loads(files.certificate.read_text()) | {"data_sha256": "0" * 64}
    with pytest.raises(UserError, match="is of other images than the manifest holds"):
        read_data_check_inputs(replace(files, certificate=put(tmp_path / "certificate.json", json.dumps(other))))
    with pytest.raises(UserError, match="run your command again with `-R leak_check`"):
        read_data_check_inputs(replace(files, leaks=put(tmp_path / "leaks.json", '{"data_sha256": "0"}')))
    stale = {"same_bytes": [["gone", "gone, too"]], "near_duplicates": {"bits": 4, "pairs": 0, "nearest": []}}
    with pytest.raises(UserError, match="names images that the manifests lack"):
        read_data_check_inputs(replace(files, overlap=put(tmp_path / "overlap.json", json.dumps(stale))))
