"""A results folder with the predictions of simulated members, on which ensembles are made."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.config.ensemble import Submission, Vote
from foldvote.data.label_space import factor_label_space, write_label_space
from foldvote.ensemble.build_ensemble import EnsembleFiles, make_ensemble
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.errors import UserError
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.evaluation.probabilities import softmax
from foldvote.evaluation.vote_table import votes_schema
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.io.csv_files import read_csv
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_table, write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import FOLDS, split_sha256
from foldvote.splits.reserve import RESERVE

LABEL_SPACE = factor_label_space({"mask": ("wear", "not"), "age": ("young", "old", "oldest")})
CLASSES = list(LABEL_SPACE.classes)
MEAN = Vote(use="mean", kinds=["mean"], calibration="none", draws=100)
PROBABILITIES = [f"p_{name}" for name in CLASSES]
TWO = {"lite0": ("identity", "hflip"), "resnet": ("identity",)}


@dataclass
class Run:
    """A results folder with the predictions of simulated members; tests spoil one thing and make the ensemble."""

    root: Path
    models: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"lite0": ("identity", "hflip")})
    k: int = 4
    repeats: int = 1
    holdout: bool = False
    tests: int = 10
    images: int = 24
    reserve: int = 0
    paired: bool = False  # two persons of a fold, or of the reserve, are one group

    def __post_init__(self):
        draws = generator(3, "run")
        ids = [f"{number:06d}/mask {number % 7}" for number in range(self.images)]
        label = draws.integers(0, len(CLASSES), self.images)
        rows = []
        for repeat in range(self.repeats):
            fold = draws.permutation(self.images) % self.k
            fold = np.where(fold == 0, 0, -1) if self.holdout else fold + repeat * self.k
            rows.append(pd.DataFrame({"image_id": ids, "repeat": repeat, "fold": fold, "label": label}))
        if self.reserve:
            kept_out = [f"{number:06d}/reserve" for number in range(self.reserve)]
            label = draws.integers(0, len(CLASSES), self.reserve)
            rows.append(pd.DataFrame({"image_id": kept_out, "repeat": 0, "fold": RESERVE, "label": label}))
        self.folds = pd.concat(rows, ignore_index=True).assign(stratum="s")
        self.folds["profile"] = self.folds["group"] = self.folds["image_id"]
        if self.paired:
            pair = self.folds.groupby("fold").cumcount() // 2
            self.folds["group"] = self.folds["fold"].astype(str) + " " + pair.astype(str)
        self.digest = split_sha256(self.folds)
        write_table(self.folds, self.root / "folds.parquet", FOLDS, record={"split_sha256": self.digest})
        write_json(self.root / "certificate.json", {"split_sha256": self.digest})
        write_label_space(LABEL_SPACE, self.root / "classes.json")
        self.expected = dict.fromkeys(self.models, 1 if self.holdout else self.k * self.repeats)
        self.test_ids = [f"{number:040x}.jpg" for number in range(self.tests)]
        for model, fold in self.members():
            self.member("oof", model, fold)
            if self.tests:
                self.member("test", model, fold)
            if self.reserve:
                self.member("reserve", model, fold)

    def members(self):
        return [(model, fold) for model, count in self.expected.items() for fold in range(count)]

    def path(self, split, model, fold):
        return self.root / split / f"model={model}" / f"fold={fold}" / "predictions.parquet"

    def frame(self, split, model, fold):
        """Simulated predictions: the true class is likelier than the others."""
        validation = self.folds[self.folds["fold"] == (RESERVE if split == "reserve" else fold)]
        ids = self.test_ids if split == "test" else validation["image_id"].tolist()
        labels = [None] * len(ids) if split == "test" else validation["label"].tolist()
        parts = []
        for view in self.models[model]:
            logits = generator(5, split, model, fold, view).normal(0, 2, (len(ids), len(CLASSES)))
            if split != "test":
                # Their mean is far surer than each of them.
                logits[np.arange(len(ids)), labels] += 2 if split == "oof" else 0.7
            part = pd.DataFrame(logits.astype(np.float32), columns=[LOGIT + name for name in CLASSES])
            parts.append(part.assign(image_id=ids, profile=ids, label=labels, view=view))
        return pd.concat(parts, ignore_index=True)

    def member(self, split, model, fold, spoil=None, classes=CLASSES, record_with=None):
        """Write a member's file and timings; `spoil` alters its rows, `record_with` its record."""
        record = {
            "model": model,
            "fold": fold,
            "split": split,
            "split_sha256": self.digest,
            "data_sha256": f"data of {split}",
            "classes": CLASSES,
            "weights_sha256": f"weights of {model} {fold}",
            "views": list(self.models[model]),
            "device": "cpu",
        }
        frame = self.frame(split, model, fold)
        frame = frame if spoil is None else spoil(frame)
        write_table(
            frame, self.path(split, model, fold), predictions_schema(classes), record=record | (record_with or {})
        )
        for stage, seconds in (("train", 10.0), (split, 0.25)):
            timing = {"seconds": seconds, "images": len(frame), "device": "cpu"}
            write_json(self.root / "timings" / stage / f"model={model}" / f"fold={fold}.json", timing)

    def make(self, answers=None, **other):
        given = {
            "oof": [self.path("oof", *member) for member in self.members()],
            "test": [self.path("test", *member) for member in self.members()] if self.tests else [],
            "reserve": [self.path("reserve", *member) for member in self.members()] if self.reserve else [],
            "timings": sorted((self.root / "timings").rglob("*.json")),
            "folds": self.root / "folds.parquet",
            "certificate": self.root / "certificate.json",
            "classes": self.root / "classes.json",
            "answers": answers,
            "guests": {},
        }
        inputs = EnsembleInputs(**given | {name: value for name, value in other.items() if name in given})
        out = self.root / "ensemble"
        files = EnsembleFiles(
            oof=out / "oof.parquet",
            test=out / "test.parquet" if self.tests else None,
            metrics=out / "metrics.json",
            weights=out / "weights.json",
            votes=out / "votes.json",
            slices=out / "slices.csv",
            reliability=out / "reliability.csv",
            issues=out / "label_issues.parquet",
            leaderboard=self.root / "leaderboard.csv",
            reserve=out / "reserve.parquet" if self.reserve else None,
        )
        expected, settings = other.get("expected", self.expected), other.get("settings", MEAN)
        submission = Submission(answer=other.get("answer", "code"))
        metrics = find_metrics(other.get("metrics", ["macro_f1"]), other.get("metric_file"))
        make_ensemble(inputs, files, expected, settings, submission, 1, metrics, other.get("plan"))

    def votes(self, split):
        schema = votes_schema(CLASSES, labelled=split != "test")
        return read_table(self.root / f"ensemble/{split}.parquet", schema, key=("image_id",))

    @property
    def metrics(self):
        return read_json(self.root / "ensemble/metrics.json")

    @property
    def leaderboard(self):
        return read_csv(self.root / "leaderboard.csv", required=["kind"])

    def refused(self, *phrases, **other):
        """The ensemble refuses, with a line a phrase and no other, and writes nothing."""
        with pytest.raises(UserError) as caught:
            self.make(**other)
        faults = caught.value.faults
        assert len(faults) == len(phrases), faults
        for phrase in phrases:
            assert any(phrase in fault for fault in faults), (phrase, faults)
        assert all("\n" not in fault and ";" in fault for fault in faults)
        assert not (self.root / "ensemble").exists()
        assert not (self.root / "leaderboard.csv").exists()


def averaged(frame):
    """Mean over the views of the softmax, by image: the definition, the long way."""
    probabilities = softmax(frame[[LOGIT + name for name in CLASSES]].to_numpy())
    return pd.DataFrame(probabilities, index=pd.Index(frame["image_id"])).groupby(level=0).mean()


def answers_file(run, rows):
    """A file of the true answers of test images, from pairs of an id and an answer."""
    path = run.root / "answers.csv"
    path.write_text("ImageID,ans\n" + "".join(f"{name},{answer}\n" for name, answer in rows))
    return path
