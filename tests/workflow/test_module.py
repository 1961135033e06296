"""The workflow as a module of another one, in another folder."""

import subprocess
from pathlib import Path

import yaml

from support.snakemake_run import CONFIG, ROOT, SNAKEMAKE, jobs_that_ran

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
    values = CONFIG | {"results": "out/vote", "data": CONFIG["data"] | {"profiles": 10, "test_profiles": 1}}
    settings = {"results": "not this", "vote": values}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(*arguments: str) -> str:
        command = [str(SNAKEMAKE), "--cores", "2", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    planned = run("--dry-run")
    assert "foldvote_train" in planned and not (tmp_path / "out").exists()
    printed = run()
    assert jobs_that_ran(printed)["foldvote_train"] == 2
    assert (tmp_path / "out/count.txt").read_text().split() == ["8"]  # a header and the shots of one person
    assert "Next:" not in printed, "the last words are the other workflow's"
    assert not (tmp_path / "not this").exists() and not (tmp_path / "results").exists()
    assert "Nothing to be done" in run("--dry-run")
