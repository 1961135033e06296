"""Training one member: repeatable, resumable at any step, and careful of what it resumes from."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from foldvote.config.data import Images
from foldvote.config.run_plan import PlannedModel
from foldvote.config.runtime import Runtime, Tracking
from foldvote.data.label_space import factor_label_space, write_label_space
from foldvote.data.packed_images import PackedImages, pack_images
from foldvote.errors import INTERRUPTED, Interrupted, UserError
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.predict_member import PartFiles, predict_member
from foldvote.inference.prediction_files import LOGIT
from foldvote.io.files import read_json, sha256_file
from foldvote.io.parquet import read_record, read_table
from foldvote.runtime.job_log import job
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.splits.folds import fold_rows, read_folds
from foldvote.training.history import HISTORY
from foldvote.training.step import TrainStep
from foldvote.training.train_member import train_member
from foldvote.training.training_set import MemberInputs
from support.tiny_member import Tiny, make_tiny, recipe

RESOURCES = JobResources(gpus=0, threads=1, runtime=Runtime(workers=0, checkpoint_minutes=0.0001))
CHILDREN = multiprocessing.get_context("forkserver")  # a server that has imported torch once but never run it
CHILDREN.set_forkserver_preload(["foldvote.training.train_member", "foldvote.runtime.job_log"])


def train(
    tiny: Tiny,
    name: str,
    workers: int = 0,
    seed: int = 1,
    fold: int = 0,
    processes: int = 1,
    checkpoint_minutes: float = 0.0001,
    planned: PlannedModel | None = None,
    **changes: object,
) -> None:
    settings = {"workers": workers, "checkpoint_minutes": checkpoint_minutes, "cpu_processes": processes}
    resources = JobResources(0, processes, Runtime(**settings, tracking=Tracking(tensorboard=False)))
    seeds = MemberSeeds(seed, "tiny", fold)
    inputs = MemberInputs(tiny.pixels, tiny.split)
    resume, runs = tiny.resume / name, tiny.root / "runs"
    train_member(seeds, recipe(**changes), "code", inputs, resume, runs, tiny.files(name), resources, planned)


def weights_of(tiny: Tiny, name: str) -> tuple[str, str]:
    return sha256_file(tiny.files(name).weights), sha256_file(tiny.files(name).last)


def run_as_job(root: Path, name: str, changes: dict[str, Any]) -> None:
    with job(root / f"{name}.log"):
        train(Tiny(root), name, **changes)


def start_child(tiny: Tiny, name: str, **changes: object) -> BaseProcess:
    child = CHILDREN.Process(target=run_as_job, args=(tiny.root, name, changes))
    child.start()
    return child


def stop_child(child: BaseProcess, number: signal.Signals) -> int | None:
    os.kill(child.pid, number)
    child.join(60)
    return child.exitcode


def wait_for_checkpoint(child: BaseProcess, tiny: Tiny, name: str, step: int) -> None:
    """Wait until the run is at least `step` optimizer steps old."""
    while child.is_alive():
        if any(int(path.stem.split("-")[1]) >= step for path in (tiny.resume / name).glob("step-*.ckpt")):
            return
        time.sleep(0.005)
    raise AssertionError((tiny.root / f"{name}.log").read_text())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    train(made, "undisturbed")
    return made


def test_outputs_are_complete_and_the_resume_folder_is_emptied(tiny: Tiny) -> None:
    files = tiny.files("undisturbed")
    history = read_table(files.history, HISTORY)
    assert history["epoch"].tolist() == [1, 2]
    assert history["best"].sum() == 1
    assert history.loc[history["best"], "val_macro_f1"].item() == history["val_macro_f1"].max()
    sidecar = read_json(files.sidecar)
    assert sidecar["sha256"] == sha256_file(files.weights)
    assert sidecar["epochs"] == [history.loc[history["best"], "epoch"].item()]
    assert sidecar["reproducible"] is True and "plan" not in sidecar
    assert not list((tiny.resume / "undisturbed").glob("*.ckpt"))
    timing = read_json(files.timing)
    assert 0 < timing["waited_seconds"] < timing["seconds"] == history["seconds"].sum()
    assert 2**26 < timing["peak_host_bytes"] < 2**37 and timing["peak_gpu_bytes"] == 0


def test_a_training_that_is_slower_than_planned_ends_in_time_and_says_so(
    tiny: Tiny, capfd: pytest.CaptureFixture[str]
) -> None:
    train(tiny, "slow", planned=PlannedModel(epochs=2, asked_epochs=9, minutes=1e-6))
    assert "ends after epoch 1" in (told := capfd.readouterr().err) and "share of runtime.max_hours, 1e-06" in told
    assert read_json(tiny.files("slow").sidecar)["plan"] == {"asked_epochs": 9, "trained_epochs": 1}
    train(tiny, "as planned", planned=PlannedModel(epochs=2, asked_epochs=9, minutes=60))
    assert read_json(tiny.files("as planned").sidecar)["plan"] == {"asked_epochs": 9, "trained_epochs": 2}
    assert weights_of(tiny, "as planned") == weights_of(tiny, "undisturbed")


def test_an_operation_that_cannot_be_reproduced_ends_the_training_in_a_line_that_names_the_key(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, but you")

    monkeypatch.setattr(TrainStep, "_accumulate_gradients", refused)
    with pytest.raises(UserError, match=r"upsample_bicubic2d_backward_out_cuda has .* runtime.reproducible: false"):
        train(tiny, "refused")


def test_f34_labels_of_persons_that_were_permuted_are_learnt_by_heart_and_score_at_chance(tmp_path: Path) -> None:
    by_heart = {"batch_size": 16, "epochs": 8, "lr": 5e-3, "drop_rate": 0, "label_smoothing": 0, "epoch": "last"}
    persons, last = 24, {}
    permuted = generator(4, "permuted").permutation([person % 3 for person in range(persons)]).tolist()
    for name, told in (("true", None), ("permuted", permuted)):
        made = make_tiny(tmp_path / name, persons, k=2, told=told)
        train(made, name, checkpoint_minutes=10, augment="none", **by_heart)
        last[name] = read_table(made.files(name).history, HISTORY).iloc[-1]
    assert last["true"]["val_accuracy"] > 0.9
    assert last["permuted"]["train_loss"] < 0.5
    assert last["permuted"]["val_accuracy"] < 0.55


def test_f48_same_seed_same_bytes_whatever_the_workers(tiny: Tiny) -> None:
    train(tiny, "two_workers", workers=2)
    assert weights_of(tiny, "two_workers") == weights_of(tiny, "undisturbed")


def test_f48_another_seed_or_fold_gives_other_weights(tiny: Tiny) -> None:
    train(tiny, "other_seed", seed=2)
    train(tiny, "other_fold", fold=1)
    assert len({weights_of(tiny, name)[1] for name in ("undisturbed", "other_seed", "other_fold")}) == 3


@pytest.mark.parametrize(("step", "workers"), [(2, 0), (6, 1)])
def test_f36_killed_at_a_step_and_run_again_gives_the_same_bytes(tiny: Tiny, step: int, workers: int) -> None:
    name = f"killed_at_{step}"
    child = start_child(tiny, name, workers=workers)
    wait_for_checkpoint(child, tiny, name, step)
    assert stop_child(child, signal.SIGKILL) == -signal.SIGKILL
    assert not tiny.files(name).weights.exists()
    train(tiny, name)
    assert weights_of(tiny, name) == weights_of(tiny, "undisturbed")


@pytest.mark.parametrize("changes", [{"swa": 0.5}, {"soup": 2}], ids=["swa", "soup"])
def test_f36_averages_of_nets_that_drop_paths_survive_a_kill(tiny: Tiny, changes: dict[str, Any]) -> None:
    name, asked = f"killed_{next(iter(changes))}", changes | {"net": "test_efficientnet", "drop_path": 0.3, "epochs": 3}
    train(tiny, f"{name}_whole", **asked)
    child = start_child(tiny, name, **asked)
    wait_for_checkpoint(child, tiny, name, 9)  # in the last epoch, after an average of the second one
    assert stop_child(child, signal.SIGKILL) == -signal.SIGKILL
    train(tiny, name, **asked)
    assert weights_of(tiny, name) == weights_of(tiny, f"{name}_whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_f38_a_signal_saves_the_state_and_has_its_own_exit_code(tiny: Tiny, number: signal.Signals) -> None:
    name = f"stopped_{number.name}"
    child = start_child(tiny, name)
    wait_for_checkpoint(child, tiny, name, 1)
    assert stop_child(child, number) == INTERRUPTED
    told = (tiny.root / f"{name}.log").read_text()
    assert "state saved" in told
    assert "Traceback" not in told
    train(tiny, name)
    assert weights_of(tiny, name) == weights_of(tiny, "undisturbed")


def at_step(tiny: Tiny, name: str, step: int, act: Callable[[], object]) -> threading.Thread:
    """Do something as soon as a run of this process is so many steps old."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while not any(int(path.stem.split("-")[1]) >= step for path in (tiny.resume / name).glob("step-*.ckpt")):
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_f38_f44_two_processes_are_killed_and_stopped_as_one_and_one_goes_on(
    tiny: Tiny, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {"epochs": 12, "net": "test_efficientnet_gn"}
    own = set(multiprocessing.active_children())

    def kill_one() -> None:
        os.kill(next(iter(set(multiprocessing.active_children()) - own)).pid, signal.SIGKILL)

    killer = at_step(tiny, "group", 2, kill_one)
    with pytest.raises(UserError, match=r"tiny fold 0: process [12] of 2 was ended by SIGKILL, and the others with it"):
        train(tiny, "group", processes=2, **changes)
    killer.join()
    capfd.readouterr()
    stopper = at_step(tiny, "group", 20, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="tiny fold 0: stopped as asked, state saved; the same command goes on"):
        train(tiny, "group", processes=2, **changes)
    stopper.join()
    told = capfd.readouterr().err
    assert told.count("goes on at epoch") == 2  # each process says so to the log
    assert "Traceback" not in told
    assert set(multiprocessing.active_children()) <= own
    train(tiny, "group", **changes)
    assert read_table(tiny.files("group").history, HISTORY)["epoch"].tolist() == list(range(1, 13))
    assert not list((tiny.resume / "group").glob("*.ckpt"))


def interrupted(tiny: Tiny, name: str) -> list[Path]:
    """The two checkpoints of a run that was stopped in its second epoch."""
    child = start_child(tiny, name)
    wait_for_checkpoint(child, tiny, name, 5)
    assert stop_child(child, signal.SIGTERM) == INTERRUPTED
    files = sorted((tiny.resume / name).glob("step-*.ckpt"))
    assert len(files) == 2
    return files


def test_f37_f39_a_damaged_checkpoint_is_told_and_the_previous_one_used(
    tiny: Tiny, capfd: pytest.CaptureFixture[str]
) -> None:
    files = interrupted(tiny, "flipped")
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes(content)
    (tiny.resume / "flipped" / ".step-000000099.ckpt.1.tmp").write_bytes(b"half a file")
    train(tiny, "flipped")
    told = capfd.readouterr().err
    assert f"{files[1]}: its checksum does not match" in told
    assert "goes on at" in told
    assert weights_of(tiny, "flipped") == weights_of(tiny, "undisturbed")


def test_f40_a_run_with_another_learning_rate_starts_anew(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    interrupted(tiny, "other_lr")
    train(tiny, "other_lr", lr=0.002)
    assert "other recipe.lr" in capfd.readouterr().err
    train(tiny, "other_lr_undisturbed", lr=0.002)
    assert weights_of(tiny, "other_lr") == weights_of(tiny, "other_lr_undisturbed")


def test_f32_training_refuses_an_edited_split(tiny: Tiny, tmp_path: Path) -> None:
    from foldvote.io.parquet import write_table
    from foldvote.splits.folds import FOLDS

    folds = read_table(tiny.split.folds, FOLDS)
    folds.loc[0, "fold"] = (folds.loc[0, "fold"] + 1) % 3
    edited = Tiny(tmp_path)
    write_table(folds, edited.split.folds, FOLDS)
    for name in ("classes.json", "certificate.json", "train.arrow"):
        (tmp_path / name).write_bytes((tiny.root / name).read_bytes())
    with pytest.raises(UserError, match="group person00 stands in 2 folds"):
        train(edited, "member")
    whole = folds["group"] == "person00"
    folds.loc[whole, "fold"] = (read_table(tiny.split.folds)["fold"][0] + 1) % 3
    write_table(folds, edited.split.folds, FOLDS)
    with pytest.raises(UserError, match="is not the split that"):
        train(edited, "member")
    assert not edited.files("member").weights.exists()


def test_a_member_predicts_only_the_persons_it_never_saw(tiny: Tiny, tmp_path: Path) -> None:
    files, out = tiny.files("undisturbed"), tmp_path / "oof.parquet"
    views = ["identity", "hflip"]
    parts = [PartFiles("oof", tiny.pixels, out, tmp_path / "t.json")]
    predict_member(files.weights, files.sidecar, tiny.split, parts, views, RESOURCES)
    rows = pd.read_parquet(out)
    training, validation = fold_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0], 0)
    assert set(rows["image_id"]) == set(validation["image_id"])
    assert not set(rows["profile"]) & set(training["profile"])
    assert all(shown == views for shown in rows.groupby("image_id")["view"].apply(list))


def test_a_member_of_larger_images_validates_as_it_predicts_and_reads_no_others(tiny: Tiny, tmp_path: Path) -> None:
    larger = Tiny(tmp_path)
    for name in ("classes.json", "folds.parquet", "certificate.json"):
        (tmp_path / name).write_bytes((tiny.root / name).read_bytes())
    pack_images(tiny.manifest, tiny.root, Images(min_side=8), "40x30", "none", larger.pixels, 1)
    train(larger, "packed", pack=1.25, swa=0.5, epoch="last")
    train(larger, "again", workers=2, pack=1.25, swa=0.5, epoch="last")
    assert weights_of(larger, "packed") == weights_of(larger, "again") != weights_of(tiny, "undisturbed")
    files, table = larger.files("packed"), tmp_path / "oof.parquet"
    assert read_json(files.sidecar)["recipe"]["pack"] == 1.25
    parts, views = [PartFiles("oof", larger.pixels, table, tmp_path / "t.json")], ["identity", "crop-centre-80"]
    predict_member(files.weights, files.sidecar, larger.split, parts, list(views), RESOURCES)
    found = read_table(table)
    logits = {view: rows.filter(regex=f"^{LOGIT}").to_numpy() for view, rows in found.groupby("view")}
    labels = found.loc[found["view"] == "identity", "label"].to_numpy(int)
    history = read_table(files.history, HISTORY)
    assert log_loss(labels, softmax(logits["identity"])) == pytest.approx(history["val_loss"].iloc[-1], abs=1e-6)
    assert abs(logits["identity"] - logits["crop-centre-80"]).max() > 1e-3
    with pytest.raises(UserError, match=r"train\.arrow: was packed from other size than this job expects"):
        train(Tiny(tiny.root), "other", pack=1.25)
    with pytest.raises(UserError, match=r"train\.arrow: was packed from other size than this job expects"):
        train(larger, "other")


def test_a_member_of_one_factor_says_the_same_of_classes_that_differ_in_others(tmp_path: Path) -> None:
    label_space = factor_label_space({"tint": ("blue", "green", "red"), "size": ("small", "large")})
    tiny = make_tiny(tmp_path, persons=9)
    write_label_space(label_space, tiny.split.classes)
    train(tiny, "sizes", epochs=1, warmup_epochs=0, factors=["size"])
    files, out = tiny.files("sizes"), tmp_path / "oof/model=tiny/fold=0/predictions.parquet"
    parts = [PartFiles("oof", tiny.pixels, out, tmp_path / "t.json")]
    predict_member(files.weights, files.sidecar, tiny.split, parts, ["identity"], RESOURCES)
    rows = pd.read_parquet(out)
    assert read_record(out)["factors"] == ["size"]
    for level in ("small", "large"):
        said = rows[[f"logit_{tint}-{level}" for tint in ("blue", "green", "red")]].to_numpy()
        assert (said == said[:, :1]).all()
    assert (rows["logit_blue-small"] != rows["logit_blue-large"]).all()
    assert read_json(files.sidecar)["classes"] == list(label_space.classes)


def test_altered_weights_are_refused_before_they_predict(tiny: Tiny, tmp_path: Path) -> None:
    files = tiny.files("undisturbed")
    altered = bytearray(files.weights.read_bytes())
    altered[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(altered)
    with pytest.raises(UserError, match="is not the file that was trained"):
        parts = [PartFiles("oof", tiny.pixels, tmp_path / "oof.parquet", tmp_path / "t.json")]
        predict_member(tmp_path / "model.safetensors", files.sidecar, tiny.split, parts, ["identity"], RESOURCES)
    assert not (tmp_path / "oof.parquet").exists()


def test_a_flipped_pixel_is_refused_by_a_prediction(tiny: Tiny, tmp_path: Path) -> None:
    _, validation = fold_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0], 0)
    image_id = validation["image_id"].iloc[5]
    images = PackedImages(tiny.pixels)
    content = bytearray(tiny.pixels.read_bytes())
    content[content.index(images[images.row_of[image_id]].tobytes()) + 7] ^= 64
    (tmp_path / "train.arrow").write_bytes(content)
    files, out = tiny.files("undisturbed"), tmp_path / "oof.parquet"
    with pytest.raises(UserError, match=rf"train\.arrow: damaged: the pixels of image {image_id}"):
        parts = [PartFiles("oof", tmp_path / "train.arrow", out, tmp_path / "t.json")]
        predict_member(files.weights, files.sidecar, tiny.split, parts, ["identity"], RESOURCES)
    assert not out.exists()


def test_the_last_epoch_can_be_asked_for(tiny: Tiny) -> None:
    train(tiny, "last", epoch="last")
    files = tiny.files("last")
    assert sha256_file(files.weights) == sha256_file(files.last) == weights_of(tiny, "undisturbed")[1]
    assert set(load_file(files.weights)) == set(load_file(files.last))


def test_f42_a_loss_that_is_not_finite_stops_the_run(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="no longer finite"):
        train(tiny, "diverged", lr=10.0, clip_norm=None, weight_decay=10.0, epochs=30)
