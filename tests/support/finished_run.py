"""A results folder as a finished run leaves it, from simulated members."""

from pathlib import Path

import numpy as np
import pandas as pd

from foldvote.config.ensemble import Vote
from support.member_predictions import Run

VOTES = Vote(kinds=["mean", "geometric", "greedy", "mean+offsets"], calibration="none", draws=100)


def finished_run(root: Path, settings: Vote = VOTES, **given) -> Run:
    """Make the ensemble of simulated members, and lay its inputs where a run has them."""
    root.mkdir(exist_ok=True)
    run = Run(root, **given)
    run.make(settings=settings)
    for name, folder in (("classes.json", "data"), ("folds.parquet", "folds"), ("certificate.json", "folds")):
        (root / folder).mkdir(exist_ok=True)
        (root / name).rename(root / folder / name)
    return run


def write_test_manifest(root: Path, images: int, groups: int | None) -> None:
    """Write what is known of the test images: their number, and their groups if there are any."""
    folder = root / "data/manifest/split=test"
    folder.mkdir(parents=True)
    group = [None if groups is None else f"g{at % groups}" for at in range(images)]
    frame = pd.DataFrame({"image_id": [f"{at}.jpg" for at in np.arange(images)], "group": group})
    frame.astype({"group": "string"}).to_parquet(folder / "manifest.parquet")
