"""The workflow as a module of another one, in another folder."""

from pathlib import Path

import yaml

from support.snakemake_run import CONFIG, ROOT, jobs_that_ran, run

OTHER = f"""
configfile: "settings.yaml"


module foldvote:
    snakefile:
        {str(ROOT / "workflow/Snakefile")!r}
    config:
        config["vote"]


use rule * from foldvote as foldvote_*


rule count:
    default_target: True
    input:
        "out/vote/submission.csv",
    output:
        "out/count.txt",
    shell:
        "wc -l < {{input}} > {{output}}"
"""


def test_another_workflow_uses_the_rules_with_its_own_configuration_and_folder(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(OTHER, encoding="utf-8")
    data, folds = CONFIG["data"] | {"profiles": 10, "test_profiles": 1}, {"method": "holdout", "stratify": ["gender"]}
    values = CONFIG | {"results": "out/vote", "data": data, "folds": folds}
    settings = {"results": "not this", "vote": values}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    planned = run(tmp_path, "--cores", "2", "--dry-run")
    assert "foldvote_train" in planned and not (tmp_path / "out").exists()
    printed = run(tmp_path, "--cores", "2")
    assert jobs_that_ran(printed)["foldvote_train"] == 1
    assert (tmp_path / "out/count.txt").read_text().split() == ["8"]  # a header and the shots of one person
    assert "Next:" not in printed, "the last words are the other workflow's"
    assert not (tmp_path / "not this").exists() and not (tmp_path / "results").exists()
    assert "Nothing to be done" in run(tmp_path, "--cores", "2", "--dry-run")
