"""Weights by name in a run: none is downloaded, wherever the file lies decides nothing, its digest does."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file, save

from foldvote.commands.__main__ import main
from foldvote.config.experiment import load_config
from support.data_folders import maskbase_folder, put
from support.snakemake_run import CONFIG, MEMBER, ROOT, planned, run, snakemake, write_config

NAME = "test_resnet.r160_in1k"
FILE = f"resources/weights/{NAME}.safetensors"


def test_weights_by_name_come_from_the_cache_or_the_folder_and_another_digest_trains_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    write_config(tmp_path, models={"tiny": CONFIG["models"]["tiny"] | {"pretrained": True, "epochs": 1}})
    member = MEMBER.format(0)

    printed = snakemake(tmp_path, member, code=None)
    assert f"{NAME} are not on this machine; run `foldvote fetch config.yaml`, which downloads http://127" in printed
    assert "Traceback" not in printed

    content = save(timm.create_model("test_resnet", pretrained=False).state_dict())
    cached = tmp_path / f"hub/models--timm--{NAME}/snapshots/abc/model.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    assert "nothing pins them" in snakemake(tmp_path, member)
    about = json.loads((tmp_path / member).with_name("model.json").read_text())
    assert about["pretrained_sha256"] == hashlib.sha256(content).hexdigest()
    assert (about["recipe"]["net"], about["recipe"]["pretrained"]) == (NAME, NAME)

    assert main(["fetch", "config.yaml"]) == 0 and (tmp_path / FILE).read_bytes() == content
    assert planned(tmp_path, member) == {}

    changed = bytearray(content)
    changed[-1] ^= 1
    (tmp_path / FILE).write_bytes(changed)
    printed = snakemake(tmp_path, "-R", member, "--", member, code=None)
    assert "has the SHA-256" in printed and "rule train" not in printed.partition("has the SHA-256")[2]
    (tmp_path / "resources/weights.lock").unlink()
    assert main(["fetch", "config.yaml"]) == 0
    assert planned(tmp_path, member) == {"train": 1}
    assert load_file(tmp_path / member).keys() >= {"conv1.0.weight"}


def test_the_configuration_for_a_gpu_names_what_it_needs_and_then_plans_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = str(ROOT / "config/maskbase_gpu.yaml")
    maskbase_folder(tmp_path / "data")
    dry = ["-s", str(ROOT / "Snakefile"), "--configfile", file, "--config", "data_root=data", "--cores", "1", "-n"]
    models = load_config(file, {"data_root": "data"}).models
    names = {name: model.named_weights for name, model in models.items()}

    told = run(tmp_path, *dry, code=None).splitlines()
    for name, weights in names.items():
        (line,) = [line for line in told if weights in line]
        assert line.startswith(
            f"models.{name}.pretrained: the weights {weights} are not on this machine; run `foldvote fetch "
        )
    assert len([line for line in told if "models." in line]) == 3 and "Traceback" not in told

    for weights in names.values():
        put(tmp_path / f"resources/weights/{weights}.safetensors", "which a dry run does not read")
    stats = run(tmp_path, *dry).rpartition("Job stats:")[2]
    jobs = dict(line.split() for line in stats.splitlines() if len(line.split()) == 2 and line.split()[1].isdigit())
    assert jobs["train"] == jobs["predict_member"] == "15" and jobs["submission"] == "1"
