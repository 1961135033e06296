"""The state of a run: what a checkpoint holds, and which run it belongs to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import foldvote.training.state
from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime
from foldvote.errors import UserError
from foldvote.io.files import sha256_file
from foldvote.runtime.device import Device
from foldvote.runtime.distributed import ProcessGroup
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.checkpoint import save_checkpoint
from foldvote.training.loop import Trainer
from foldvote.training.state import (
    MemberSpec,
    Progress,
    TrainState,
    build_spec,
    new_state,
    run_identity,
    start_or_resume,
)
from foldvote.training.training_set import MemberInputs
from support.tiny_member import Tiny, make_tiny, recipe

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def spec_of(tiny: Tiny, asked: Recipe | None = None, code: str = "code", fold: int = 0) -> MemberSpec:
    return build_spec(MemberSeeds(1, "tiny", fold), asked or recipe(), code, MemberInputs(tiny.pixels, tiny.split))


def moved(state: TrainState) -> TrainState:
    """The state after one step of the optimizer and some progress."""
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    plain = {"epoch": 1, "step": 2, "loss_sum": 0.5, "seconds": 3.0, "parts": 2, "averaged": 4}
    state.progress = Progress(**plain, reproducible=state.progress.reproducible, history=[{"epoch": 1}])
    for tensor in state.average.values():
        tensor.fill_(7)
    weights = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    state.best_epochs = [{"epoch": 1, "score": 0.5, "scores": {"val_loss": 0.1}, "state": weights}]
    return state


def test_a_saved_state_comes_back_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    spec = spec_of(tiny, recipe(ema=0.9))
    saved = moved(start_or_resume(spec, CPU, tmp_path))
    save_checkpoint(tmp_path, 6, saved.state_dict() | {"fingerprint": run_identity(spec, CPU)})
    state = start_or_resume(spec, CPU, tmp_path)
    assert state.progress == saved.progress and state.progress.steps_done(4) == 6
    for name in ("model", "optimizer"):
        torch.testing.assert_close(getattr(state, name).state_dict(), getattr(saved, name).state_dict(), rtol=0, atol=0)
    assert state.average and all((tensor == 7).all() for tensor in state.average.values())
    assert state.best_epochs[0]["epoch"] == 1
    torch.testing.assert_close(state.best_epochs[0]["state"], saved.best_epochs[0]["state"], rtol=0, atol=0)


def test_a_net_of_one_size_has_no_smaller_images(tiny: Tiny) -> None:
    small = {"size": "32x32", "epochs": 1}
    spec = replace(spec_of(tiny), recipe=recipe(net="test_vit", size="64x64", progressive=small))
    with pytest.raises(UserError, match="tiny fold 0: test_vit takes images of one size only; drop the recipe's prog"):
        new_state(spec, CPU)


@pytest.mark.parametrize("then", [torch.float32, torch.bfloat16])
def test_a_checkpoint_of_another_precision_is_not_used_and_says_so(
    tiny: Tiny, tmp_path: Path, then: torch.dtype, capfd: pytest.CaptureFixture[str]
) -> None:
    spec, half = spec_of(tiny), replace(CPU, dtype=torch.float16)
    for one, other in ((replace(CPU, dtype=then), half), (half, replace(CPU, dtype=then))):
        folder = tmp_path / str(one.dtype)
        saved = moved(start_or_resume(spec, one, folder))
        save_checkpoint(folder, 6, saved.state_dict() | {"fingerprint": run_identity(spec, one)})
        assert start_or_resume(spec, other, folder).progress == Progress()
        names = [str(device.dtype).removeprefix("torch.") for device in (one, other)]
        assert f"(other dtype: {names[0]}, now {names[1]}): not used, training starts anew" in capfd.readouterr().err
        assert start_or_resume(spec, one, folder).progress == saved.progress


def test_an_average_that_has_not_begun_is_not_saved(tiny: Tiny, tmp_path: Path) -> None:
    state = start_or_resume(spec_of(tiny, recipe(swa=0.5)), CPU, tmp_path)
    assert state.average and not state.state_dict()["average"]
    state.progress.averaged = 1
    assert state.state_dict()["average"] is state.average


def test_a_fresh_run_draws_weights_of_its_own_and_averages_only_if_asked(tiny: Tiny, tmp_path: Path) -> None:
    one, other = (start_or_resume(spec_of(tiny, fold=fold), CPU, tmp_path) for fold in (0, 1))
    assert one.progress == Progress() and not one.average and not one.best_epochs
    assert not torch.equal(one.model.fc.weight, other.model.fc.weight)
    assert start_or_resume(spec_of(tiny, recipe(accumulate=4)), CPU, tmp_path).progress.parts == 4


def fewer(spec: MemberSpec, images: int) -> MemberSpec:
    whole = spec.training_set
    rows = whole.training.iloc[:images].reset_index(drop=True)
    return replace(spec, training_set=replace(whole, training=rows, targets=whole.targets[:images]))


@pytest.mark.parametrize(("images", "parts"), [(2, 1), (3, 1), (7, 3), (8, 4), (32, 4)])
def test_fewer_images_than_a_batch_make_parts_of_two_or_more(
    tiny: Tiny, tmp_path: Path, images: int, parts: int
) -> None:
    spec = fewer(spec_of(tiny, recipe(batch_size=8, accumulate=4, epochs=1)), images)
    trainer = Trainer(spec, CPU, tmp_path, Runtime(), 0)
    assert trainer.state.progress.parts == parts
    trained = trainer.fit()  # batch normalisation fails in a part of one image
    assert trained.parts == parts and np.isfinite(trained.history["train_loss"]).all()


@pytest.mark.parametrize("images", [0, 1])
def test_fewer_than_two_training_images_are_refused_in_one_line(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    few = fewer(spec_of(tiny), images).training_set
    monkeypatch.setattr(foldvote.training.state, "build_training_set", lambda *_given: few)
    with pytest.raises(UserError, match=f"^tiny fold 0: has {images} training images?, and needs two or more"):
        spec_of(tiny)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [({"code": "other"}, "code"), ({"fold": 1}, "fold"), ({"asked": recipe(lr=0.5)}, "recipe.lr")],
)
def test_f40_the_fingerprint_tells_runs_apart(tiny: Tiny, changes: dict, differs: str) -> None:
    one, other = spec_of(tiny).fingerprint, spec_of(tiny, **changes).fingerprint
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == [differs]


def test_weights_are_compared_with_what_pins_them_before_the_first_step(tiny: Tiny, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    digest = sha256_file(weights)
    inputs = MemberInputs(tiny.pixels, tiny.split, weights, pretrained_sha256=digest)
    seeds = MemberSeeds(1, "tiny", 0)
    assert build_spec(seeds, recipe(), "code", inputs).origin["pretrained_sha256"] == digest
    weights.write_bytes(b"others")
    with pytest.raises(UserError, match="has the SHA-256"):
        build_spec(seeds, recipe(), "code", inputs)


def test_a_title_stands_for_model_and_fold(tiny: Tiny) -> None:
    spec = spec_of(tiny)
    assert spec.name == "tiny fold 0"
    assert replace(spec, title="trial 3 fold 0").name == "trial 3 fold 0"


class Pretended(ProcessGroup):
    """A group whose other processes say the same as this one."""

    def max(self, number: int) -> int:
        return number


def test_what_several_processes_cannot_do_is_refused_before_the_first_step(tiny: Tiny, tmp_path: Path) -> None:
    two = replace(CPU, group=Pretended(0, 2))
    assert start_or_resume(spec_of(tiny), two, tmp_path).progress.parts == 2
    with pytest.raises(UserError, match="tiny fold 0: batches of 7 images"):
        start_or_resume(spec_of(tiny, recipe(batch_size=7)), two, tmp_path)
    with pytest.raises(UserError, match="sync_bn: torch has it on GPUs only"):
        start_or_resume(spec_of(tiny, recipe(sync_bn=True)), two, tmp_path)


def test_a_run_of_which_a_part_was_fast_is_not_reproducible_and_its_weights_are_updated_at_once(
    tiny: Tiny, tmp_path: Path
) -> None:
    spec, fast = spec_of(tiny), replace(CPU, reproducible=False)
    exact = start_or_resume(spec, CPU, tmp_path)
    assert exact.progress.reproducible and not any(group["fused"] for group in exact.optimizer.param_groups)
    state = start_or_resume(spec, fast, tmp_path)
    assert not state.progress.reproducible and all(group["fused"] for group in state.optimizer.param_groups)
    save_checkpoint(tmp_path, 6, moved(state).state_dict() | {"fingerprint": run_identity(spec, fast)})
    for device in (fast, CPU):
        again = start_or_resume(spec, device, tmp_path)
        assert not again.progress.reproducible
        torch.testing.assert_close(again.model.state_dict(), state.model.state_dict(), rtol=0, atol=0)


def test_a_net_that_does_not_fit_on_the_device_is_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(Device, "place", place)
    with pytest.raises(UserError, match=r"tiny fold 0: test_resnet does not fit on the device \(CUDA out of memory\. "):
        start_or_resume(spec_of(tiny), CPU, tmp_path)


def test_a_class_that_does_not_belong_to_the_group_needs_named_factors(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = spec_of(tiny).training_set
    shared = replace(chosen, training=chosen.training.assign(group=0))
    agreeing = recipe(group_shots=2, loss=["cross_entropy", "consistency"])
    assert spec_of(tiny, agreeing).order.groups.max() == 7
    monkeypatch.setattr(foldvote.training.state, "build_training_set", lambda *_: shared)
    with pytest.raises(
        UserError, match=r"tiny fold 0: loss\.consistency: images of one group have several classes; name"
    ):
        spec_of(tiny, agreeing)
    spec_of(tiny, recipe(group_shots=2))
