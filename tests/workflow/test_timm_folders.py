"""Exporting a finished run for timm through the real `snakemake`."""

from pathlib import Path

import pandas as pd
import timm
import torch

from support.snakemake_run import jobs_that_ran, planned, snakemake


def test_export_timm_runs_one_job_and_retrains_nothing(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (copy / "results").rglob("*.parquet")}
    assert jobs_that_ran(snakemake(copy, "--", "export_timm")) == {"export_timm": 1}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    names = {path.parent.name for path in (copy / "results/timm").glob("*/README.md")}
    members = pd.read_csv(copy / "results/leaderboard.csv").query("kind == 'member'")
    assert names == {f"{model}-fold{fold:.0f}" for model, fold in zip(members["model"], members["fold"], strict=True)}
    loaded = timm.create_model(f"local-dir:{copy}/results/timm/{min(names)}", pretrained=True).eval()
    with torch.inference_mode():
        assert loaded(torch.zeros(1, 3, 32, 24)).shape == (1, 18)
    assert planned(copy, "export_timm") == {}
