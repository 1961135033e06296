"""What the workflow gives to every job."""

from pathlib import Path

import pytest

from support.snakemake_run import ROOT, run

SNAKEFILE = f"""
import sys

sys.path.insert(0, "{ROOT}/workflow/scripts")

from foldvote.commands.session import let_threads_sleep

let_threads_sleep()


rule told:
    output:
        "told.txt",
    script:
        "tell.py"
"""
SCRIPT = """
import os
from pathlib import Path

names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
Path(snakemake.output[0]).write_text(" ".join(f"{name}={os.environ.get(name)}" for name in names))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "OMP_WAIT_POLICY=None GOMP_SPINCOUNT=1000"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=None"),
        ({"GOMP_SPINCOUNT": "7"}, "OMP_WAIT_POLICY=None GOMP_SPINCOUNT=7"),
    ],
)
def test_threads_of_jobs_do_not_burn_the_cores_of_other_jobs(
    given: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "tell.py").write_text(SCRIPT)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run(tmp_path, "--cores", "1", "told.txt")
    assert (tmp_path / "told.txt").read_text() == expected
