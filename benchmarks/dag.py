"""The cost of many members in Snakemake itself: a dry run of all their jobs, and a run with nothing to do.

    python benchmarks/dag.py --members 50 500 5000

Ten folds per model. Each measurement is repeated in the same run with two bare Snakefiles: the least one has as many
jobs (train and predict each member, one job that reads all) with one file each; the full one has the inputs, outputs,
logs and benchmarks of foldvote's own rules. Nothing is trained: for the run with nothing to do, every
output is an empty file. Medians of CPU seconds of the process and its children. Peak memory is the largest of all.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDS = 10
LEAST = """
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

rule predict:
    input: "out/folds", "out/train/model={{m}}/fold={{k}}"
    output: "out/predictions/model={{m}}/fold={{k}}"
    shell: "touch {{output}}"

rule ensemble:
    input: [f"out/{{part}}/model={{m}}/fold={{k}}" for part in ("predictions", "train") for m, k in MEMBERS]
    output: "out/ensemble"
    shell: "touch {{output}}"
"""
FULL = """
SPLIT = ["out/folds.parquet", "out/certificate.json", "out/classes.json"]
MADE = dict(train="model.safetensors", oof="predictions.parquet", test="predictions.parquet")

def members(folder, name=""):
    return [f"out/{{folder}}/model={{m}}/fold={{k}}{{name}}" for m in range({models}) for k in range({folds})]

rule all:
    input: "out/ensemble", [members(part, f"/{{name}}") for part, name in MADE.items()]

rule data:
    output: SPLIT, "out/train.arrow", "out/test.arrow"
    shell: "touch {{output}}"

rule train:
    input: SPLIT, "out/train.arrow"
    output:
        "out/train/model={{m}}/fold={{k}}/model.safetensors",
        "out/train/model={{m}}/fold={{k}}/last.safetensors",
        "out/train/model={{m}}/fold={{k}}/model.json",
        "out/train/model={{m}}/fold={{k}}/history.parquet",
        "out/timings/train/model={{m}}/fold={{k}}.json",
    log: "out/logs/train/model={{m}}/fold={{k}}.log"
    benchmark: "out/benchmarks/train/model={{m}}/fold={{k}}.tsv"
    shell: "touch {{output}}"

rule predict:
    input:
        SPLIT, "out/train.arrow", "out/test.arrow",
        "out/train/model={{m}}/fold={{k}}/model.safetensors", "out/train/model={{m}}/fold={{k}}/model.json",
    output:
        "out/oof/model={{m}}/fold={{k}}/predictions.parquet",
        "out/test/model={{m}}/fold={{k}}/predictions.parquet",
        "out/timings/oof/model={{m}}/fold={{k}}.json",
        "out/timings/test/model={{m}}/fold={{k}}.json",
    log: "out/logs/predict/model={{m}}/fold={{k}}.log"
    benchmark: "out/benchmarks/predict/model={{m}}/fold={{k}}.tsv"
    shell: "touch {{output}}"

rule ensemble:
    input:
        SPLIT,
        [members(part, f"/{{name}}") for part, name in MADE.items()],
        [members(f"timings/{{part}}", ".json") for part in MADE],
    output: "out/ensemble"
    shell: "touch {{output}}"
"""


def main() -> None:
    """Print a line for each number of members."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--members", type=int, nargs="+", default=[50, 500])
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    print("| members | jobs | dry run s | least, full | nothing to do s | least, full | MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for members in given.members:
        with tempfile.TemporaryDirectory() as folder:
            models, root = members // FOLDS, Path(folder)
            options = [
                workflow_of(root / "own", models),
                bare_workflow(root / "least", LEAST, models),
                bare_workflow(root / "full", FULL, models),
            ]
            places = dict(zip((root / "own", root / "least", root / "full"), options, strict=True))
            dry = medians(places, given.repeats, ["-n"])
            jobs = [make_all(place, own) for place, own in places.items()]
            idle = medians(places, given.repeats, ["--cores", "2"])
        cells = [f"{members:,}", f"{jobs[0]:,}"]
        for own, *bare in (dry, idle):
            cells += [f"{own:.1f}", ", ".join(f"{seconds:.1f} ({own / seconds:.2f}x)" for seconds in bare)]
        cells.append(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f}")
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


def bare_workflow(place: Path, text: str, models: int) -> list[str]:
    """A Snakefile of nothing but the members' jobs."""
    place.mkdir()
    (place / "Snakefile").write_text(text.format(models=models, folds=FOLDS))
    return []


def medians(places: dict[Path, list[str]], repeats: int, options: list[str]) -> list[float]:
    """CPU seconds of a command in each place, one after another in each round."""
    rounds = [[called(place, [*own, *options])[1] for place, own in places.items()] for _ in range(repeats)]
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]


def make_all(place: Path, options: list[str]) -> int:
    """Make every output as an empty file, so that nothing is to be done; the number of jobs."""
    told, _ = called(place, [*options, "-n"])
    jobs = [
        line.removeprefix("    output: ").split(", ") for line in told.splitlines() if line.startswith("    output: ")
    ]
    for number, outputs in enumerate(jobs):
        for output in outputs:
            path = place / output
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (1_700_000_000 + number,) * 2)
    told, _ = called(place, [*options, "--cores", "2"])
    if "Nothing to be done" not in told:
        sys.exit(f"something was to be done:\n{told[-2000:]}")
    return len(jobs)


def called(place: Path, options: list[str]) -> tuple[str, float]:
    """The output of a Snakemake command, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "snakemake", *options, "--quiet", "host"]
    done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
