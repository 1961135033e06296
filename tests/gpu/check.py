"""Every path of the library that runs on a GPU, on a real one: `make test-gpu`, or `python tests/gpu/check.py`.

It needs the library's own packages (torch, timm, albumentations, OpenCV, pandas, pyarrow, scikit-learn, ...), neither
Snakemake nor pytest. It draws its images, trains small nets on them and compares bytes. One line per check: passed,
FAILED or skipped, with what was seen; then the speed. Exit code 1 if a check failed, 0 otherwise. Without a GPU it says
so and tests nothing. `--device cpu` runs the checks that make sense on a CPU, in order to test this file itself.
"""

import argparse
import importlib.util
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "tests"), str(ROOT / "tests/gpu")]

NEEDED = ["torch", "timm", "albumentations", "cv2", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "sklearn"]
NEEDED += ["yaml", "rich", "PIL"]


class Skipped(Exception):
    """Raised by a check that this machine cannot run; its text says why."""


def main() -> int:
    """Run the checks, print what was seen, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu", help="cpu: only to test this file")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of checks; `speed` is one of them")
    parser.add_argument("--net", default="resnet50", help="net whose speed is measured")
    parser.add_argument("--size", default="224x224", help="its size")
    parser.add_argument("--batch", type=int, default=128, help="its batch size")
    given = parser.parse_args()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"packages are missing: {', '.join(missing)}; requirements.lock has them", file=sys.stderr)
        return 1

    # Only now: what these import is what was looked for.
    import torch
    from checks import CHECKS, Bench
    from speed import compare

    from foldvote.runtime.gpus import visible_gpus

    gpu = given.device == "gpu"
    if gpu and not torch.cuda.is_available():
        if devices := visible_gpus():
            print(f"torch {torch.__version__} can use none of {', '.join(devices)}: driver, wheel, or the id is wrong")
            return 1
        print("No GPU here: nothing was tested, and nothing counts as passed.")
        return 0
    name = torch.cuda.get_device_name(0) if gpu else "CPU"
    capability = ".".join(map(str, torch.cuda.get_device_capability(0))) if gpu else "-"
    count = torch.cuda.device_count() if gpu else 0
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    print(f"{max(count, 1)} x {name}, compute {capability}, {versions}, {when}")
    with TemporaryDirectory(prefix="foldvote-gpu-") as folder:
        bench = Bench(Path(folder), gpus=1 if gpu else 0, count=count)
        checks: dict[str, Callable[[], str]] = {
            check.__name__: lambda check=check: check(bench) for check in CHECKS
        } | {"speed": lambda: compare(Path(folder), bench.gpus, given.net, given.size, given.batch)}
        chosen = given.only or list(checks)
        if unknown := sorted(set(chosen) - set(checks)):
            print(f"no check is called {', '.join(unknown)}; there are {', '.join(checks)}", file=sys.stderr)
            return 1
        results = [run(name, checks[name]) for name in chosen]
    passed, skipped, failed = (results.count(word) for word in ("passed", "skipped", "FAILED"))
    print(f"{passed} passed, {skipped} skipped, {failed} failed" + ("" if gpu else ": on the CPU, which tests no GPU"))
    return 1 if failed else 0


def run(name: str, check: Callable[[], str]) -> str:
    """Run one check, print its line, and give its result."""
    started = time.monotonic()
    try:
        word, seen = "passed", check()
    except Skipped as reason:
        word, seen = "skipped", str(reason)
    except Exception as error:
        traceback.print_exc()
        word, seen = "FAILED", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    print(f"{word:<8} {name:<28} {time.monotonic() - started:6.1f} s  {seen}", flush=True)
    return word


if __name__ == "__main__":
    sys.modules["check"] = sys.modules["__main__"]  # so that the checks raise the same Skipped
    sys.exit(main())
