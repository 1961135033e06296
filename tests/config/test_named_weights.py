"""Weights by name: what a recipe asks for, and where files are looked for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foldvote.config.named_weights import address, hub_cache, weights_licence, weights_name, weights_source
from foldvote.config.recipe import Recipe


@pytest.mark.parametrize(
    ("net", "pretrained", "name"),
    [
        ("resnet50", True, "resnet50.a1_in1k"),
        ("resnet50.tv_in1k", True, "resnet50.tv_in1k"),
        ("resnet50", "tv_in1k", "resnet50.tv_in1k"),
        ("resnet50", "resnet50.tv_in1k", "resnet50.tv_in1k"),
        ("resnet50.tv_in1k", "tv_in1k", "resnet50.tv_in1k"),
        ("resnet50", "weights/tv_in1k.safetensors", None),
        ("resnet50", "given", None),
        ("resnet50", None, None),
        ("resnet50.tv_in1k", None, None),
    ],
)
def test_true_and_tags_are_names_and_anything_else_is_a_file(net: str, pretrained: Any, name: str | None) -> None:
    recipe = Recipe(net=net, pretrained=pretrained)
    assert recipe.named_weights == name
    assert recipe.pretrained_file == (None if name or pretrained is None else pretrained)
    definite = recipe.definite
    assert (definite.net, definite.pretrained) == ((name, name) if name else (net, pretrained))
    assert definite.named_weights == name and Recipe.model_validate(definite.model_dump(mode="json")) == definite


def test_false_is_null() -> None:
    assert Recipe(net="resnet18", pretrained=False) == Recipe(net="resnet18")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"net": "resnet50.a1_in1", "pretrained": True}, "no weights resnet50.a1_in1; did you mean 'a1_in1k'?"),
        ({"net": "resnet50.a1_in1k", "pretrained": "tv_in1k"}, "net resnet50.a1_in1k names other weights"),
        ({"net": "resnet50", "pretrained": "resnet18.a1_in1k"}, "are the weights of another net than resnet50"),
        ({"net": "vit_tiny_patch16_18x2", "size": "64x64", "pretrained": True}, "timm has no weights of"),
        ({"net": "resnet50", "pretrained": 1}, "pretrained"),
    ],
)
def test_weights_that_no_net_has_are_told(values: dict[str, Any], told: str) -> None:
    if values["net"].startswith("vit_tiny"):
        from foldvote.config.package_names import listed

        names = listed()["timm"]
        values["net"] = min(set(names["nets"]) - set(names["weights"]) - set(names["patches"]))
    with pytest.raises(ValidationError, match=told.replace("?", r"\?")):
        Recipe.model_validate(values)


def test_weights_have_an_address_and_a_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert weights_source("fastvit_mci0.apple_mclip") == "apple/mobileclip_s0_timm"
    assert address(weights_source("gcvit_tiny.in1k")).startswith("https://github.com/")
    assert (
        address("timm/resnet50.a1_in1k")
        == "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors"
    )
    assert weights_licence("resnet50.a1_in1k") == "apache-2.0" and weights_licence("resnet50.unheard_of") == ""
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert address("timm/x", "abc", "y.bin") == "https://mirror.example/timm/x/resolve/abc/y.bin"


def test_names_need_no_list_entry_where_the_tag_is_given() -> None:
    assert weights_name("resnet50.of_a_later_timm", True) == "resnet50.of_a_later_timm"


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"HF_HOME": "~/there"},
        {"HF_HUB_CACHE": "$HOME/a"},
        {"HUGGINGFACE_HUB_CACHE": "/b"},
        {"XDG_CACHE_HOME": "/c"},
    ],
)
def test_the_cache_is_where_hugging_faces_library_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: dict[str, str]
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert hub_cache() == Path(done.stdout.strip())
