"""Trials as trainings: their scores, interruptions and failures, and what a search leaves behind."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from foldvote.config.layout_facts import NumericFactor
from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime, Tracking
from foldvote.config.tuning import Tune
from foldvote.config.yaml_file import load_yaml
from foldvote.data.label_space import LabelSpace
from foldvote.errors import Interrupted, UserError
from foldvote.evaluation.metric_registry import find_metric
from foldvote.evaluation.metrics import log_loss, macro_f1
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.predict_member import PartFiles, predict_member
from foldvote.inference.prediction_files import LOGIT
from foldvote.io.files import read_json
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.report.tuning_figures import FIGURES, save_figures
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import FOLDS, SplitFiles
from foldvote.training.train_member import train_member
from foldvote.training.training_set import MemberInputs
from foldvote.tuning import worker
from foldvote.tuning.pruning import TrialPruner
from foldvote.tuning.results import write_results
from foldvote.tuning.study import SearchSpec, open_journal
from foldvote.tuning.trials import read_trials, summary
from foldvote.tuning.worker import SearchInputs, origin_of, pooled, run_worker, score_of
from support.tiny_member import Tiny, make_tiny, recipe

RESOURCES = JobResources(0, 1, Runtime(workers=0, tracking=Tracking(tensorboard=False)))
SPACE = {"lr": {"float": [1e-4, 1e-2], "log": True}, "optimizer": {"choice": ["adamw", "sgd"]}}
SPACE |= {"optimizer_args.momentum": {"float": [0.5, 0.9], "when": {"optimizer": "sgd"}}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    packed = made.root / "pixels/size=32x24/roi=none/train.arrow"
    packed.parent.mkdir(parents=True)
    shutil.copy(made.pixels, packed)
    return made


def search(tiny: Tiny, folder: Path, *, based: Recipe | None = None, **changes: object) -> dict:
    """What `work` takes, for a search with its folder."""
    tune = Tune.model_validate({"trials": 3, "pruner": "none", "space": SPACE, **changes})
    based = based or recipe(optimizer="adamw")
    return {
        "search": SearchSpec("tiny", based, tune, (0, 2), 1, ["identity", "hflip"]),
        "worker": 0,
        "folder": folder,
        "inputs": SearchInputs(tiny.split, [tiny.root / "pixels/size=32x24/roi=none/train.arrow"]),
        "resources": RESOURCES,
        "code": "code",
        "done": folder / "worker.json",
    }


def results(folder: Path) -> tuple[pd.DataFrame, dict]:
    """What rule tune makes of it."""
    write_results(
        open_journal(folder / "journal.log"), [folder / "worker.json"], folder / "trials.parquet", folder / "best.yaml"
    )
    return read_trials(folder / "trials.parquet")


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    run_worker(**search(tiny, folder))
    return folder


def test_a_trial_reads_the_images_that_are_packed_as_its_recipe_says() -> None:
    paths = [
        Path("x/size=32x24/roi=none/train.arrow"),
        Path("x/size=32x24/roi=none/fit=pad/train.arrow"),
        Path("x/size=132x24/roi=none/train.arrow"),
    ]
    inputs = SearchInputs(SplitFiles(Path(), Path(), Path()), paths[::-1])
    found = [inputs.of(recipe(**changes), 0).images for changes in ({}, {"fit": "pad"}, {"size": "132x24"})]
    assert found == paths
    with pytest.raises(UserError, match="no images are packed at size=32x24 and roi=none and fit=crop"):
        inputs.of(recipe(fit="crop"), 0)


def test_f47_a_gpu_that_cannot_be_used_fails_the_job_and_no_trial(tiny: Tiny, tmp_path: Path) -> None:
    given = search(tiny, tmp_path) | {"resources": replace(RESOURCES, gpus=1)}
    with pytest.raises(UserError, match="a GPU was granted, but torch can use none"):
        run_worker(**given)
    assert not list(tmp_path.iterdir())


def test_the_score_of_a_trial_is_that_of_the_run_which_its_recipe_makes(
    tiny: Tiny, undisturbed: Path, tmp_path: Path
) -> None:
    trials, record = results(undisturbed)
    best = load_yaml(undisturbed / "best.yaml")["recipes"]["tiny-tuned"]
    assert best["epoch"] == "last"
    parts = []
    for fold in (0, 2):
        files = tiny.files(f"best{fold}")
        train_member(
            MemberSeeds(1, "tiny", fold),
            Recipe.model_validate(best),
            "code",
            MemberInputs(tiny.pixels, tiny.split),
            tmp_path / "resume",
            tmp_path,
            files,
            RESOURCES,
        )
        table = tmp_path / f"{fold}.parquet"
        predicted = [PartFiles("oof", tiny.pixels, table, tmp_path / "t.json")]
        predict_member(files.weights, files.sidecar, tiny.split, predicted, ["identity", "hflip"], RESOURCES)
        parts.append(read_table(table))
    rows = pd.concat(parts)
    logits = [name for name in rows if name.startswith(LOGIT)]
    mean = pd.DataFrame(softmax(rows[logits].to_numpy())).groupby(rows["image_id"].to_numpy()).mean()
    labels = rows.groupby("image_id")["label"].first().to_numpy(np.int64)
    score = trials.set_index("number")["score"][record["best"]]
    assert score == macro_f1(labels, mean.to_numpy().argmax(axis=1), 3) == trials["score"].max()


def test_the_table_the_recipe_and_the_figures_say_what_was_done(undisturbed: Path) -> None:
    trials, record = results(undisturbed)
    assert trials["state"].tolist() == ["complete"] * 3
    assert trials["as_it_stands"].tolist() == [True, False, False]
    assert trials["param_lr"][0] == 1e-3 and trials["epochs"].tolist() == [4, 4, 4]
    assert (trials["param_optimizer_args.momentum"].notna() == (trials["param_optimizer"] == "sgd")).all()
    assert trials[["fold_0", "fold_2"]].notna().all(axis=None) and (trials["seconds"] > 0).all()
    assert read_json(undisturbed / "worker.json")["trials"] == [0, 1, 2]
    assert not list((undisturbed / "resume").rglob("*.ckpt"))
    head = (undisturbed / "best.yaml").read_text(encoding="utf-8")
    assert "# Searched on folds 0, 2." in head and f"include: [{undisturbed / 'best.yaml'}]" in head
    lines = summary(trials, record)
    assert lines[0].endswith("3 complete") and len(lines) == 5 and sum("(unchanged)" in line for line in lines) == 1
    save_figures(trials, record, undisturbed)
    for name in FIGURES:
        assert (undisturbed / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        assert (undisturbed / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_f38_a_trial_that_was_told_to_stop_goes_on_in_mid_training_and_comes_to_the_same(
    tiny: Tiny, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = TrialPruner.report

    def stop(pruner: TrialPruner, place: int, *rest: object) -> str:
        if (pruner.asked.number, place) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return report(pruner, place, *rest)

    given = search(tiny, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(TrialPruner, "report", stop)
        with pytest.raises(Interrupted, match="trial 1 stopped as asked"):
            run_worker(**given)
    assert not given["done"].exists()
    run_worker(**given)
    told = capsys.readouterr().err
    assert "trial 2 fold 2: goes on at epoch 2" in told.replace("epoch 3", "epoch 2")
    trials, _ = results(tmp_path)
    assert trials["state"].tolist() == ["complete", "interrupted", "complete", "complete"]
    assert trials["repeats"].tolist()[2] == 1
    same = ["score", "param_lr", "param_optimizer", "fold_0", "fold_2", "epochs"]
    done = trials[trials["state"] == "complete"].reset_index(drop=True)
    pd.testing.assert_frame_equal(done[same], results(undisturbed)[0][same])


def test_values_that_do_not_train_fail_their_trial_and_equal_ones_are_trained_once(tiny: Tiny, tmp_path: Path) -> None:
    space = {"accumulate": {"choice": [1, 4]}, "batch_size": {"choice": [8, 6]}}
    run_worker(**search(tiny, tmp_path, trials=9, sampler="random", space=space, folds=[0]))
    trials, record = results(tmp_path)
    bad = (trials["param_accumulate"] == "4") & (trials["param_batch_size"] == "6")
    assert (trials["state"] == np.where(bad, "failed", "complete")).all() and 0 < bad.sum() < 9
    assert trials["fault"][bad].str.contains("accumulate 4 does not cut batch_size 6").all()
    assert record["best"] in trials["number"][~bad].tolist()
    values = ["param_accumulate", "param_batch_size"]
    good = trials[~bad]
    assert (good["same_as"].isna() == ~good.duplicated(values)).all() and good["same_as"].notna().any()
    assert good.groupby(values)["score"].nunique().eq(1).all()


def test_what_is_wrong_with_the_data_ends_the_job_and_fails_no_trial(tiny: Tiny, tmp_path: Path) -> None:
    given = search(tiny, tmp_path)
    with pytest.raises(UserError, match="no images are packed at size=32x24"):
        run_worker(**given | {"inputs": SearchInputs(tiny.split, [])})
    run_worker(**given)
    assert results(tmp_path)[0]["state"].value_counts().to_dict() == {"complete": 3, "interrupted": 1}


def test_a_pruned_trial_has_no_score_and_fewer_epochs(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_out_of_fold", lambda trained, *_: np.full((16, 3), 1 / 3))
    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    based = recipe(optimizer="adamw", lr=1e-2)
    space = {"lr": {"float": [1e-7, 1e-2], "log": True}}
    run_worker(
        **search(tiny, tmp_path, based=based, trials=5, pruner=pruner, score="log_loss", sampler="random", space=space)
    )
    trials, record = results(tmp_path)
    pruned = trials[trials["state"] == "pruned"]
    assert len(pruned) and pruned["score"].isna().all() and (pruned["epochs"] < 4).all()
    assert not record["higher_is_better"]


def test_other_bytes_of_the_same_weights_file_are_another_study(tiny: Tiny, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    inputs = SearchInputs(tiny.split, [tiny.pixels], {"weights.safetensors": weights})
    weights.write_bytes(b"one")
    before = origin_of(inputs, "code")
    assert before == origin_of(inputs, "code") != origin_of(inputs, "other code")
    weights.write_bytes(b"two")
    assert origin_of(inputs, "code") != before


def test_ages_that_trials_may_learn_by_are_in_the_digests_of_a_search(tiny: Tiny, tmp_path: Path) -> None:
    numeric = NumericFactor(name="age", column="age_years", borders=(30, 60))
    inputs = SearchInputs(tiny.split, [tiny.pixels], manifest=tmp_path / "manifest.parquet", numeric=numeric)
    digests = []
    for age in (45, 45, 58):
        table = pd.DataFrame({"image_id": ["a", "b"], "age_years": [20, age]})
        write_table(table, tmp_path / "manifest.parquet", pa.Schema.from_pandas(table, preserve_index=False))
        digests.append(origin_of(inputs, "code"))
    assert digests[0] == digests[1] != digests[2]
    assert "numbers_sha256" not in origin_of(replace(inputs, manifest=None), "code")


def test_strata_that_a_sampler_may_draw_by_are_in_the_digests_of_a_search(tiny: Tiny, tmp_path: Path) -> None:
    folds, record = read_table(tiny.split.folds), read_record(tiny.split.folds)
    other = replace(tiny.split, folds=tmp_path / "folds.parquet")
    digests = []
    for strata in (folds["stratum"], "all"):
        write_table(folds.assign(stratum=strata), other.folds, FOLDS, ("image_id", "repeat"), record)
        digests.append(origin_of(SearchInputs(other, [tiny.pixels]), "code"))
    assert digests[0] == origin_of(SearchInputs(tiny.split, [tiny.pixels]), "code") != digests[1]


def test_an_image_of_several_repeats_counts_once_with_its_mean() -> None:
    one = pd.DataFrame({"image_id": ["b", "a"], "label": [1, 0], "p": [np.array([0.9, 0.1]), np.array([0.8, 0.2])]})
    other = pd.DataFrame({"image_id": ["a", "b"], "label": [0, 1], "p": [np.array([0.6, 0.4]), np.array([0.3, 0.7])]})
    labels, probabilities = pooled([one, other])
    assert labels.tolist() == [0, 1]
    assert probabilities == pytest.approx(np.array([[0.7, 0.3], [0.6, 0.4]]))
    found = {
        name: score_of(find_metric(name), labels, probabilities, LabelSpace(("no", "yes")))
        for name in ("accuracy", "balanced_accuracy", "log_loss", "roc_auc")
    }
    assert found == {
        "accuracy": 0.5,
        "balanced_accuracy": 0.5,
        "log_loss": log_loss(labels, probabilities),
        "roc_auc": 1,
    }


@pytest.mark.parametrize("name", ["roc_auc", "brier", "surest.py"])
def test_trials_are_scored_by_any_metric(tiny: Tiny, tmp_path: Path, name: str) -> None:
    own = "def surest(labels, probabilities, names):\n    return probabilities.max(axis=1).mean()\n"
    (tmp_path / "surest.py").write_text(own, encoding="utf-8")
    given = search(tiny, tmp_path, trials=2, score=name, pruner="median")
    if name == "surest.py":
        given["inputs"] = replace(given["inputs"], metric=tmp_path / "surest.py")
        assert "metric_sha256" in origin_of(given["inputs"], "code")
    run_worker(**given)
    trials, record = results(tmp_path)
    assert record["score"] == name and record["higher_is_better"] == (name != "brier")
    scores = trials["score"].dropna()
    assert len(scores) == 2 and scores.between(0, 1).all()
    assert record["best"] == (scores.idxmin() if name == "brier" else scores.idxmax())
    if name != "roc_auc":  # means over images, and both folds have as many; an AUC ranks the images of both together
        both = trials[["fold_0", "fold_2"]].to_numpy()
        assert both.mean(axis=1) == pytest.approx(trials["score"].to_numpy())


def test_f178_a_fold_in_which_the_score_is_not_defined_is_noted_as_such(tiny: Tiny, tmp_path: Path) -> None:
    own = "def of_both(labels, probabilities, names):\n    return 0.5 if len(labels) > 16 else float('nan')\n"
    (tmp_path / "of_both.py").write_text(own, encoding="utf-8")  # a fold has 16 images
    given = search(tiny, tmp_path, trials=1, score="of_both.py", pruner="median")
    given["inputs"] = replace(given["inputs"], metric=tmp_path / "of_both.py")
    run_worker(**given)
    trials, _ = results(tmp_path)
    assert trials["score"].tolist() == [0.5] and trials[["fold_0", "fold_2"]].isna().all(axis=None)


def test_nothing_complete_is_told_and_leaves_no_files(tiny: Tiny, tmp_path: Path) -> None:
    run_worker(**search(tiny, tmp_path, trials=1, space={"accumulate": {"choice": [4]}, "batch_size": {"choice": [6]}}))
    with pytest.raises(UserError, match="none of 1 trials is complete; the last one that failed: these values"):
        results(tmp_path)
    assert not (tmp_path / "trials.parquet").exists() and not (tmp_path / "best.yaml").exists()


def test_a_trial_of_a_student_has_the_teachers_of_its_fold(tiny: Tiny) -> None:
    images, place = Path("size=32x24/roi=none/train.arrow"), "{part}/model={model}/fold={fold}/predictions.parquet"
    files = {
        part: [Path(place.format(part=part, model=model, fold=fold)) for model in ("one", "two") for fold in (0, 1)]
        for part in ("teach", "test")
    }
    inputs = SearchInputs(tiny.split, [images], pseudo_images=[images], pseudo=files["test"], teachers=files["teach"])
    assert inputs.of(recipe(), 1).teachers == () and inputs.of(recipe(), 1).pseudo is None
    own = inputs.of(recipe(distill={"models": ["two"]}), 1)
    assert own.teachers == (Path(place.format(part="teach", model="two", fold=1)),) and own.pseudo is None
    both = inputs.of(recipe(distill={"models": ["one"], "test_images": True}), 0)
    assert both.pseudo is not None
    assert both.pseudo.predictions == (Path(place.format(part="test", model="one", fold=0)),)
