"""The trial of compiled nets: it picks what ends first, remembers what it measured, and changes nothing else."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from foldvote.config.runtime import Runtime, Tracking
from foldvote.io.files import read_json
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.runtime.distributed import ProcessGroup
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training import loop
from foldvote.training.compile_trial import DEFAULT, GRAPHS, CompileTrial, Net, fastest, trial_of
from foldvote.training.loop import Trainer
from foldvote.training.optimizer import make_optimizer
from foldvote.training.state import Progress, TrainState, build_spec
from foldvote.training.step import TrainStep
from foldvote.training.training_set import MemberInputs
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

FAST = Device(torch.device("cpu"), torch.float32, torch.contiguous_format, reproducible=False)
MODEL, IMAGES = nn.Linear(3, 2), torch.ones(4, 3)
OF = {"net": "linear", "batch_size": 4}
BATCH = torch.randint(0, 256, (8, 32, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 3

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Machine:
    """A pretended machine: compiled nets compute what the net does, and each pass of a net takes pretended seconds.

    Attributes:
        seconds: of a pass in each mode; "plain" as the net is.
        starts: seconds of compilation, at the first pass.
        broken: modes that fail at their first pass.
        really: whether torch.compile is used.
        compiled: modes that were compiled, in order.
    """

    seconds: dict[str, float] = field(default_factory=lambda: {"plain": 1.0, DEFAULT: 0.5, GRAPHS: 0.25})
    starts: dict[str, float] = field(default_factory=lambda: {DEFAULT: 40.0, GRAPHS: 60.0})
    broken: set[str] = field(default_factory=set)
    really: bool = False
    compiled: list[str] = field(default_factory=list)
    now: float = 0.0
    passes: int = 0

    def compile(self, model: nn.Module, mode: str) -> Net:
        self.compiled.append(mode)
        waiting = [self.starts[mode]]
        net = torch.compile(model, backend="eager") if self.really else model

        def run(images: torch.Tensor) -> torch.Tensor:
            if mode in self.broken:
                raise BackendCompilerFailed(self.compile, RuntimeError("Failed to find C compiler: CC\nmore"), None)
            self.now += self.seconds[mode] + (waiting.pop() if waiting else 0.0)
            return net(images)

        return run

    def run(self, net: Net) -> None:
        self.passes += 1
        if isinstance(net, nn.Module):
            self.now += self.seconds["plain"]
        net(IMAGES)

    def trial(self, file: Path, device: Device = FAST) -> CompileTrial:
        return CompileTrial(file, device, self.compile, lambda: self.now)

    def choose(self, file: Path, steps: int, whole: bool = True, **of: Any) -> tuple[Net, str | None]:
        return self.trial(file).choose(MODEL, OF | of, whole, self.run, steps)


def test_what_ends_first_is_chosen_and_measured_once_for_all_members(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine, file = Machine(), tmp_path / "compile.json"
    net, mode = machine.choose(file, 1000)
    assert mode == GRAPHS and torch.equal(net(IMAGES), MODEL(IMAGES))
    assert machine.compiled == [DEFAULT, GRAPHS, GRAPHS]
    (entry,) = read_json(file)
    assert entry["of"] == OF | {"device": "CPU", "torch": torch.__version__} and entry["plain"] == 1.0
    assert entry["modes"] == {DEFAULT: {"start": 42.0, "step": 0.5}, GRAPHS: {"start": 61.0, "step": 0.25}}
    told = "compile: 1000.0 ms a step as it is, default 500.0 ms after 42 s, reduce-overhead 250.0 ms after 61 s"
    assert f"{told}; for 1,000 steps: reduce-overhead" in capsys.readouterr().err
    later = Machine()
    assert [later.choose(file, steps)[1] for steps in (1000, 80, 10)] == [GRAPHS, None, None]
    assert later.compiled == [GRAPHS] and later.passes == 1  # only to see that it runs
    assert later.choose(file, 1000, batch_size=8)[1] == GRAPHS and len(read_json(file)) == 2


def test_a_short_training_makes_no_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine()
    net, mode = machine.choose(tmp_path / "compile.json", 80)
    assert net is MODEL and mode is None and not machine.compiled and not list(tmp_path.iterdir())
    assert "no trial for 80 steps" in capsys.readouterr().err


@pytest.mark.parametrize(("broken", "mode"), [({GRAPHS}, DEFAULT), ({DEFAULT}, GRAPHS), ({DEFAULT, GRAPHS}, None)])
def test_a_mode_that_fails_is_left_out_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: set[str], mode: str | None
) -> None:
    machine, file = Machine(broken=broken), tmp_path / "compile.json"
    net, chosen = machine.choose(file, 1000)
    assert chosen == mode and torch.equal(net(IMAGES), MODEL(IMAGES))
    lines = [line for line in capsys.readouterr().err.splitlines() if "Failed to find C compiler" in line]
    assert len(lines) == len(broken) and all("more" not in line for line in lines)
    assert {name for name, one in read_json(file)[0]["modes"].items() if one is None} == broken


def test_what_another_machine_could_compile_and_this_one_cannot_is_not_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "compile.json"
    Machine().choose(file, 1000)
    assert Machine(broken={DEFAULT, GRAPHS}).choose(file, 1000) == (MODEL, None)
    assert "reduce-overhead failed, so the net is not compiled (Failed to find C compiler" in capsys.readouterr().err


def test_in_parts_there_are_no_cuda_graphs_and_a_damaged_file_is_measured_anew(tmp_path: Path) -> None:
    machine, file = Machine(), tmp_path / "compile.json"
    file.write_text("[{")
    assert machine.choose(file, 1000, whole=False)[1] == DEFAULT
    assert set(read_json(file)[0]["modes"]) == {DEFAULT}


@given(
    plain=st.floats(1e-3, 10),
    modes=st.dictionaries(
        st.sampled_from([DEFAULT, GRAPHS]),
        st.none() | st.fixed_dictionaries({"start": st.floats(0, 100), "step": st.floats(1e-3, 10)}),
    ),
    steps=st.integers(1, 10**6),
)
def test_no_other_way_would_end_earlier(plain: float, modes: dict[str, Any], steps: int) -> None:
    ends = {mode: one["start"] + one["step"] * steps for mode, one in modes.items() if one} | {None: plain * steps}
    assert ends[fastest({"plain": plain, "modes": modes}, steps)] == min(ends.values())


def test_only_fast_training_in_one_process_is_tried(tmp_path: Path) -> None:
    resume = tmp_path / "resume/model=m/fold=0"
    made = trial_of(recipe(), FAST, resume)
    assert made is not None and made._file == tmp_path / "resume/compile.json"
    for asked, device in (
        (recipe(), replace(FAST, reproducible=True)),
        (recipe(), replace(FAST, group=ProcessGroup(0, 2))),
        (recipe(compile=True), FAST),
        (recipe(compile=False), FAST),
        (recipe(drop_path=0.1, drop_path_schedule="rising"), FAST),
    ):
        assert trial_of(asked, device, resume) is None


def steps_of(trial: CompileTrial | None, numbers: range, parts: int = 1) -> tuple[TrainStep, list[float]]:
    """Take steps from the same start, and give the step with its losses."""
    asked = recipe(drop_rate=0.5, mix="mixup")
    model = build_model(asked, LABEL_SPACE, 1).train()
    state = TrainState(model, make_optimizer(asked, model), FAST.scaler(), Progress())
    step = TrainStep(asked, MemberSeeds(1, "tiny", 0), state, np.array([3, 3, 2]), FAST, trial=trial)
    return step, [step.fit_in_memory(BATCH, LABELS, number, parts, 1000)[0].item() for number in numbers]


@pytest.mark.parametrize("broken", [{DEFAULT, GRAPHS}, {DEFAULT}])
def test_a_trial_leaves_weights_statistics_and_draws_as_they_were(tmp_path: Path, broken: set[str]) -> None:
    plain, losses = steps_of(None, range(5))
    machine = Machine(broken=broken, really=True)
    looks = iter([0.0, 1.0, 21.0, 30.0, 40.0, 41.0, 51.0])  # two seconds a step as it is, then one
    trial = CompileTrial(tmp_path / "compile.json", FAST, machine.compile, lambda: next(looks))
    tried, same = steps_of(trial, range(5))
    chosen = [] if GRAPHS in broken else [GRAPHS]
    assert machine.compiled == [DEFAULT, GRAPHS, *chosen] and tried.compiled == (chosen or [None])[0]
    assert same == losses
    torch.testing.assert_close(tried.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)


class Always(CompileTrial):
    """A trial that always compiles, and notes for how many steps and which tensors."""

    def __init__(self, mode: str | None = DEFAULT) -> None:
        super().__init__(Path("unused"), FAST)
        self.mode, self.asked = mode, list[tuple[int, int, int]]()

    def choose(self, model: nn.Module, of: dict[str, Any], whole: bool, run: Any, steps_ahead: int) -> Any:
        self.asked.append((of["learning"], of["parts"], steps_ahead))
        return lambda images: model(images), self.mode


def test_a_batch_that_no_longer_fits_is_chosen_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Always(GRAPHS)
    step, _ = steps_of(trial, range(3))
    assert step.compiled == GRAPHS and [asked[1] for asked in trial.asked] == [1]
    accumulate, seen = step._accumulate_gradients, list[int]()

    def limited(net: Net, images: torch.Tensor, targets: torch.Tensor, parts: int, around: Any) -> torch.Tensor:
        seen.append(parts)
        if parts == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return accumulate(net, images, targets, parts, around)

    monkeypatch.setattr(step, "_accumulate_gradients", limited)
    assert step.fit_in_memory(BATCH, LABELS, 3, 1, 10)[1] == 2
    assert step.compiled is None and step._net is step.model
    step.fit_in_memory(BATCH, LABELS, 4, 2, 9)
    assert [asked[1:] for asked in trial.asked] == [(1, 1000), (2, 9)] and seen == [1, 2, 2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def test_a_member_that_unfreezes_is_tried_again_and_says_how_it_was_trained(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Always()
    monkeypatch.setattr(loop, "trial_of", lambda *_: trial)
    asked = recipe(epochs=3, freeze_epochs=1, pretrained="given", warmup_epochs=0)
    monkeypatch.setattr("foldvote.training.state.build_model", lambda *_: build_model(recipe(), LABEL_SPACE, 1))
    spec = build_spec(MemberSeeds(1, "tiny", 0), asked, "code", MemberInputs(tiny.pixels, tiny.split))
    runtime = Runtime(tracking=Tracking(tensorboard=False))
    trainer = Trainer(spec, FAST, tmp_path / "resume/model=tiny/fold=0", runtime, 0)
    trainer.fit()
    steps, everything = spec.order.steps, len(list(trainer.state.model.parameters()))
    assert trial.asked == [(2, 1, steps - 2), (everything, 1, 2 * steps - 2)]
    assert trainer.state.progress.compiled == DEFAULT
