"""The workflow, run through the real snakemake command."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from foldvote.io.files import sha256_file

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
CONFIG = {
    "results": "results",
    "seed": 1,
    "data": {"layout": "demo", "profiles": 12, "test_profiles": 2, "picture_size": "64x48"},
    "answers": "eval_answers.csv",
    "folds": {"k": 2, "stratify": ["gender"]},
    "models": {
        "tiny": {"net": "test_resnet", "size": "32x24", "epochs": 2, "batch_size": 16, "warmup_epochs": 0.5},
    },
    "runtime": {"workers": 0, "checkpoint_minutes": 0.0001},
}
MEMBER = "results/train/model=tiny/fold={}/model.safetensors"
PREDICTIONS = [
    f"results/{part}/model=tiny/fold={fold}/predictions.parquet" for part in ("oof", "test") for fold in (0, 1)
]


def write_config(folder: Path, **changes: object) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes), encoding="utf-8")


def command(*arguments: str) -> list[str]:
    return [str(SNAKEMAKE), "-s", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--cores", "2", *arguments]


def snakemake(folder: Path, *arguments: str, code: int | None = 0) -> str:
    """Run the command in a folder and give all it printed; its exit code must be `code` (None: anything but 0)."""
    return run(folder, *command(*arguments)[1:], code=code)


def run(folder: Path, *words: str, code: int | None = 0) -> str:
    """Run `snakemake` with these words in a folder and give all it printed; see `snakemake`."""
    with TemporaryDirectory() as scratch:
        printed = [f"{scratch}/out", f"{scratch}/error"]
        print(json.dumps([str(folder), words, dict(os.environ), printed]), file=_server().stdin, flush=True)
        ended = int(_server().stdout.readline())
        told = "".join(Path(path).read_text(encoding="utf-8") for path in printed)
    assert ended == code if code is not None else ended != 0, told
    return told


@cache
def _server() -> subprocess.Popen[str]:
    """It ends with the end of this process, which closes its input."""
    program = [sys.executable, str(Path(__file__).with_name("snakemake_server.py"))]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """The jobs of a dry run: {rule: number}."""
    printed = snakemake(folder, "-n", *arguments)
    table = printed.rpartition("Job stats:")[2].splitlines()[3:] if "Job stats:" in printed else []
    jobs = {}
    for line in table:
        if len(line.split()) != 2:
            break
        jobs[line.split()[0]] = int(line.split()[1])
    return {rule: number for rule, number in jobs.items() if rule not in ("all", "prepare", "total")}


def kill_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: object, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def jobs_that_ran(printed: str) -> dict[str, int]:
    rules = [line.split()[-1].rstrip(":") for line in printed.splitlines() if line.startswith(("rule ", "localrule "))]
    return {rule: rules.count(rule) for rule in dict.fromkeys(rules) if rule != "all"}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every weights file and prediction."""
    files = [MEMBER.format(fold) for fold in (0, 1)] + PREDICTIONS
    return {name: sha256_file(folder / name) for name in files}
