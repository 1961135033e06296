"""One optimizer step: parts that add up, memory, what learns."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from foldvote.config.recipe import Recipe
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.models.factory import build_model, head_modules, head_parameters
from foldvote.runtime.device import Device
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.optimizer import make_optimizer
from foldvote.training.state import Progress, TrainState
from foldvote.training.step import TrainStep, as_probabilities, freeze_backbone
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe
from support.tiny_training import train

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
GROUP_NORM = {"net": "test_efficientnet_gn", "drop_rate": 0.0, "clip_norm": None}  # every image counts by itself
BATCH = torch.randint(0, 256, (8, 32, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 3

pytestmark = pytest.mark.usefixtures("one_thread")


def step_of(asked: Recipe) -> TrainStep:
    model = build_model(asked, LABEL_SPACE, 1)
    state = TrainState(model, make_optimizer(asked, model), CPU.scaler(), Progress())
    return TrainStep(asked, MemberSeeds(1, "tiny", 0), state, np.array([3, 3, 2]), CPU)


def gradients(step: TrainStep) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in step.model.named_parameters()}


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_add_up_to_the_gradient_and_loss_of_the_batch(parts: int) -> None:
    whole, cut = step_of(recipe(**GROUP_NORM)), step_of(recipe(**GROUP_NORM))
    loss, loss_of_parts = whole(BATCH, LABELS, 0, 1), cut(BATCH, LABELS, 0, parts)
    assert loss_of_parts.item() == pytest.approx(loss.item(), rel=1e-5) and not loss.requires_grad
    one, other = gradients(whole), gradients(cut)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-2, atol=1e-4)


def test_what_a_step_draws_depends_on_its_number_alone() -> None:
    asked = recipe(**GROUP_NORM | {"drop_rate": 0.5, "mix": "mixup", "lr": 1e-9, "weight_decay": 0.0})
    step = step_of(asked)
    losses = [step(BATCH, LABELS, number, 1).item() for number in (0, 1, 0)]
    assert losses[0] == pytest.approx(losses[2], rel=1e-5) != pytest.approx(losses[1], rel=1e-5)


def test_gradients_are_clipped_to_the_norm_asked_for() -> None:
    step = step_of(recipe(**GROUP_NORM | {"clip_norm": 0.01}))
    step(BATCH, LABELS, 0, 1)
    norm = torch.stack([gradient.norm() for gradient in gradients(step).values()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_codes_become_one_hot_and_probabilities_stay() -> None:
    assert as_probabilities(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    rows = torch.tensor([[0.5, 0.5, 0.0]])
    assert as_probabilities(rows, 3) is rows


def test_a_frozen_backbone_neither_learns_nor_counts_statistics() -> None:
    model = build_model(recipe(), LABEL_SPACE, 1)
    freeze_backbone(model, head_only=True)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == head_parameters(model)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and not any(module.training for module in norms)
    assert model.get_classifier().training
    freeze_backbone(model, head_only=False)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("net", "side"), [("deit_tiny_distilled_patch16_224", 32), ("levit_128s", 32), ("efficientformer_l1", 224)]
)
def test_nets_with_two_classifiers_learn_their_heads_alone(net: str, side: int) -> None:
    step = step_of(recipe(net=net, size=f"{side}x{side}", clip_norm=None))
    freeze_backbone(step.model, head_only=True)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    images = torch.randint(0, 256, (8, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    step(images, LABELS, 0, 1)
    changed = {name for name, tensor in step.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert len(head_modules(step.model)) == 2 and all(head.training for head in head_modules(step.model))
    assert head_parameters(step.model) <= changed and {name.split(".")[0] for name in changed} == {"head", "head_dist"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    save_file(build_model(recipe(), LABEL_SPACE, 5).state_dict(), made.root / "given.safetensors")
    return made


def test_a_frozen_net_changes_its_head_alone(tiny: Tiny) -> None:
    train(tiny, "features", {"freeze_epochs": 2, "pretrained": "given"})
    given, learnt = load_file(tiny.root / "given.safetensors"), load_file(tiny.files("features").last)
    changed = {name for name in given if not torch.equal(given[name], learnt[name])}
    assert changed == {"fc.weight", "fc.bias"}


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """A device on which a part of more than `most` images does not fit."""
    forward, seen = timm.models.ResNet.forward, []

    def limited(self: Any, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append(len(images))
            if len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(timm.models.ResNet, "forward", limited)
    return seen


def test_f43_a_first_step_that_does_not_fit_is_taken_in_parts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    in_parts = train(tiny, "in-parts", {"accumulate": 4})
    with monkeypatch.context() as patch:
        seen = short_of_memory(patch, 2)
        assert train(tiny, "short", {}) == in_parts
    assert seen[:3] == [8, 4, 2]
    assert set(seen[3:]) == {2}
    assert "in 4 parts" in capfd.readouterr().err
    assert read_json(tiny.files("short").sidecar)["parts"] == 4


def test_f43_memory_that_ends_later_or_never_suffices_is_told_with_advice(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(UserError, match="not even parts of 2 images"):
        short_of_memory(patch, 1)
        train(tiny, "none", {})
    whole = TrainStep.__call__

    def failing(step: TrainStep, batch: torch.Tensor, targets: torch.Tensor, number: int, parts: int) -> torch.Tensor:
        if number == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(step, batch, targets, number, parts)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"step 4: out of memory.*accumulate: 2"):
        patch.setattr(TrainStep, "__call__", failing)
        train(tiny, "later", {})
    assert train(tiny, "later", {}) == train(tiny, "later-whole", {})
