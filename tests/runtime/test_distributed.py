"""Several processes that train one member: the same batches, weights and scores as one process."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import BatchNormAct2d

import foldvote.models.factory
from foldvote.config.runtime import Runtime
from foldvote.errors import UserError
from foldvote.io.files import read_json, write_json
from foldvote.models.factory import build_model, to_sync_batchnorm
from foldvote.runtime.device import Device, choose_device
from foldvote.runtime.distributed import SINGLE_PROCESS, ProcessGroup, Rank, join_process_group, rendezvous
from foldvote.runtime.launch import run_together
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.loop import Trainer
from foldvote.training.state import MemberSpec, build_spec
from foldvote.training.step import TrainStep
from foldvote.training.training_set import MemberInputs
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

RUNTIME = Runtime(workers=0, checkpoint_minutes=1e-6)
PLAIN = {"net": "test_efficientnet_gn", "drop_rate": 0.0}  # no batch normalisation, no dropout
RECIPES: dict[str, dict[str, object]] = {
    "plain": {},
    "mixed": {"mix": [{"name": name, "p": 0.3} for name in ("mixup", "cutmix", "half_face")], "epochs": 3},
    "in parts, clipped, averaged": {"accumulate": 4, "clip_norm": 0.1, "ema": 0.9, "class_weights": "inverse"},
    "uphill": {"sam": 0.05, "mix": "mixup", "mix_off_epochs": 1, "progressive": {"size": "16x12", "epochs": 1}},
    "frozen": {"freeze_epochs": 1, "pretrained": "given", "sampler": {"by": "class"}, "soup": 2},
    "normalised over batches": {"net": "test_resnet"},
    "by groups": {
        "group_shots": 4,
        "loss": ["cross_entropy", "consistency", "sup_con"],
        "mix": [{"name": "mixup", "partner": "group", "p": 0.5}, {"name": "cutmix", "p": 0.3}],
    },
    "augmented on the device": {"augment_on": "device", "augment": ["light", {"rotate": 0.1}, {"erase": 0.5}]},
}
THIRDS = {"net": "test_resnet", "drop_rate": 0.3, "ema": 0.9, "batch_size": 6, "epochs": 3}
DROPS = {"net": "test_resnet", "drop_rate": 0.3, "ema": 0.9}
DIVERGES = {"lr": 100.0, "clip_norm": None, "epochs": 30, "optimizer": "sgd"}
CUT = 5  # steps, in the second epoch


class CutOff(BaseException):
    """Ends a run at once, as a kill does: nothing catches it."""


class CutTrainer(Trainer):
    """Is cut off before a step, as a kill does it."""

    def __init__(
        self, spec: MemberSpec, device: Device, resume_dir: Path, runtime: Runtime, workers: int, cut: int | None
    ) -> None:
        super().__init__(spec, device, resume_dir, runtime, workers)
        self.cut = cut

    def train_step(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.steps_done == self.cut:
            raise CutOff
        return super().train_step(images, targets)


def train(tiny: Tiny, group: ProcessGroup, name: str, changes: dict[str, object], cut: int | None = None) -> None:
    """Train a member, or go on with it, and leave what came out; a run that is cut off leaves its checkpoints.

    Args:
        tiny: where.
        group: which process this is.
        name: of the run; `who: what` shares its checkpoints with all of that `what`.
        changes: of the recipe.
        cut: number of steps after which it is cut off.
    """
    own = recipe(**PLAIN | changes)
    given = tiny.root / "given.safetensors" if own.pretrained else None
    spec = build_spec(MemberSeeds(1, "tiny", 0), own, "code", MemberInputs(tiny.pixels, tiny.split, given))
    device = replace(choose_device(own.precision, own.channels_last, 0, 1), group=group)
    try:
        trained = CutTrainer(spec, device, tiny.resume / name.partition(": ")[2], RUNTIME, 0, cut).fit()
    except CutOff:
        group.max(0)  # nobody goes on before the last checkpoint is there
        return
    if group.first:
        save_file(trained.last, tiny.root / f"{name}.last")
        save_file(trained.chosen, tiny.root / f"{name}.chosen")
        rows = trained.history.drop(columns="seconds").to_dict("records")
        write_json(tiny.root / f"{name}.json", {"rows": rows, "epochs": trained.epochs, "parts": trained.parts})
        for path in (tiny.resume / name.partition(": ")[2]).glob("*.ckpt"):
            path.unlink()
    group.max(0)  # nobody goes on before these are gone


def short_of_memory(most: int) -> None:
    """Make this process's device too small for parts of more than `most` images where the stem learns."""
    forward = foldvote.models.factory.timm.models.EfficientNet.forward

    def limited(self: Any, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and self.conv_stem.weight.requires_grad and len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    foldvote.models.factory.timm.models.EfficientNet.forward = limited


def as_two(root: Path, port: int, rank: int) -> None:
    """All that two processes do for the tests of this file, one thing after the other."""
    tiny = Tiny(root)
    with join_process_group(Rank(rank, 2, port), torch.device("cpu")) as group:
        rows = group.map_sharded(lambda items: items[:, None] * 10.0, np.arange(5))
        sent, largest = group.broadcast({"rank": rank, "x": 0.1}), group.max(rank)
        model = torch.nn.BatchNorm1d(2)
        model.running_mean.fill_(rank)
        group.sync_buffers(model)
        if rank:
            write_json(root / "told.json", [rows.tolist(), sent, largest, model.running_mean.tolist()])
        for name, changes in RECIPES.items():
            train(tiny, group, f"two: {name}", changes)
        train(tiny, group, "undisturbed: two", DROPS)
        train(tiny, group, "cut: two", DROPS, cut=CUT)
        train(tiny, group, "cut: two", DROPS)
        train(tiny, group, "two then one: moved", {}, cut=CUT)
        train(tiny, group, "one then two: taken over", {})
        for name, changes, reason in (
            ("diverges", DIVERGES, "no longer finite"),
            ("odd", {"batch_size": 7, "accumulate": 1}, "do not divide into 2 equal parts"),
            ("synchronised", {"sync_bn": True}, "sync_bn: torch has it on GPUs only"),
        ):
            with pytest.raises(UserError, match=reason):
                train(tiny, group, f"two: {name}", changes)
        whole = TrainStep._update
        if rank:
            TrainStep._update = fails_at(2)
        train(tiny, group, "two: short of an update", {})
        TrainStep._update = whole
        if rank:
            short_of_memory(2)
        train(tiny, group, "two: short", {})
        train(tiny, group, "two: short when unfrozen", RECIPES["frozen"])


def fails_at(call: int) -> Callable[[Any], None]:
    """An update that does not fit at one of its calls, after it has moved the weights."""
    whole, calls = TrainStep._update, []

    def update(step: Any) -> None:
        whole(step)
        calls.append(0)
        if len(calls) == call:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")

    return update


def as_three(root: Path, port: int, rank: int) -> None:
    """A run of three processes, once undisturbed and once cut off several times."""
    tiny = Tiny(root)
    with join_process_group(Rank(rank, 3, port), torch.device("cpu")) as group:
        train(tiny, group, "undisturbed: three", THIRDS)
        for cut in (1, 2, 4, CUT, 8):
            train(tiny, group, "cut: three", THIRDS, cut=cut)
        train(tiny, group, "cut: three", THIRDS)


def as_three_then_two(root: Path, three: int, two: int, rank: int) -> None:
    """The work of three processes, and then of the first two, as a process takes seconds to start."""
    os.fsync = lambda _: None
    as_three(root, three, rank)
    if rank < 2:
        as_two(root, two, rank)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """What several processes made, from a folder in which one process had begun."""
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    save_file(build_model(recipe(**PLAIN), LABEL_SPACE, 5).state_dict(), made.root / "given.safetensors")
    train(made, SINGLE_PROCESS, "one then two: taken over", {}, cut=CUT)
    with rendezvous() as three, rendezvous() as two:
        run_together(partial(as_three_then_two, made.root, three, two), 3, "training")
    return made


def learnt(tiny: Tiny, name: str, which: str = "last") -> dict[str, torch.Tensor]:
    """Weights of a run, without the statistics of batch normalisation."""
    state = load_file(tiny.root / f"{name}.{which}")
    return {key: tensor for key, tensor in state.items() if not key.endswith(("_mean", "_var", "_tracked"))}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def test_what_one_says_all_hear(tiny: Tiny) -> None:
    rows, sent, largest, buffer = read_json(tiny.root / "told.json")
    assert rows == [[0.0], [10.0], [20.0], [30.0], [40.0]]
    assert sent == {"rank": 0, "x": 0.1} and largest == 1 and buffer == [0.0, 0.0]


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "in parts, clipped, averaged"])
def test_two_processes_learn_to_the_byte_what_one_learns_in_two_parts(tiny: Tiny, name: str) -> None:
    train(tiny, SINGLE_PROCESS, f"one in two: {name}", RECIPES[name] | {"accumulate": 2})
    one, two = learnt(tiny, f"one in two: {name}"), learnt(tiny, f"two: {name}")
    assert all(torch.equal(one[key], two[key]) for key in one)
    one, two = (read_json(tiny.root / f"{who}: {name}.json") for who in ("one in two", "two"))
    assert one["parts"] == two["parts"] == 2
    assert [row["train_loss"] for row in one["rows"]] == pytest.approx([row["train_loss"] for row in two["rows"]])


@pytest.mark.parametrize("name", ["plain", "mixed", "uphill", "in parts, clipped, averaged", "frozen"])
def test_what_two_processes_learn_differs_from_what_one_learns_by_rounding(tiny: Tiny, name: str) -> None:
    train(tiny, SINGLE_PROCESS, f"one: {name}", RECIPES[name])
    for which in ("last", "chosen"):
        assert largest_difference(learnt(tiny, f"one: {name}", which), learnt(tiny, f"two: {name}", which)) < 1e-5
    one, two = (read_json(tiny.root / f"{who}: {name}.json") for who in ("one", "two"))
    assert one["epochs"] == two["epochs"]
    for score in ("val_loss", "val_macro_f1", "val_accuracy", "val_balanced_accuracy"):
        assert [row[score] for row in one["rows"]] == pytest.approx([row[score] for row in two["rows"]], abs=1e-4)


@pytest.mark.parametrize("count", ["two", "three"])
def test_f36_several_processes_cut_off_end_as_if_they_had_not_been(tiny: Tiny, count: str) -> None:
    for which in ("last", "chosen"):
        cut, whole = (load_file(tiny.root / f"{name}: {count}.{which}") for name in ("cut", "undisturbed"))
        assert all(torch.equal(cut[key], whole[key]) for key in whole)


def test_another_number_of_processes_goes_on(tiny: Tiny) -> None:
    assert list((tiny.resume / "moved").glob("*.ckpt"))
    train(tiny, SINGLE_PROCESS, "two then one: moved", {})
    for name in ("two then one: moved", "one then two: taken over"):
        assert largest_difference(learnt(tiny, name), learnt(tiny, "two: plain")) < 1e-5
        assert [row["epoch"] for row in read_json(tiny.root / f"{name}.json")["rows"]] == [1, 2]


def test_f43_what_does_not_fit_in_one_process_is_halved_in_all(tiny: Tiny) -> None:
    assert read_json(tiny.root / "two: short.json")["parts"] == 4
    assert largest_difference(learnt(tiny, "two: short"), learnt(tiny, "two: plain")) < 1e-5


def test_what_does_not_fit_later_in_one_process_is_halved_in_all(tiny: Tiny) -> None:
    for name, like in (("short when unfrozen", "frozen"), ("short of an update", "short")):
        assert read_json(tiny.root / f"two: {name}.json")["parts"] == 4
        assert largest_difference(learnt(tiny, f"two: {name}"), learnt(tiny, f"two: {like}")) < 1e-5


def test_f42_a_loss_that_is_not_finite_stops_all_and_the_whole_batch_is_named(tiny: Tiny) -> None:
    assert len(read_json(tiny.resume / "diverges/not-finite.json")[0]["image_ids"]) == 8


def test_shared_statistics_keep_a_net_and_its_weights() -> None:
    torch.manual_seed(1)
    model = build_model(recipe(net="test_efficientnet"), LABEL_SPACE, 1).eval()
    images = torch.randn(2, 3, 32, 24)
    before, logits = model.state_dict(), model(images)
    assert any(isinstance(module, BatchNormAct2d) for module in model.modules())
    shared = to_sync_batchnorm(model)
    assert {type(module).__name__ for module in shared.modules() if "Norm" in type(module).__name__} <= {
        "SyncBatchNorm",
        "SyncBatchNormAct",
    }
    assert all(torch.equal(tensor, before[key]) for key, tensor in shared.state_dict().items())
    assert torch.equal(shared.eval()(images), logits)
