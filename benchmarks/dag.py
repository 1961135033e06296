"""The cost of many members in Snakemake itself: a dry run of all their jobs, and a run with nothing to do.

    python benchmarks/dag.py --members 50 500 5000

Ten folds per model. Each measurement is repeated with a bare Snakefile that has as many jobs and files (train, OOF
and test predictions of each member, one job that reads all), in the same run. Nothing is trained: for the run with
nothing to do, every output is an empty file. Peak memory is that of the process.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDS = 10
BARE = """
MEMBERS = [(m, k) for m in range({models}) for k in range({folds})]

rule all:
    input:
        "out/ensemble"

rule split:
    output: "out/folds"
    shell: "touch {{output}}"

rule train:
    input: "out/folds"
    output: "out/train/model={{m}}/fold={{k}}"
    shell: "touch {{output}}"

rule oof:
    input: "out/folds", "out/train/model={{m}}/fold={{k}}"
    output: "out/oof/model={{m}}/fold={{k}}"
    shell: "touch {{output}}"

rule tta:
    input: "out/folds", "out/train/model={{m}}/fold={{k}}"
    output: "out/test/model={{m}}/fold={{k}}"
    shell: "touch {{output}}"

rule ensemble:
    input: [f"out/{{part}}/model={{m}}/fold={{k}}" for part in ("oof", "test", "train") for m, k in MEMBERS]
    output: "out/ensemble"
    shell: "touch {{output}}"
"""


def main() -> None:
    """Print a line for each number of members."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--members", type=int, nargs="+", default=[50, 500])
    given = arguments.parse_args()
    print("| members | jobs | dry run s | bare s | ratio | nothing to do s | bare s | ratio | MB |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for members in given.members:
        with tempfile.TemporaryDirectory() as folder:
            own, bare = Path(folder, "own"), Path(folder, "bare")
            jobs, dry, idle, megabytes = measured(own, workflow_of(own, members // FOLDS))
            _, bare_dry, bare_idle, _ = measured(bare, bare_workflow(bare, members // FOLDS))
        cells = [f"{members:,}", f"{jobs:,}", f"{dry:.1f}", f"{bare_dry:.1f}", f"{dry / bare_dry:.2f}"]
        cells += [f"{idle:.1f}", f"{bare_idle:.1f}", f"{idle / bare_idle:.2f}", f"{megabytes:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def workflow_of(place: Path, models: int) -> list[str]:
    """A configuration with this number of models, and the command that runs it."""
    place.mkdir()
    settings = {
        "data": {"layout": "demo", "profiles": 60, "test_profiles": 10},
        "folds": {"k": FOLDS},
        "models": {f"m{number}": {"net": "test_resnet", "size": "64x48", "epochs": 2} for number in range(models)},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(settings))
    return ["-s", str(ROOT / "Snakefile"), "--configfile", "config.yaml"]


def bare_workflow(place: Path, models: int) -> list[str]:
    """A Snakefile of nothing but the members' jobs."""
    place.mkdir()
    (place / "Snakefile").write_text(BARE.format(models=models, folds=FOLDS))
    return []


def measured(place: Path, options: list[str]) -> tuple[int, float, float, float]:
    """Jobs, seconds of a dry run of all of them and of a run with nothing to do, and the larger one's megabytes."""
    told, dry = timed(place, [*options, "-n", "--quiet", "host"])
    jobs = [
        line.removeprefix("    output: ").split(", ") for line in told.splitlines() if line.startswith("    output: ")
    ]
    for number, outputs in enumerate(jobs):
        for output in outputs:
            path = place / output
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (1_700_000_000 + number,) * 2)
    told, idle = timed(place, [*options, "--cores", "2", "--quiet", "host"])
    if "Nothing to be done" not in told:
        sys.exit(f"something was to be done:\n{told[-2000:]}")
    return len(jobs), dry, idle, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def timed(place: Path, options: list[str]) -> tuple[str, float]:
    """The output of a command, and its seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", *options]
    done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:])
    return done.stdout, time.perf_counter() - start


if __name__ == "__main__":
    main()
