"""Weights by name in a run: none is downloaded, wherever the file lies decides nothing, its digest does."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file, save

from foldvote.commands.__main__ import main
from support.snakemake_run import CONFIG, MEMBER, planned, snakemake, write_config

NAME = "test_resnet.r160_in1k"
FILE = f"resources/weights/{NAME}.safetensors"


def test_weights_by_name_come_from_the_cache_or_the_folder_and_another_digest_trains_anew(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HF_HUB_CACHE", str(copy / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    write_config(copy, models={"tiny": CONFIG["models"]["tiny"] | {"pretrained": True, "epochs": 1}})
    member = MEMBER.format(0)

    printed = snakemake(copy, member, code=None)
    assert f"{NAME} are not on this machine; run `foldvote fetch config.yaml`, which downloads http://127" in printed
    assert "Traceback" not in printed

    content = save(timm.create_model("test_resnet", pretrained=False).state_dict())
    cached = copy / f"hub/models--timm--{NAME}/snapshots/abc/model.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    assert "nothing pins them" in snakemake(copy, member)
    about = json.loads((copy / member).with_name("model.json").read_text())
    assert about["pretrained_sha256"] == hashlib.sha256(content).hexdigest()
    assert (about["recipe"]["net"], about["recipe"]["pretrained"]) == (NAME, NAME)

    assert main(["fetch", "config.yaml"]) == 0 and (copy / FILE).read_bytes() == content
    assert planned(copy, member) == {}

    changed = bytearray(content)
    changed[-1] ^= 1
    (copy / FILE).write_bytes(changed)
    printed = snakemake(copy, "-R", member, "--", member, code=None)
    assert "has the SHA-256" in printed and "rule train" not in printed.partition("has the SHA-256")[2]
    (copy / "resources/weights.lock").unlink()
    assert main(["fetch", "config.yaml"]) == 0
    assert planned(copy, member) == {"train": 1}
    assert load_file(copy / member).keys() >= {"conv1.0.weight"}
