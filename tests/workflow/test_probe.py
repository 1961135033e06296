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

    given = tmp_path / "resources/weights/test_resnet.r160_in1k.safetensors"
    given.parent.mkdir(parents=True)
    save_file(build_model(Recipe(net="test_resnet", size="32x24"), LabelSpace(("a", "b")), 5).state_dict(), given)
    probe = TINY | {"kind": "probe", "pretrained": True}
    changes = {"leak_check": {"columns": ["gender"]}, "predict": {"views": ["identity", "hflip"]}}
    write_config(tmp_path, models={"probe": probe}, **changes)
    printed = snakemake(tmp_path, "all", "data_check")
    ran, ours = jobs_that_ran(printed), ("features", "probe", "predict_member", "leak_check")
    assert "train" not in ran
    assert {name: ran[name] for name in ours} == {"features": 2, "probe": 2, "predict_member": 2, "leak_check": 1}
    assert "probe" in set(pd.read_csv(tmp_path / "results/leaderboard.csv")["model"].dropna())
    found = json.loads((tmp_path / "results/leak_check.json").read_text())
    assert set(found["splits"]) == {"group", "image", "gender"} and found["images"] == 84 and found["groups"] == 11
    assert found["train_against_test"]["images"] == 14
    page = (tmp_path / "results/data_check.html").read_text()
    assert all(line["text"] in printed and f"Leak check: {line['text']}." in page for line in found["told"])

    # What a probe ignores changes nothing, and a network beside it is trained by its own rule. The same weights by the
    # name of their file are others to Snakemake, and so are their features.
    same, by_file = probe | {"epochs": 7, "augment": "heavy"}, probe | {"pretrained": str(given.relative_to(tmp_path))}
    write_config(tmp_path, models={"tiny": TINY, "probe": same, "second": by_file}, **changes)
    plan = planned(tmp_path, "all", "data_check")
    assert "leak_check" not in plan
    assert {name: plan[name] for name in ("train", *ours[:3])} == {"train": 2} | {
        "features": 2,
        "probe": 2,
        "predict_member": 4,
    }
