"""`make test-gpu` itself, on a CPU: it tells what it tested, and tests nothing where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of a command in the project's folder, without GPUs."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    return done.returncode, done.stdout + done.stderr


def check(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the checks."""
    return run(sys.executable, "tests/gpu/check.py", *arguments, **variables)


def test_without_a_gpu_nothing_is_tested_and_nothing_counts_as_passed() -> None:
    code, printed = run("make", "test-gpu", f"PYTHON={sys.executable}")
    assert code == 0, printed
    assert "No GPU here: nothing was tested, and nothing counts as passed" in printed
    assert " passed " not in printed and "passed," not in printed


def test_a_gpu_that_torch_cannot_use_is_a_failure_and_not_the_absence_of_one() -> None:
    code, printed = check(CUDA_VISIBLE_DEVICES="GPU-12ab")
    assert code == 1 and "can use none of GPU-12ab" in printed


def test_the_checks_that_make_sense_on_a_cpu_pass_there_and_the_others_are_skipped_by_name() -> None:
    names = ["fp32", "augment_on_device", "fast", "prediction", "leases", "compile_trial", "sharing", "out_of_memory"]
    names.append("speed")
    code, printed = check(
        "--device", "cpu", "--only", *names, "--net", "test_resnet", "--size", "32x24", "--batch", "16"
    )
    assert code == 0, printed
    words = {line.split()[1]: line.split()[0] for line in printed.splitlines() if line.split()[1:2] and " s " in line}
    passed = {"fp32", "augment_on_device", "fast", "prediction", "speed"}
    assert words == {name: "passed" if name in passed else "skipped" for name in names}, printed
    assert "5 passed, 4 skipped, 0 failed: on the CPU, which tests no GPU" in printed
    assert "forward+backward" in printed


def test_a_check_that_fails_is_told() -> None:
    code = "import sys; sys.path.insert(0, 'tests/gpu'); import check; print(check.run('broken', lambda: 1 / 0))"
    ended, printed = run(sys.executable, "-c", code)
    assert ended == 0 and "FAILED   broken" in printed and "ZeroDivisionError: division by zero" in printed
