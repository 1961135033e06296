"""What a lower precision of a bundle's networks costs in score, measured on images that no network was trained on."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from foldvote.config.runtime import Runtime
from foldvote.deployment.bundle_parity import Photographs, Votes, bundle_votes, photographs
from foldvote.deployment.ensemble import Ensemble
from foldvote.deployment.finished_run import FinishedRun
from foldvote.deployment.onnx_graph import restricted
from foldvote.evaluation.bootstrap import bootstrap, group_sums, scores
from foldvote.evaluation.intervals import compare
from foldvote.io.parquet import read_table
from foldvote.runtime.resources import JobResources
from foldvote.splits.reserve import RESERVE

Build = Callable[[FinishedRun, Path], None]
MOST = 2_000  # images that are predicted twice
_DRAWS = 1_000  # of groups, for the interval
_SCORE = "macro_f1"


def precision_loss(
    results: Path, root: Path, ensemble: Ensemble, made: Path, build: Build, threads: int
) -> dict[str, Any]:
    """Score a bundle and its run on the same images.

    With a reserve these are its images, predicted by all networks. Without one each fold's images are predicted by that
    fold's networks alone, in the precision of the bundle and in fp32: what is measured is then the loss of single
    members. Images on which a network was trained would show too small a loss.

    Args:
        results: the folder of the run.
        root: the data folder.
        ensemble: the run, in fp32.
        made: the bundle.
        build: writes what predicts of a part of the run to a folder.
        threads: CPU threads.

    Returns:
        `scored_on`, `images`, `macro_f1_fp32`, `macro_f1`, their `difference` with its interval (`low`, `high`) over
        groups, and `classes_that_differ`.
    """
    folds = read_table(results / "folds/folds.parquet")
    manifest = results / "data/manifest/split=train/manifest.parquet"
    known = folds[folds["repeat"] == 0].set_index("image_id")
    kept_out = known.index[known["fold"] == RESERVE].tolist()
    if kept_out:
        images = photographs(manifest, root, MOST, among=kept_out)
        pairs = [(images, bundle_votes(made, images, threads), _votes(ensemble, images))]
        return {"scored_on": "reserve"} | _scored(known, pairs, len(ensemble.classes))
    numbers = sorted(set(known["fold"]) & {fold for own in ensemble.run.folds.values() for fold in own})
    pairs = []
    for fold in numbers:
        images = photographs(manifest, root, MOST // len(numbers), among=known.index[known["fold"] == fold].tolist())
        part = restricted(ensemble.run, [fold], None)
        with TemporaryDirectory(dir=made.parent) as name:
            build(part, Path(name, "part"))
            own = bundle_votes(Path(name, "part"), images, threads)
        pairs.append((images, own, _votes(Ensemble(part, JobResources(0, threads, Runtime())), images)))
    return {"scored_on": "single members, out of fold"} | _scored(known, pairs, len(ensemble.classes))


def _votes(ensemble: Ensemble, images: Photographs) -> Votes:
    return ensemble.votes(images.files, images.ids)  # type: ignore[arg-type]


def _scored(known: pd.DataFrame, pairs: list[tuple[Photographs, Votes, Votes]], classes: int) -> dict[str, Any]:
    """Both scores, their difference and its interval over groups."""
    rows = known.loc[[image for images, _, _ in pairs for image in images.ids]]
    labels, groups = rows["label"].to_numpy(), pd.factorize(rows["group"])[0]
    sums, codes = {}, {}
    for name, place in (("own", 1), ("fp32", 2)):
        votes: list[Votes] = [pair[place] for pair in pairs]  # type: ignore[misc]
        codes[name] = np.concatenate([vote[1] for vote in votes])
        probabilities = np.concatenate([vote[0] for vote in votes])
        sums[name] = group_sums(labels, probabilities, groups, classes, codes[name])
    drawn = bootstrap(sums, _DRAWS)
    points = scores(sums["own"])[_SCORE], scores(sums["fp32"])[_SCORE]
    found = compare(drawn["own"][_SCORE], drawn["fp32"][_SCORE], "higher", points=points)
    return {
        "images": len(labels),
        f"{_SCORE}_fp32": points[1],
        _SCORE: points[0],
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "classes_that_differ": int((codes["own"] != codes["fp32"]).sum()),
    }
