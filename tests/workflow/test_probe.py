"""A probe as the model of a run, and the leak check on the same features."""

import json
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.models.factory import build_model
from support.snakemake_run import CONFIG, jobs_that_ran, planned, snakemake, write_config

TINY = CONFIG["models"]["tiny"] | {"epochs": 1, "warmup_epochs": 0}


def test_a_probe_is_a_model_like_any_other_and_the_leak_check_uses_its_features(tmp_path: Path) -> None:
    write_config(tmp_path, models={"tiny": TINY})
    refused = snakemake(tmp_path, "leak_check", code=1)
    assert "leak_check needs a model with pretrained weights" in refused
    assert "resources/weights/tf_efficientnet_lite0.safetensors" in refused

    given = Recipe(net="test_resnet", size="32x24")
    save_file(build_model(given, LabelSpace(("a", "b")), 5).state_dict(), tmp_path / "given.safetensors")
    probe = TINY | {"kind": "probe", "pretrained": "given.safetensors"}
    changes = {"leak_check": {"columns": ["gender"]}, "predict": {"views": ["identity", "hflip"]}}
    write_config(tmp_path, models={"probe": probe}, **changes)
    printed = snakemake(tmp_path, "all", "leak_check")
    ran, ours = jobs_that_ran(printed), ("features", "probe", "oof", "tta", "leak_check")
    assert "train" not in ran
    assert {name: ran[name] for name in ours} == {"features": 2, "probe": 2, "oof": 2, "tta": 2, "leak_check": 1}
    assert "probe" in set(pd.read_csv(tmp_path / "results/leaderboard.csv")["model"].dropna())
    found = json.loads((tmp_path / "results/leak_check.json").read_text())
    assert set(found["splits"]) == {"group", "image", "gender"} and found["images"] == 84 and found["groups"] == 12
    assert found["train_against_test"]["images"] == 14
    assert all(line in printed for line in found["told"])

    # What a probe ignores changes nothing, and a network beside it is trained by its own rule.
    write_config(tmp_path, models={"tiny": TINY, "probe": probe | {"epochs": 7, "augment": "heavy"}}, **changes)
    plan = planned(tmp_path, "all", "leak_check")
    assert (plan["train"], plan["oof"], plan["tta"]) == (2, 2, 2)
    assert not {"features", "probe", "leak_check"} & set(plan)
