"""One optimizer step: parts that add up, memory, what learns."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import DropPath

from foldvote.config.experiment import load_config
from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.data.layouts.registry import layout_of
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.models.factory import build_model, head_modules, head_parameters
from foldvote.runtime.device import Device
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.mixup import as_probabilities
from foldvote.training.optimizer import make_optimizer
from foldvote.training.phases import freeze_backbone
from foldvote.training.state import Progress, TrainState
from foldvote.training.step import TrainStep
from support.snakemake_run import ROOT
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe
from support.tiny_training import train

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
GROUP_NORM = {"net": "test_efficientnet_gn", "drop_rate": 0.0, "clip_norm": None}  # every image counts by itself
BATCH = torch.randint(0, 256, (8, 32, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 3


def state_of(asked: Recipe, device: Device = CPU) -> TrainState:
    model = build_model(asked, LABEL_SPACE, 1)
    return TrainState(model, make_optimizer(asked, model), device.scaler(), Progress())


def step_of(
    asked: Recipe, state: TrainState | None = None, device: Device = CPU, epoch_steps: float = math.inf
) -> TrainStep:
    state, counts = state or state_of(asked, device), np.array([3, 3, 2])
    return TrainStep(asked, MemberSeeds(1, "tiny", 0), state, counts, device, epoch_steps=epoch_steps)


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


@pytest.mark.parametrize("parts", [1, 4])
def test_sharpness_aware_gradients_are_those_of_weights_uphill(parts: int) -> None:
    """And the update starts from the weights as they were; the radius is 0.5 so that it matters."""
    still = GROUP_NORM | {"lr": 1e-9, "weight_decay": 0.0}
    plain, sharp = step_of(recipe(**still)), step_of(recipe(**still, sam=0.5))
    plain(BATCH, LABELS, 0, 1)
    downhill = gradients(plain)
    norm = torch.stack([gradient.norm() for gradient in downhill.values()]).norm()
    with torch.no_grad():
        for name, parameter in plain.model.named_parameters():
            parameter += 0.5 * downhill[name] / norm
    plain(BATCH, LABELS, 0, 1)
    before = {name: tensor.clone() for name, tensor in sharp.model.state_dict().items()}
    sharp(BATCH, LABELS, 0, parts)
    uphill, found = gradients(plain), gradients(sharp)
    for name in found:
        torch.testing.assert_close(found[name], uphill[name], rtol=1e-2, atol=1e-4)
    assert sum(not torch.allclose(uphill[name], downhill[name], rtol=0.1) for name in found) > len(found) / 2
    assert all(torch.allclose(tensor, before[name], atol=1e-7) for name, tensor in sharp.model.state_dict().items())


def test_sharpness_aware_steps_count_statistics_once_and_leave_a_frozen_backbone() -> None:
    plain, sharp = step_of(recipe()), step_of(recipe(sam=0.5))
    for step in (plain, sharp):
        freeze_backbone(step.model, head_only=False)
        step(BATCH, LABELS, 0, 1)
    own, other = (dict(step.model.named_buffers()) for step in (plain, sharp))
    assert own and all(torch.equal(own[name], other[name]) for name in own)
    freeze_backbone(sharp.model, head_only=True)
    before = {name: tensor.clone() for name, tensor in sharp.model.state_dict().items()}
    sharp(BATCH, LABELS, 1, 1)
    changed = {name for name, tensor in sharp.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_a_sharpness_aware_step_that_does_not_fit_uphill_is_taken_again_from_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward, calls = timm.models.ResNet.forward, []

    def limited(self: Any, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    asked = recipe(sam=0.5)
    expected = step_of(asked)
    expected(BATCH, LABELS, 0, 2)
    step = step_of(asked)
    monkeypatch.setattr(timm.models.ResNet, "forward", limited)
    _, parts = step.fit_in_memory(BATCH, LABELS, 0, 1)
    assert (parts, calls) == (2, [8, 8, 4, 4, 4, 4])
    assert all(torch.equal(a, b) for a, b in zip(step.model.parameters(), expected.model.parameters(), strict=True))


def test_the_first_epochs_see_smaller_images_of_the_same_content(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, seen = timm.models.ResNet.forward, []

    def note(self: Any, images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return forward(self, images)

    step = step_of(recipe(progressive={"size": "16x12", "epochs": 1}, epochs=3), epoch_steps=2)
    monkeypatch.setattr(timm.models.ResNet, "forward", note)
    for number in range(6):
        step(BATCH, LABELS, number, 1)
    assert [tuple(images.shape[-2:]) for images in seen] == [(16, 12)] * 2 + [(32, 24)] * 4
    blocks = torch.nn.functional.avg_pool2d(seen[2], 2)
    assert torch.corrcoef(torch.stack([seen[0].flatten(), blocks.flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize(
    ("schedule", "shares"), [("constant", [1, 1, 1]), ("rising", [0, 0.5, 1]), ("falling", [1, 0.5, 0])]
)
def test_stochastic_depth_follows_its_schedule_from_epoch_to_epoch(schedule: str, shares: list[float]) -> None:
    asked = recipe(net="test_efficientnet", drop_path=0.4, drop_path_schedule=schedule, epochs=3)
    step = step_of(asked, epoch_steps=2)
    paths = [part for part in step.model.modules() if isinstance(part, DropPath)]
    whole = [part.drop_prob for part in paths]
    assert max(whole) > 0.1
    for number in range(6):
        step(BATCH, LABELS, number, 1)
        assert [part.drop_prob for part in paths] == pytest.approx([rate * shares[number // 2] for rate in whole])


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


def test_f43_memory_that_never_suffices_is_told_with_advice(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 1)
    with pytest.raises(UserError, match=r"not even parts of 2 images fit on the device \(CUDA out of memory\)"):
        train(tiny, "none", {})


def fails_once(act: Callable[..., Any], error: Exception, before: Callable[[], object] = lambda: None) -> Any:
    """A function that spoils something and fails when it is first called."""
    left = [error]

    def failing(*arguments: Any) -> Any:
        if left:
            before()
            raise left.pop()
        return act(*arguments)

    return failing


def equal_states(one: TrainState, other: TrainState) -> bool:
    torch.testing.assert_close(one.optimizer.state_dict(), other.optimizer.state_dict(), rtol=0, atol=0)
    assert one.scaler.state_dict() == other.scaler.state_dict()
    theirs = other.model.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.model.state_dict().items())


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("step", [0, 1])
def test_a_pass_or_an_update_that_does_not_fit_is_taken_back_whole(
    error: Exception, dtype: torch.dtype, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, device = recipe(clip_norm=1.0, drop_rate=0.3), replace(CPU, dtype=dtype)
    for where in ("pass", "update"):
        whole, short = state_of(asked, device), state_of(asked, device)
        take, take_short = step_of(asked, whole, device), step_of(asked, short, device)
        for number in range(step):
            for taken in (take, take_short):
                taken.fit_in_memory(BATCH, LABELS, number, 1)
        take.fit_in_memory(BATCH, LABELS, step, 2)

        def half_an_update(state: TrainState = short) -> None:
            with torch.no_grad():
                for parameter in state.model.parameters():
                    parameter.add_(1)
                for held in state.optimizer.state.values():
                    held["exp_avg"].add_(1)

        with monkeypatch.context() as patch:
            if where == "pass":
                # After the statistics of batch normalisation have moved, as in a backward pass.
                patch.setattr(short.model, "forward_head", fails_once(short.model.forward_head, error))
            else:
                patch.setattr(short.optimizer, "step", fails_once(short.optimizer.step, error, half_an_update))
            _, parts = take_short.fit_in_memory(BATCH, LABELS, step, 1)
        assert parts == 2
        assert equal_states(short, whole)


def test_an_error_that_is_not_of_memory_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(recipe())
    step = step_of(recipe(), state)
    monkeypatch.setattr(state.model, "forward_head", fails_once(state.model.forward_head, RuntimeError("a shape")))
    with pytest.raises(RuntimeError, match="a shape"):
        step.fit_in_memory(BATCH, LABELS, 0, 1)


@pytest.mark.parametrize("when", ["unfrozen", "second step"])
def test_memory_that_ends_after_the_first_step_is_met_with_more_parts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    forward, sizes, taken = timm.models.ResNet.forward, [], []
    whole = TrainStep.__call__

    def step(self: TrainStep, batch: torch.Tensor, targets: torch.Tensor, number: int, parts: int) -> torch.Tensor:
        taken.append(number)
        return whole(self, batch, targets, number, parts)

    def limited(self: Any, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            sizes.append((taken[-1], len(images)))
            late = taken[-1] >= 1 if when == "second step" else next(self.parameters()).requires_grad
            if late and len(images) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    changes = {"freeze_epochs": 1, "pretrained": "given"} if when == "unfrozen" else {}
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", step)
        patch.setattr(timm.models.ResNet, "forward", limited)
        train(tiny, f"later-{when}", changes)
    change = 4 if when == "unfrozen" else 1
    assert {size for number, size in sizes if number < change} == {8}
    assert [size for number, size in sizes if number == change] == [8, 4, 4]
    assert {size for number, size in sizes if number > change} == {4}
    assert read_json(tiny.files(f"later-{when}").sidecar)["parts"] == 2


def test_f43_what_cannot_be_taken_again_is_told_and_the_next_start_takes_more_parts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = TrainStep._update, []

    def failing(step: TrainStep) -> None:
        calls.append(0)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        whole(step)

    told = r"step 4: out of memory \(CUDA out of memory\).*the same command goes on .* in 2 parts.*accumulate: 2"
    with monkeypatch.context() as patch, pytest.raises(UserError, match=told):
        patch.setattr(TrainStep, "_update", failing)
        train(tiny, "later", {})
    train(tiny, "later", {})
    assert read_json(tiny.files("later").sidecar)["parts"] == 2
    assert not list((tiny.resume / "later").glob("*.json"))


def test_a_step_that_the_scaler_skips_changes_nothing() -> None:
    asked, device = recipe(), replace(CPU, dtype=torch.float16)
    state = state_of(asked, device)
    step = step_of(asked, state, device)
    step.fit_in_memory(BATCH, LABELS, 0, 1)
    assert not step.skipped
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    state.scaler.update(2.0**120)
    step.fit_in_memory(BATCH, LABELS, 1, 1)
    assert step.skipped
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.model.state_dict().items())
    state.scaler.update(2.0**10)
    step.fit_in_memory(BATCH, LABELS, 1, 1)
    assert not step.skipped
    assert not torch.equal(state.model.state_dict()["bn1.running_mean"], before["bn1.running_mean"])


@pytest.mark.parametrize(("name", "size"), [("convnext", "64x64"), ("eva", "56x42"), ("efficient", "64x64")])
def test_each_net_for_a_gpu_takes_a_step_of_its_recipe(name: str, size: str) -> None:
    """With random weights and on small images: the nets, heads, layers' rates, mixes and loss are the recipe's own."""
    small = {"pretrained": None, "size": size, "batch_size": 2}
    config = load_config(ROOT / "config/maskbase_gpu.yaml", {"data_root": "data", "models": {name: small}})
    asked, label_space = config.models[name], layout_of(config.data).label_space(set())
    model = build_model(asked, label_space, 1)
    learns = {key: model.get_parameter(key) for key in head_parameters(model)}
    before = {key: parameter.detach().clone() for key, parameter in learns.items()}
    state = TrainState(model, make_optimizer(asked, model), CPU.scaler(), Progress())
    counts = np.ones(len(label_space.classes), np.int64)
    step = TrainStep(asked, MemberSeeds(1, name, 0), state, counts, CPU, label_space=label_space)
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, *parse_size(size), 3), dtype=torch.uint8, generator=draw)
    one_person = torch.cat([torch.eye(18)[[0, 12]], torch.tensor([[7.0], [7.0]])], dim=1)  # with and without a mask
    loss = step(images, one_person, 0, 1)
    assert len(label_space.classes) == 18 and 1 < loss.item() < 9  # chance: log 18 = 2.9
    assert all(gradient.isfinite().all() for gradient in gradients(step).values())
    assert [key for key, parameter in learns.items() if torch.equal(parameter, before[key])] == []
