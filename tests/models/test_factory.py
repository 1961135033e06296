"""Networks: made, drawn, pretrained."""

import os
from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from foldvote.config.timm_names import net_names
from foldvote.config.timm_names import patch_stride as listed_stride
from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.errors import UserError
from foldvote.models.factory import build_model, head_inputs, head_modules, patch_stride
from foldvote.models.pretrained import extract_lite
from support.tiny_member import LABEL_SPACE, recipe

NET = "tf_efficientnet_lite0"


def classes(count: int) -> LabelSpace:
    return LabelSpace(tuple(f"class{number}" for number in range(count)))


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    extract_lite(NET, path)
    return path


def test_the_configuration_knows_all_nets_of_timm() -> None:
    assert set(timm.list_models()) <= net_names()


def test_equal_seeds_draw_equal_weights() -> None:
    first, again, other = (build_model(recipe(), LABEL_SPACE, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize(("net", "size"), [("test_vit", "48x32"), ("test_resnet", "48x32"), ("test_vit", "32x64")])
def test_nets_of_fixed_and_free_input_size_take_the_recipes_size(net: str, size: str) -> None:
    model = build_model(recipe(net=net, size=size), classes(7), 1)
    height, width = map(int, size.split("x"))
    logits = model(torch.zeros(2, 3, height, width))
    assert logits.shape == (2, 7) and model.training and logits.requires_grad


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"net": "xcit_nano_12_p16_224", "size": "50x32"}, r"xcit_nano_12_p16_224: cannot be made .*50x32 \(.*evenly"),
        ({"net": "resnet18.no_such_tag"}, r"resnet18\.no_such_tag: cannot be made .*no_such_tag"),
    ],
)
def test_a_net_that_cannot_be_made_is_refused_before_any_data(changes: dict, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        build_model(recipe(**changes), LABEL_SPACE, 1)
    assert "correct the recipe's net or size" in str(error.value) and "\n" not in str(error.value)


def test_the_try_on_a_black_image_leaves_no_trace() -> None:
    torch.manual_seed(1)
    plain = timm.create_model("test_resnet", pretrained=False, num_classes=3, drop_rate=0.1).state_dict()
    tried = build_model(recipe(), LABEL_SPACE, 1).state_dict()
    assert all(torch.equal(plain[name], tried[name]) for name in plain)


def test_f46_missing_weights_are_refused_without_asking_the_network(tmp_path: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError) as error:
            build_model(recipe(net="resnet18"), LABEL_SPACE, 1, path)
        assert error.value.faults == (
            f"{path}: no such weights file; correct the recipe's `pretrained`, or set it to null",
        )


def test_the_classifier_of_a_weights_file_is_not_used(tmp_path: Path) -> None:
    trained = build_model(recipe(), classes(5), 99)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = build_model(recipe(), LABEL_SPACE, 1, tmp_path / "w.safetensors")
    first = next(iter(trained.state_dict()))
    assert torch.equal(model.state_dict()[first], trained.state_dict()[first])
    assert torch.equal(model.state_dict()["fc.weight"], build_model(recipe(), LABEL_SPACE, 1).state_dict()["fc.weight"])


def test_a_task_of_as_many_classes_as_the_file_has_a_classifier_of_its_own(tmp_path: Path) -> None:
    trained, thousand = build_model(recipe(), classes(1000), 99), classes(1000)
    assert trained.pretrained_cfg["num_classes"] == 1000
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = build_model(recipe(), thousand, 1, tmp_path / "w.safetensors")
    assert torch.equal(model.fc.weight, build_model(recipe(), thousand, 1).fc.weight)
    assert not torch.equal(model.fc.weight, trained.fc.weight)
    assert torch.equal(model.conv1[0].weight, trained.conv1[0].weight)


@pytest.mark.parametrize("net", ["test_resnet", "test_vit", "levit_128s", "mobilenetv3_small_050", "test_mambaout"])
def test_logits_are_float32_whatever_the_precision(net: str) -> None:
    model = build_model(recipe(net=net, size="32x32", drop_rate=0.0), classes(18), 1).eval()
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images)
        plain = model(images)
        for head in head_modules(model):
            for layer in head.modules():
                assert type(layer) not in (torch.nn.Linear, torch.nn.Conv2d)
    assert logits.dtype == torch.float32
    assert logits.unique().numel() >= 1140  # of 1,152; 718 were distinct where the classifier computed in bfloat16
    torch.testing.assert_close(logits, plain, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("net", "heads"),
    [(net, "joint") for net in ("test_resnet", "test_vit", "levit_128s", "test_mambaout")]
    + [(net, "factored") for net in ("test_resnet", "test_vit", "tf_efficientnet_lite0")],
)
def test_the_features_before_the_head_are_those_of_the_last_pass(net: str, heads: str) -> None:
    space = factor_label_space({"hue": ("red", "blue"), "size": ("small", "large")})
    model = build_model(recipe(net=net, size="32x32", drop_rate=0.0, heads=heads), space, 1).eval()
    features = head_inputs(model)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model(images + 1)
    logits = model(images)
    with torch.no_grad():
        found = features()
        assert found.shape[0] == 4 and found.ndim == 2
        if net != "levit_128s":  # two heads, whose mean it gives
            torch.testing.assert_close(head_modules(model)[0](found), logits)
        model(images)
    assert found.requires_grad
    with pytest.raises(IndexError):
        features()


def test_a_net_without_a_classifier_has_no_features_for_a_loss() -> None:
    with pytest.raises(UserError, match="Identity: this net has no classifier of its own; drop sup_con"):
        head_inputs(torch.nn.Identity())


def blind(model: torch.nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """How many rows and columns of an image do not reach the output: those without a gradient."""
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if not parameter.any():  # a branch that begins at zero
            parameter.data = torch.randn(parameter.shape, generator=draw) / 10
    images = torch.randn(1, 3, *size, generator=draw).requires_grad_()
    model.eval()(images).square().sum().backward()
    assert images.grad is not None
    reached = images.grad[0].abs().sum(dim=0)
    return int((reached.sum(dim=1) == 0).sum()), int((reached.sum(dim=0) == 0).sum())


@pytest.mark.parametrize(
    ("net", "stride"),
    [
        ("test_vit_relpos", 16),
        ("test_convnext", 4),
        ("swin_tiny_patch4_window7_224", 4),
        ("mixer_s32_224", 32),
        ("pit_ti_224", 8),
        ("tnt_s_legacy_patch16_224", 16),
        ("inception_next_atto", 4),
        ("test_resnet", 1),
        ("test_efficientnet", 1),
    ],
)
def test_a_net_sees_all_of_an_image_whose_size_its_patches_divide(net: str, stride: int) -> None:
    options = {"img_size": (70, 97)} if timm.get_pretrained_cfg(net).fixed_input_size else {}
    odd = timm.create_model(net, num_classes=3, **options)
    assert patch_stride(odd) == listed_stride(net) == stride
    assert blind(odd, (70, 97)) == ((70 % stride, 97 % stride) if stride > 1 else (0, 0))


@pytest.mark.parametrize(
    ("net", "size", "told"),
    [
        ("vit_tiny_patch16_224", "40x40", "would see only 32x32 of it; set 32x32 or 48x48"),
        ("vit_small_patch14_dinov2", "128x96", "would see only 126x84 of it; set 126x84 or 140x98"),
        ("test_vit", "8x33", "would see only 0x32 of it; set 16x48"),
    ],
)
def test_a_size_that_a_net_cannot_tile_is_refused_with_those_that_fit(
    net: str, size: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match=told):
        recipe(net=net, size=size)
    monkeypatch.setattr("foldvote.config.recipe.patch_stride", lambda _net: 1)  # a net of another version of timm
    with pytest.raises(UserError, match=told):
        build_model(recipe(net=net, size=size), LABEL_SPACE, 1)


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model", "module."])
def test_weights_in_the_forms_that_people_save_are_read(tmp_path: Path, wrapped: str) -> None:
    state = build_model(recipe(), classes(5), 99).state_dict()
    content = {f"module.{name}": tensor for name, tensor in state.items()} if wrapped == "module." else state
    torch.save({wrapped: state} if wrapped in ("state_dict", "model") else content, tmp_path / "w.pth")
    model = build_model(recipe(), LABEL_SPACE, 1, tmp_path / "w.pth")
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state if not name.startswith("fc"))


def test_timms_weights_load_into_a_net_whose_authors_have_a_format_of_their_own(tmp_path: Path) -> None:
    net = "vit_tiny_patch16_224.augreg_in21k"
    assert timm.get_pretrained_cfg(net).custom_load
    state = timm.create_model(net, pretrained=False).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    model = build_model(recipe(net=net, size="224x224"), LABEL_SPACE, 1, tmp_path / "w.safetensors")
    assert torch.equal(model.state_dict()["blocks.3.attn.qkv.weight"], state["blocks.3.attn.qkv.weight"])


@pytest.mark.parametrize(
    "lost", ["conv_stem.weight", "bn1.running_mean", "blocks.2.0.bn1.weight", "blocks.6.0.bn3.bias", "conv_head.weight"]
)
def test_weights_that_lack_a_tensor_are_refused(lite0: Path, tmp_path: Path, lost: str) -> None:
    state = load_file(lite0)
    del state[lost]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=f"lacks 1 of the 296 tensors of {NET}.*{lost}"):
        build_model(recipe(net=NET), LABEL_SPACE, 1, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("net", "told"),
    [
        ("resnet10t", "does not load into resnet10t"),
        ("efficientnet_b0", "lacks 64 of the 360 tensors of efficientnet_b0"),
        ("test_resnet", "of test_resnet|into test_resnet"),
    ],
)
def test_weights_of_another_net_are_refused_with_the_nets_name(lite0: Path, net: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        build_model(recipe(net=net), LABEL_SPACE, 1, lite0)
    assert str(lite0) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"abc", b"\x80\x04.", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not load into test_resnet"):
        build_model(recipe(), LABEL_SPACE, 1, path)
