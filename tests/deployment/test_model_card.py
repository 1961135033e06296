"""The licence of weights: known, taken from timm by the name of the file, or unknown."""

from types import SimpleNamespace

import pytest

from foldvote.config.recipe import Recipe
from foldvote.deployment.weights_licence import UNKNOWN, licence_of


@pytest.mark.parametrize(
    ("pretrained", "licence"),
    [
        (None, "none: trained from scratch"),
        ("resources/weights/tf_efficientnet_lite0.safetensors", "Apache-2.0"),
        ("mine/resnet18.a1_in1k.safetensors", "apache-2.0 (by timm, for resnet18.a1_in1k)"),
        ("mine/resnet18.fb_ssl_yfcc100m_ft_in1k.safetensors", "cc-by-nc-4.0"),
        ("mine/model.safetensors", UNKNOWN),
    ],
)
def test_a_licence_is_named_where_it_is_known(pretrained: str | None, licence: str) -> None:
    run = SimpleNamespace(recipes={"m": Recipe.model_validate({"net": "resnet18", "pretrained": pretrained})})
    assert licence_of(run, "m").startswith(licence)
