"""The demo through a real Slurm, a training cancelled and another requeued: the files must be those of a local run.

`make test-slurm` installs what it needs and runs it, as root on Debian, in about six minutes. Every wait is bounded.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from cluster import cluster

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--configfile", "config.yaml"]
PLUGINS = ROOT / ".slurm"
CONFIG = {
    "results": "results",
    "seed": 1,
    "data": {"layout": "demo", "profiles": 12, "test_profiles": 2, "picture_size": "64x48"},
    "answers": "eval_answers.csv",
    "folds": {"k": 2, "stratify": ["gender"]},
    "models": {
        "tiny": {"net": "test_resnet", "size": "32x24", "epochs": 60, "batch_size": 16, "warmup_epochs": 0.5},
    },
    "runtime": {"workers": 1, "tracking": {"tensorboard": False}},
}
# One thread: on a CPU the last bits of a sum depend on their number.
THREADS = ["--set-threads", "train=1", "predict_member=1"]
SAME = [f"results/train/model=tiny/fold={fold}/{name}.safetensors" for fold in (0, 1) for name in ("model", "last")]
SAME += [f"results/{part}/model=tiny/fold={fold}/predictions.parquet" for part in ("oof", "test") for fold in (0, 1)]
SAME += ["results/ensemble/oof.parquet", "results/ensemble/test.parquet", "results/submission.csv"]
MOST_SECONDS = 1200  # six minutes on two idle cores
STARTED = time.monotonic()


def tell(line: str) -> None:
    """A line with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:5.1f} s] {line}", flush=True)


def folder(parent: Path, name: str) -> Path:
    """A place to run in."""
    place = parent / name
    place.mkdir()
    (place / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return place


def run_locally(place: Path) -> None:
    """The run that the other is measured against."""
    # No GPU, as the cluster's are false ones.
    options = ["--cores", "2", "--resources", "gpu=0", *THREADS]
    done = subprocess.run([*SNAKEMAKE, *options], cwd=place, capture_output=True, text=True, timeout=MOST_SECONDS)
    if done.returncode:
        sys.exit(f"the local run failed:\n{done.stdout}{done.stderr}")


def profile_of_false_gpus(place: Path) -> Path:
    """The shipped profile, in which Slurm gives the GPUs and Snakemake none: a job that is granted one must use it."""
    settings = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    for wanted in settings["set-resources"].values():
        if number := wanted.pop("gpu", 0):
            wanted["gres"] = f"gpu:{number}"
    (place / "profile").mkdir()
    (place / "profile/config.yaml").write_text(yaml.safe_dump(settings))
    return place / "profile"


def start_on_slurm(place: Path) -> subprocess.Popen:
    """The same command with the shipped profile; its words go to run.log."""
    quick = ["--slurm-no-account", "--slurm-init-seconds-before-status-checks", "3", "--slurm-keep-successful-logs"]
    options = ["--workflow-profile", str(profile_of_false_gpus(place)), *quick, *THREADS]
    paths = os.pathsep.join(filter(None, [str(PLUGINS), os.environ.get("PYTHONPATH")]))
    with (place / "run.log").open("wb") as words:
        return subprocess.Popen(
            [*SNAKEMAKE, *options],
            cwd=place,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": paths},
        )


def slurm(*command: str) -> str:
    """What one of Slurm's commands prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()


def training_job(fold: int) -> str | None:
    """Id of the Slurm job that trains a fold right now."""
    lines = [line.split() for line in slurm("squeue", "-h", "-t", "RUNNING", "-o", "%i %k").splitlines()]
    return next((number for number, comment in lines if comment == f"rule_train_wildcards_tiny_{fold}"), None)


def wait_for(what: str, condition: Callable[[], object], run: subprocess.Popen) -> object:
    """Wait until something holds, and give it."""
    while not (found := condition()):
        if run.poll() is not None:
            sys.exit(f"the run ended ({run.returncode}) before {what}")
        if time.monotonic() - STARTED > MOST_SECONDS:
            sys.exit(f"{what}: not within {MOST_SECONDS} seconds")
        time.sleep(0.1)
    return found


def disturb(place: Path, run: subprocess.Popen) -> dict[int, str]:
    """Cancel the training of fold 0 and requeue that of fold 1, each in the middle; give their Slurm job ids."""
    commands = {0: ("scancel",), 1: ("scontrol", "requeue")}
    jobs: dict[int, str] = {}
    while commands:
        for fold in list(commands):
            resume = place / f"results/resume/model=tiny/fold={fold}"
            wait_for(f"fold {fold} trains", lambda resume=resume: len(list(resume.glob("step-*.ckpt"))) == 2, run)
            jobs[fold] = str(wait_for(f"the job of fold {fold}", lambda fold=fold: training_job(fold), run))
            tell(f"{' '.join(commands[fold])} {jobs[fold]} (training of fold {fold}, {newest(resume)})")
            slurm(*commands.pop(fold), jobs[fold])
    # Slurm lets a requeued job wait for two minutes; not here.
    wait_for("the requeued job waits", lambda: slurm("squeue", "-h", "-j", jobs[1], "-o", "%T") == "PENDING", run)
    tell(f"job {jobs[1]} waits again; {newest(place / 'results/resume/model=tiny/fold=1')} was saved")
    slurm("scontrol", "update", f"JobId={jobs[1]}", "StartTime=now")
    return jobs


def wait_until_over(run: subprocess.Popen) -> None:
    """Wait for the end of the run, which must be a good one."""
    try:
        code = run.wait(max(MOST_SECONDS - (time.monotonic() - STARTED), 1))
    except subprocess.TimeoutExpired:
        sys.exit(f"the run on Slurm did not end within {MOST_SECONDS} seconds")
    if code:
        sys.exit(f"the run on Slurm ended with exit code {code}")


def newest(resume: Path) -> str:
    """Name of a member's newest checkpoint."""
    return max((path.name for path in resume.glob("step-*.ckpt")), default="no checkpoint")


def hashes(place: Path) -> dict[str, str]:
    """SHA-256 of everything that must be equal."""
    words = subprocess.run(["sha256sum", *SAME], cwd=place, capture_output=True, text=True, check=True).stdout
    return {name: digest for digest, name in (line.split() for line in words.splitlines())}


def asked_memory() -> dict[str, int]:
    """Megabytes that each Slurm job asked for."""
    lines = slurm("squeue", "-h", "-t", "all", "-o", "%i %m").splitlines()
    return {number: int(memory.rstrip("M")) for number, memory in map(str.split, lines)}


def examine(place: Path, jobs: dict[int, str], memory: dict[str, int], expected: dict[str, str]) -> list[str]:
    """Faults of the run on Slurm, after showing what it says of the disturbed trainings."""
    faults = []
    told = (place / "run.log").read_text()
    for line in told.splitlines():
        if "has been submitted" in line or "failed, SLURM" in line or "Trying to restart" in line:
            tell(line.strip().replace(str(place), "."))
    for fold, job in jobs.items():
        slurm_logs = sorted(
            place.glob(f".snakemake/slurm_logs/rule_train/tiny_{fold}/*.log"), key=lambda path: path.stat().st_mtime
        )
        words = "\n".join(path.read_text() for path in slurm_logs)
        for line in words.splitlines():
            if line.startswith(f"tiny fold {fold}: ") and "training steps" not in line:
                tell(f"Slurm's log: {line}")
        if "stopped as asked, state saved" not in words:
            faults.append(f"fold {fold}: job {job} did not save its state when it was told to stop")
        if "Trying to restart" in words:
            faults.append(f"fold {fold}: Snakemake inside the job tried again, which is left to the one that sent it")
        if "goes on at epoch" not in words:
            faults.append(f"fold {fold}: the training did not go on from its checkpoint")
        numbers = {path.stem for path in slurm_logs}
        if len(numbers) != 2 - fold:
            faults.append(
                f"fold {fold}: Slurm jobs {sorted(numbers)}; the cancelled one is sent again, the requeued is not"
            )
        if max(memory[number] for number in numbers) != memory[job] * len(numbers):
            faults.append(f"fold {fold}: asked for {[memory[number] for number in sorted(numbers)]} MB")
    found = hashes(place)
    for name, digest in expected.items():
        same = found[name] == digest
        tell(f"{'same ' if same else 'OTHER'} {digest[:16]} {found[name][:16]} {name}")
        if not same:
            faults.append(f"{name}: other bytes than in the local run")
    return faults


def main() -> None:
    """Run it all; exits with the faults, if there are any."""
    parent = Path(tempfile.mkdtemp(prefix="foldvote-slurm-"))
    try:
        local, remote = folder(parent, "local"), folder(parent, "slurm")
        run_locally(local)
        tell("the local run has ended")
        with cluster(parent / "cluster"):
            tell("Slurm runs: " + slurm("sinfo", "--version"))
            run = start_on_slurm(remote)
            try:
                jobs = disturb(remote, run)
                wait_until_over(run)
            except BaseException:
                sys.stderr.write("\n".join((remote / "run.log").read_text().splitlines()[-100:]) + "\n")
                raise
            finally:
                run.kill()
            tell("the run on Slurm has ended well")
            memory = asked_memory()
            tell(f"megabytes asked for by Slurm job: {memory}")
        faults = examine(remote, jobs, memory, hashes(local))
    finally:
        shutil.rmtree(parent, ignore_errors=True)
    if faults:
        sys.exit("\n".join(faults))
    tell("a cancelled and a requeued training went on, and every file is that of the local run")


if __name__ == "__main__":
    main()
