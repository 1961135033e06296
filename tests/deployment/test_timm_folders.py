"""Members as folders that timm loads by itself, with equal answers."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.data.cropping import cut, resize
from foldvote.data.label_space import factor_label_space, known_classes
from foldvote.data.packed_images import PackedImages
from foldvote.deployment import timm_folders
from foldvote.deployment.finished_run import split_files
from foldvote.deployment.timm_card import pixel_lines
from foldvote.deployment.timm_folders import answers_of, export_timm, plain_network, timm_config
from foldvote.errors import UserError
from foldvote.inference.predict_member import load_member
from foldvote.io.files import write_json
from foldvote.models.factory import build_model, normalisation
from support.deployed_run import HOME, DeployedRun, deployed_run

MODELS: Mapping[str, Mapping[str, object]] = {
    "resnet": {"net": "test_resnet.r160_in1k", "drop_rate": 0.3, "drop_path": 0.1, "ema": 0.99},
    "vit": {"net": "test_vit", "size": "64x48", "pretrained": "weights/test_vit.r160_in1k.safetensors"},
    "efficientnet": {"net": "test_efficientnet", "heads": "factored"},
    "sampled": {"net": "test_vit", "size": "64x48", "drop_rate": 0.2, "dropout_samples": 4},
    "ordinal": {"heads": {"mask": "classes", "age": "ordinal"}},
    "mask": {"factors": ["mask"], "heads": "factored"},
    "age": {"factors": ["age"]},
}
LOADS = """
import json, sys
import numpy as np, timm, torch
assert not any(name.startswith("foldvote") for name in sys.modules)
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
with torch.inference_mode():
    np.save(sys.argv[3], model(torch.from_numpy(np.load(sys.argv[2]))).numpy())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> DeployedRun:
    made = deployed_run(tmp_path_factory.mktemp("run"), MODELS)
    export(made)
    return made


def export(run: DeployedRun) -> Path:
    results = run.results
    weights = sorted((results / "train").rglob("model.safetensors"))
    ensemble = results / "ensemble"
    folder = results / "timm"
    export_timm(weights, split_files(results), ensemble / "metrics.json", ensemble / "prediction.json", folder)
    return folder


def member(run: DeployedRun, model: str, fold: int) -> tuple[Recipe, torch.nn.Module]:
    folder = run.results / f"train/model={model}/fold={fold}"
    _, recipe, network = load_member(folder / "model.safetensors", folder / "model.json", split_files(run.results))
    return recipe, network.eval()


def images(recipe: Recipe) -> torch.Tensor:
    height, width = (int(side) for side in recipe.size.split("x"))
    return torch.randn(5, 3, height, width, generator=torch.Generator().manual_seed(4))


def test_there_is_a_folder_of_three_files_for_every_member(run: DeployedRun) -> None:
    names = {path.name for path in (run.results / "timm").iterdir()}
    assert names == {f"{model}-fold{fold}" for model in MODELS for fold in range(2)}
    for name in names:
        files = {path.name for path in (run.results / "timm" / name).iterdir()}
        assert files == {"config.json", "model.safetensors", "README.md"}


@pytest.mark.parametrize("model", ["resnet", "vit", "sampled", "age"])
def test_logits_of_joint_heads_are_equal(run: DeployedRun, model: str) -> None:
    recipe, network = member(run, model, 1)
    loaded = timm.create_model(f"local-dir:{run.results}/timm/{model}-fold1", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(images(recipe)), network(images(recipe)))
    assert not any(name.startswith("foldvote") for name in {type(layer).__module__ for layer in loaded.modules()})


@pytest.mark.parametrize("model", ["efficientnet", "mask"])
def test_log_probabilities_of_factored_heads_are_equal(run: DeployedRun, model: str) -> None:
    recipe, network = member(run, model, 0)
    loaded = timm.create_model(f"local-dir:{run.results}/timm/{model}-fold0", pretrained=True).eval()
    with torch.inference_mode():
        expected, logits = network(images(recipe)), loaded(images(recipe))
    torch.testing.assert_close(functional.log_softmax(logits, -1), expected, atol=1e-5, rtol=0)
    assert float((logits - expected).std(dim=1).max()) < 1e-5  # they differ by a number per image
    assert float((logits - expected).abs().max()) > 1e-3


def test_an_ordinal_head_is_left_out_and_the_card_says_so(run: DeployedRun) -> None:
    recipe, network = member(run, "ordinal", 0)
    folder = run.results / "timm/ordinal-fold0"
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        features = loaded(images(recipe))
        assert torch.equal(features, answers_of(network, images(recipe), "features"))
        assert torch.equal(network.get_classifier()(features), network(images(recipe)))
    card = (folder / "README.md").read_text()
    assert "**This folder has no classifier.** The member's head of age is ordinal or a regression" in card
    assert "pipeline_tag: image-feature-extraction" in card
    assert "label_names" not in json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(("model", "classes"), [("resnet", HOME.classes), ("mask", ("wear", "not"))])
def test_label_names_are_the_classes_that_the_member_knows(
    run: DeployedRun, model: str, classes: tuple[str, ...]
) -> None:
    config = json.loads((run.results / f"timm/{model}-fold0/config.json").read_text())
    assert config["label_names"] == list(classes)
    assert config["num_classes"] == len(classes)


def test_the_card_says_what_the_member_is_and_how_good(run: DeployedRun) -> None:
    card = (run.results / "timm/resnet-fold1/README.md").read_text()
    scores = json.loads((run.results / "ensemble/metrics.json").read_text())["oof"]["members"]["resnet"]["1"]
    about = json.loads((run.results / "train/model=resnet/fold=1/model.json").read_text())
    low, high = scores["intervals"]["accuracy"]
    assert card.startswith(
        "---\nlibrary_name: timm\npipeline_tag: image-classification\ntags:\n- image-classification\n"
    )
    assert f"| accuracy | {scores['accuracy']:.3f} | {low:.3f} to {high:.3f} |" in card
    assert about["split_sha256"] in card and about["data_sha256"] in card and about["sha256"] in card
    assert "moving average over training (EMA, decay 0.99); that is one network already" in card
    assert "trained from scratch" in card and "\nlicense:" not in card
    assert ", ".join(f"`{name}`" for name in HOME.classes) in card
    card = (run.results / "timm/vit-fold1/README.md").read_text()
    assert "\nbase_model: timm/test_vit.r160_in1k\nlicense: apache-2.0\n---\n" in card


def test_timm_alone_loads_a_folder_and_prepares_images_as_the_run_did(run: DeployedRun, tmp_path: Path) -> None:
    recipe, network = member(run, "vit", 0)
    folder = run.results / "timm/vit-fold0"
    np.save(tmp_path / "images.npy", images(recipe).numpy())
    arguments = [str(folder), str(tmp_path / "images.npy"), str(tmp_path / "logits.npy")]
    subprocess.run([sys.executable, "-I", "-c", LOADS, *arguments], check=True, cwd=tmp_path)
    with torch.inference_mode():
        assert np.load(tmp_path / "logits.npy").tolist() == network(images(recipe)).tolist()
    data = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{folder}", pretrained=True))
    own = timm.data.resolve_model_data_config(network)
    assert data["input_size"] == (3, 64, 48) and (data["crop_pct"], data["crop_mode"]) == (1.0, "squash")
    assert (tuple(data["mean"]), tuple(data["std"])) == (tuple(own["mean"]), tuple(own["std"]))


def test_the_lines_of_the_card_work_and_prepare_images_as_the_run_did(
    run: DeployedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (run.results / "timm/resnet-fold0/README.md").read_text()
    blocks = [block.partition("```")[0] for block in card.split("```python\n")[1:]]
    monkeypatch.chdir(run.results / "timm")
    Path("photo.jpg").write_bytes(run.photographs("test")[0].read_bytes())
    done: dict = {}
    with torch.inference_mode():
        for block in blocks:
            exec(block, done)
        recipe, network = member(run, "resnet", 0)
        packed = torch.from_numpy(np.array(PackedImages(run.results / "data/pixels/size=32x24/roi=none/test.arrow")[0]))
        mean, std = normalisation(network, torch.device("cpu"))
        expected = network((packed.permute(2, 0, 1)[None].float() / 255 - mean) / std)
        torch.testing.assert_close(done["model"](done["batch"]), expected, atol=1e-5, rtol=1e-5)
        assert float((done["probabilities"] - expected.softmax(-1)).abs().max()) < 0.1
    assert recipe.size == "32x24" and len(blocks) == 2
    Path("photo.jpg").unlink()


@pytest.mark.parametrize("pack", [1.0, 1.25])
@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize(("size", "shape"), [("32x24", (90, 120)), ("24x24", (99, 51)), ("24x32", (120, 70))])
def test_the_lines_of_the_card_and_timm_frame_pictures_as_the_run_does(
    fit: str, size: str, shape: tuple[int, int], pack: float
) -> None:
    recipe = Recipe(net="test_resnet", size=size, fit=fit, pack=pack)
    smooth = cv2.resize(np.random.default_rng(0).integers(256, size=(6, 6, 3), dtype=np.uint8), shape[::-1])
    image, expected = Image.fromarray(smooth), resize(cut(smooth, recipe.packed, None), *parse_size(size))
    done = {"image": image, "cv2": cv2, "numpy": np}
    exec("\n".join(pixel_lines(recipe.packed, parse_size(size))), done)
    assert np.array_equal(done["pixels"], expected)
    data = timm_config(plain_network(build_model(recipe, HOME, seed=3).eval()), recipe, HOME.classes)["pretrained_cfg"]
    wanted = {name: data[name] for name in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")}
    tensor = timm.data.create_transform(**wanted)(image)
    found = (tensor * torch.tensor(data["std"])[:, None, None] + torch.tensor(data["mean"])[:, None, None]) * 255
    assert float((found.permute(1, 2, 0) - torch.from_numpy(expected)).abs().mean()) < 8


@pytest.mark.parametrize(
    ("net", "size"),
    [
        ("deit_tiny_distilled_patch16_224", "32x48"),  # two heads
        ("swinv2_cr_tiny_ns_224", "64x64"),  # made for one size
        ("mobilenetv3_small_050", "32x24"),  # layers between pooling and classifier
        ("test_convnext", "64x64"),
    ],
)
def test_nets_of_many_kinds_load_from_their_folder(tmp_path: Path, net: str, size: str) -> None:
    recipe = Recipe(net=net, size=size, drop_path=0.1)
    network = build_model(recipe, HOME, seed=3).eval()
    plain = plain_network(network)
    write_json(tmp_path / "config.json", timm_config(plain, recipe, HOME.classes))
    save_file(plain.network.state_dict(), tmp_path / "model.safetensors")
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(images(recipe)), network(images(recipe)))


def test_a_folder_that_answers_otherwise_is_an_error_and_not_left(
    run: DeployedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = timm_folders.timm_config

    def wrong(*given: object) -> dict:
        config = honest(*given)
        config["model_args"] = {"act_layer": "tanh"}
        return config

    monkeypatch.setattr(timm_folders, "timm_config", wrong)
    weights = [run.results / "train/model=resnet/fold=0/model.safetensors"]
    ensemble = run.results / "ensemble"
    with pytest.raises(UserError, match=r"resnet-fold0: timm .* builds another test_resnet\.r160_in1k from its folder"):
        export_timm(
            weights,
            split_files(run.results),
            ensemble / "metrics.json",
            ensemble / "prediction.json",
            tmp_path / "timm",
        )
    assert list((tmp_path / "timm").iterdir()) == []


@pytest.mark.parametrize("levels", [(2, 3), (3, 2, 4)])
def test_merged_rows_are_sums_of_the_levels_rows(levels: tuple[int, ...]) -> None:
    space = factor_label_space({f"f{at}": tuple(f"l{at}{one}" for one in range(n)) for at, n in enumerate(levels)})
    recipe = Recipe(net="test_resnet", size="32x32", heads="factored")
    network = build_model(recipe, known_classes(recipe, space)[0], seed=9).eval()
    plain = plain_network(network)
    assert (plain.answers, plain.classes) == ("log_probabilities", len(space.classes))
    with torch.inference_mode():
        logits = plain.network(images(recipe))
        torch.testing.assert_close(functional.log_softmax(logits, -1), network(images(recipe)), atol=1e-5, rtol=0)
