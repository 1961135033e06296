"""A drawn run of some models, with hostile names where asked for, from which reports are made."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from foldvote.config.data import Images
from foldvote.config.ensemble import Submission, Vote
from foldvote.config.folds import Folds
from foldvote.config.search_space import Dimension
from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.data.packed_images import pack_images
from foldvote.ensemble.build_ensemble import EnsembleFiles, make_ensemble
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.inference.heatmaps import ATTENTION, ClassHeatmap, heatmap_rows
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.io.files import sha256_bytes, write_json
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.report.results.inputs import RunFiles
from foldvote.report.results.page import write_report
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import make_folds
from foldvote.training.history import HISTORY
from foldvote.tuning.trials import trials_schema
from support.data_folders import encoded, picture, put
from support.tiny_member import manifest_row, write_manifest

SCRIPT, QUOTED, KOREAN = "<script>alert(1)</script>", "a\"b'c & <b>d</b>", "마스크 $착용$"
HOSTILE = LabelSpace((SCRIPT, QUOTED, KOREAN))
HOME = factor_label_space({"mask": ("wear", "incorrect", "not-wear"), "gender": ("male", "female")})
TABLE = {"layout": "table", "table": "table.csv", "label": "kind,of"}
RULES = Images(min_side=8)
VIEWS = ["hflip", "identity"]


@dataclass(frozen=True)
class Made:
    """A drawn run of some models, from which reports are made."""

    root: Path
    files: RunFiles

    def report(
        self, folder: Path, layout: dict[str, object] | None = None, workers: int = 1, search: Path | None = None
    ) -> str:
        """The text of the page; figures and tables lie in `folder`/report."""
        settings = {"data": layout or TABLE, "seed": 7}
        attention = self.root / "attention.parquet", self.root / "train.arrow"
        page, beside = folder / "report.html", folder / "report"
        write_report(self.files, self.root, RULES, settings, page, beside, *attention, workers, search)
        return (folder / "report.html").read_text(encoding="utf-8")


def drawn_run(
    root: Path,
    label_space: LabelSpace,
    models: dict[str, list[str] | None],
    persons: int = 12,
    shots: int = 3,
    test: bool = True,
    split: dict[str, object] | None = None,
) -> Made:
    """Draw pictures, split them, draw what members say of them, and hold the vote."""
    draw, classes = generator(3, "report", persons), len(label_space.classes)
    rows = []
    for person in range(persons):
        name = f"{(SCRIPT, QUOTED, KOREAN)[person % 3]} {person}" if label_space is HOSTILE else f"person {person:03d}"
        for shot in range(shots):
            path, content = (
                f"{person}/{KOREAN}'<img src=x onerror=alert(2)> {shot}.png",
                encoded(picture(24, 18, seed=100 * person + shot), "PNG"),
            )
            put(root / path, content)
            label = (2 * shot + person % 2 if label_space.factors else person) % classes
            levels = {
                factor: label_space.factors[factor][label_space.level_codes(factor)[label]]
                for factor in label_space.factors
            }
            more = {"path": path, "class_name": label_space.classes[label], **levels}
            image_id = f"{person}/<i>{shot}</i>|.png"
            rows.append(
                manifest_row(image_id, name, 0, sha256_bytes(content), phash="0" * 16) | more | {"label": label}
            )
    manifest = pd.DataFrame(rows)
    write_manifest(manifest, root / "manifest.parquet", label_space)
    made = [root / name for name in ("folds.parquet", "certificate.json", "classes.json")]
    how = Folds(**{"k": 2, "near_duplicate_bits": 0, "on_rare": "warn"} | (split or {}))
    make_folds(root / "manifest.parquet", how, 7, *made)
    digest = read_record(made[0])["split_sha256"]
    folds = read_table(made[0])
    numbers = sorted(set(folds["fold"]) - {-1})
    for model, factors in models.items():
        for fold in numbers:
            own = folds[folds["fold"] == fold]
            _member(root, label_space, draw, model, factors, fold, own, digest, test)
    _vote(root, dict.fromkeys(models, len(numbers)), test, label_space)
    _look(root, next(iter(models)), label_space)
    ensemble, by_member = (
        root / "ensemble",
        {
            name: sorted(root.glob(f"{place}/model=*/fold=*/{name}"))
            for name, place in (("predictions.parquet", "oof"), ("history.parquet", "train"), ("model.json", "train"))
        },
    )
    files = RunFiles(
        manifest=root / "manifest.parquet",
        folds=made[0],
        certificate=made[1],
        classes=made[2],
        oof=by_member["predictions.parquet"],
        histories=by_member["history.parquet"],
        sidecars=by_member["model.json"],
        timings=sorted((root / "timings").rglob("*.json")),
        votes=ensemble / "oof.parquet",
        metrics=ensemble / "metrics.json",
        weights=ensemble / "weights.json",
        slices=ensemble / "slices.csv",
        reliability=ensemble / "reliability.csv",
        issues=ensemble / "label_issues.parquet",
        leaderboard=root / "leaderboard.csv",
    )
    return Made(root, files)


def _member(root, label_space, draw, model, factors, fold, own, digest, test) -> None:
    """Predictions, a history, a sidecar and timings, drawn."""
    place, weights = f"model={model}/fold={fold}", f"{model}{fold}".encode().hex().ljust(64, "0")
    for part, ids in (("oof", own["image_id"].tolist()), ("test", [f"t{n}" for n in range(6)] if test else [])):
        if not ids:
            continue
        labels = own["label"].tolist() if part == "oof" else [None] * len(ids)
        parts = []
        for view in VIEWS:
            logits = draw.normal(0, 1.5, (len(ids), len(label_space.classes)))
            if part == "oof":
                logits[np.arange(len(ids)), labels] += 1.5
                mislabelled = [place for place, name in enumerate(ids) if name.startswith(("0/", "4/"))]
                logits[mislabelled, [labels[place] - 1 for place in mislabelled]] += 9
            if factors:
                own_space, code_of = label_space.restricted(factors)
                logits = logits[:, : len(own_space.classes)][:, code_of]
            part_frame = pd.DataFrame(logits.astype(np.float32), columns=[LOGIT + name for name in label_space.classes])
            parts.append(part_frame.assign(image_id=ids, profile=ids, label=labels, view=view))
        record = {"model": model, "fold": fold, "split": part, "split_sha256": digest, "data_sha256": part}
        record |= {"classes": list(label_space.classes), "weights_sha256": weights, "views": VIEWS}
        record |= {"factors": factors} if factors else {}
        schema = predictions_schema(label_space.classes)
        write_table(
            pd.concat(parts, ignore_index=True), root / part / place / "predictions.parquet", schema, (), record
        )
        write_json(root / "timings" / part / f"{place}.json", {"seconds": 0.5, "images": 9, "device": SCRIPT})
    trained = {"seconds": 2.5, "waited_seconds": 0.5, "images": 9, "device": SCRIPT, "peak_host_bytes": 1_250_000_000}
    write_json(root / "timings/train" / f"{place}.json", trained | {"peak_gpu_bytes": 0})
    epochs = pd.DataFrame({"epoch": [1, 2, 3], "best": [False, True, False]})
    for name in ("train_loss", "val_loss", "val_macro_f1", "val_accuracy", "val_balanced_accuracy", "lr", "seconds"):
        epochs[name] = draw.random(3)
    write_table(epochs, root / "train" / place / "history.parquet", HISTORY, ("epoch",), {})
    about = {"sha256": weights, "epochs": [2], "val_macro_f1": float(epochs["val_macro_f1"][1]), "val_loss": 0.25}
    about |= {"recipe": {"net": SCRIPT}, "versions": {"python": "3"}}
    write_json(root / "train" / place / "model.json", about)


def _vote(root: Path, expected: dict[str, int], test: bool, label_space: LabelSpace) -> None:
    answers = None
    if test:
        text = io.StringIO()
        csv.writer(text).writerows([("ImageID", "ans"), *((f"t{n}", n % len(label_space.classes)) for n in range(6))])
        answers = put(root / "answers.csv", text.getvalue())
    inputs = EnsembleInputs(
        oof=sorted((root / "oof").rglob("*.parquet")),
        test=sorted((root / "test").rglob("*.parquet")),
        folds=root / "folds.parquet",
        certificate=root / "certificate.json",
        classes=root / "classes.json",
        timings=sorted((root / "timings").rglob("*.json")),
        manifest=root / "manifest.parquet",
        answers=answers,
    )
    names = ("oof.parquet", "test.parquet", "metrics.json", "weights.json", "votes.json", "slices.csv")
    paths = [root / "ensemble" / name for name in (*names, "reliability.csv", "label_issues.parquet")]
    paths[1] = paths[1] if test else None
    use = "mean+offsets" if label_space is HOME else "auto"  # whose answer is not always the likeliest class
    settings = Vote(use=use, kinds=["mean", "mean+offsets"], draws=100)
    make_ensemble(inputs, EnsembleFiles(*paths, root / "leaderboard.csv"), expected, settings, Submission(), 1)


def _look(root: Path, model: str, label_space: LabelSpace) -> None:
    """Drawn heatmaps: two classes of the first image, and one class of the second with an empty heatmap."""
    pack_images(root / "manifest.parquet", root, RULES, "24x18", "none", root / "train.arrow", workers=1)
    ids = read_table(root / "ensemble/oof.parquet")["image_id"]
    heat = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20
    heatmaps = [ClassHeatmap(ids[0], model, 0, code, label_space.classes[code], heat) for code in (0, 1)]
    heatmaps.append(ClassHeatmap(ids[1], model, 1, 1, label_space.classes[1], 0 * heat))
    write_table(heatmap_rows(heatmaps), root / "attention.parquet", ATTENTION, ("image_id", "code"), {})


def drawn_search(path: Path) -> Path:
    """A table of trials of two keys: three with a score, one pruned, one failed."""
    space = {"lr": Dimension(float=(1e-4, 1e-1), log=True), "loss": Dimension(choice=["<i>focal</i>", None])}
    space["ema"] = Dimension(float=(0.5, 0.9), when={"loss": None})
    frame = pd.DataFrame(
        {
            "number": range(5),
            "state": ["complete", "complete", "pruned", "failed", "complete"],
            "score": [0.5, 0.75, None, None, 0.6],
            "as_it_stands": [True, False, False, False, False],
            "param_lr": [1e-3, 1e-2, 1e-4, 1e-1, 2e-2],
            "param_loss": ["null", "<i>focal</i>", "null", "null", "null"],
            "param_ema": [0.5, None, 0.6, 0.7, 0.8],
            "fold_0": [0.5, 0.75, None, None, 0.6],
            "epochs": 3,
            "seconds": 1.5,
            **dict.fromkeys(("worker", "repeats", "same_as"), pd.array([None] * 5, "Int32")),
            **dict.fromkeys(("device", "fault", "started", "ended")),
        }
    )
    record = {"study": "small-1", "model": "small", "score": "macro_f1", "higher_is_better": True, "folds": [0]}
    record |= {"best": 1, "importance": {"lr": 0.75, "loss": 0.25}}
    record["space"] = {key: dimension.model_dump(mode="json") for key, dimension in space.items()}
    write_table(frame, path, trials_schema(space, [0]), key=("number",), record=record)
    return path
