"""The plan before training: what is measured, what it says, and what cannot be planned."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from foldvote.config.run_plan import KEPT_BACK
from foldvote.config.runtime import Runtime
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training import loop, speed
from foldvote.training.plan_run import Limits, Wanted, write_plan
from foldvote.training.speed import Speed, measure_speed
from foldvote.training.training_set import MemberInputs
from support.tiny_member import Tiny, make_tiny_with_tests, recipe

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = JobResources(0, 1, Runtime(workers=0, predict_batch=16))
MEASURED = Speed(2.0, 0.5, 0.01, 0.03, "CPU")
HOUR = Limits(hours=1.0, spent_seconds=100.0, least_epochs=0.5, at_once=1, import_seconds=7.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny_with_tests(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MOST_SECONDS", 0.01)
    monkeypatch.setattr(speed, "PREDICTED_SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pretrained": "absent.pth", "freeze_epochs": 2, "ema": 0.9},
        {"distill": {"models": ["other"]}, "mix": "mixup", "accumulate": 4},
        {"progressive": {"size": "16x12", "epochs": 1}, "augment": {"hflip": 0.5, "crop": 0.1}, "augment_on": "device"},
        {"schedule": {"name": "polynomial", "power": 1.5}, "epochs": 1, "labels": {"soft_years": 2}},
    ],
    ids=["plain", "frozen", "student", "device", "short"],
)
def test_every_recipe_is_measured_without_what_it_takes_from_elsewhere(
    changes: dict[str, object], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    train_step = speed.Trainer.train_step
    monkeypatch.setattr(speed.Trainer, "train_step", lambda *given: taken.append(1) or train_step(*given))
    before = sorted(tiny.root.rglob("*"))
    inputs = MemberInputs(tiny.pixels, tiny.split)
    found, spec = measure_speed(MemberSeeds(1, "tiny", 0), recipe(**changes), inputs, ["identity", "hflip"], HERE)
    assert len(taken) >= speed.WARM_STEPS + speed.LEAST_STEPS
    assert all(0 < value < 60 for value in (found.step_seconds, found.image_seconds, found.views_seconds))
    assert math.isfinite(found.start_seconds) and found.device == "CPU"
    assert len(spec.training_set.training) + len(spec.training_set.validation) == 48
    assert sorted(tiny.root.rglob("*")) == before


def planned(tiny: Tiny, limits: Limits, monkeypatch: pytest.MonkeyPatch, **more: Wanted) -> dict[str, dict]:
    """The plan of models as slow as MEASURED, each of 10 epochs of 4 steps and 16 validation images."""

    def measured(seeds: MemberSeeds, *given: object) -> object:
        return MEASURED, speed.build_spec(seeds, recipe(epochs=10), "", MemberInputs(tiny.pixels, tiny.split))

    monkeypatch.setattr("foldvote.training.plan_run.measure_speed", measured)
    inputs = MemberInputs(tiny.pixels, tiny.split)
    one = Wanted(recipe(epochs=10), inputs, tiny.root / "test.arrow", (), teaches=False)
    path = tiny.root / "plan/plan.json"
    write_plan({"a": one, "b": one, **more}, 1, 3, ["identity"], limits, "this", path, HERE)
    return read_json(path)


def test_a_model_costs_its_epochs_the_starts_of_its_jobs_and_its_predictions(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = planned(tiny, HOUR, monkeypatch)
    epoch, other = 0.1 + 4 * 0.5 + 16 * 0.01, 2 * (1 + 7 + 2) + (16 + 8) * 0.03
    for model in plan["models"].values():
        assert (model["epochs"], model["asked_epochs"]) == (10, 10)
        assert model["epoch_seconds"] == pytest.approx(epoch)
        assert model["member_seconds"] == pytest.approx(10 * epoch + other, abs=0.1)
    # What the members are allowed, and everything else as much slower, is the hour.
    ends = 100 + 30
    slack = plan["models"]["a"]["minutes"] * 60 / (10 * epoch)
    assert slack * 6 * (10 * epoch + other) + ends == pytest.approx(3600, rel=0.001)
    assert plan["planned_hours"] * 3600 == pytest.approx(6 * (10 * epoch + other) + ends, rel=0.01)
    told = capfd.readouterr().err
    assert "plan: a: 10 of 10 epochs, 3 members, 2 min" in told


def test_what_does_not_fit_is_cut_and_said(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    limits = replace(HOUR, hours=375 / 3600 / (1 - KEPT_BACK))
    plan = planned(tiny, limits, monkeypatch)
    assert [model["epochs"] for model in plan["models"].values()] == [9, 8]
    assert "plan: a: 9 of 10 epochs, 3 members" in capfd.readouterr().err
    plan = planned(tiny, replace(limits, least_epochs=1.0), monkeypatch)
    assert [model["epochs"] for model in plan["models"].values()] == [10, 0]
    assert "plan: b: left out; all of it" in capfd.readouterr().err


def test_a_time_in_which_nothing_fits_is_refused_with_one_that_suffices(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"max_hours: 0\.05 is too little: a alone, with 3 members of 5 of 10") as told:
        planned(tiny, replace(HOUR, hours=0.05), monkeypatch)
    hours = float(str(told.value).split("set ")[1].split()[0])
    plan = planned(tiny, replace(HOUR, hours=hours), monkeypatch)
    assert plan["models"]["a"]["epochs"] >= 5 and plan["models"]["b"]["epochs"] == 0


@pytest.mark.usefixtures("quick")
def test_no_compiler_is_tried_while_a_model_is_measured(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a trial takes a minute, and would write its file two folders above that of the measurement."""
    seen: list[object] = []
    monkeypatch.setattr(loop, "trial_of", lambda chosen, *_: seen.append(chosen.compile))
    inputs = MemberInputs(tiny.pixels, tiny.split)
    measure_speed(MemberSeeds(1, "tiny", 0), recipe(compile="auto"), inputs, ["identity"], HERE)
    assert seen == [False]


def test_a_teacher_predicts_more_and_test_images_are_more_steps(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, test = MemberInputs(tiny.pixels, tiny.split), tiny.root / "test.arrow"
    second = recipe(epochs=10, pseudo={"models": ["a"]})
    more = {
        "teacher": Wanted(recipe(epochs=10), inputs, Path(test), (), teaches=True),
        "second": Wanted(second, inputs, Path(test), ("a",), teaches=False),
        "averaged": Wanted(recipe(epochs=10, swa=0.5), inputs, None, (), teaches=False),
    }
    models = planned(tiny, HOUR, monkeypatch, **more)["models"]
    of = {name: models[name]["member_seconds"] - models["a"]["member_seconds"] for name in more}
    assert of["teacher"] == pytest.approx(10 + 32 * 0.03, abs=0.2)
    assert models["second"]["epoch_seconds"] == pytest.approx(4 * 1.25 * 0.5 + 0.16 + 0.1)
    assert of["averaged"] == pytest.approx(10 * 32 * 0.01 - 8 * 0.03, abs=0.2)
