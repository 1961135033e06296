"""What threads cost that wait for each other: seconds of training steps on the CPU, alone and side by side.

    .venv/bin/python benchmarks/contention.py --net resnet18 --size 128x96 --batch 32 --steps 6

Each job is a process of its own that takes training steps on one batch of noise; all jobs of a row begin together, and
the row shows the seconds until the last has ended. Threads of torch meet at the end of every operation. How they wait
there is a matter of OpenMP, which reads the environment variables before torch is imported:

    spin       OpenMP's own default: a thread that is done first burns its core for a while, then sleeps
    passive    OMP_WAIT_POLICY=PASSIVE: it sleeps at once
    count N    GOMP_SPINCOUNT=N: it burns its core for N turns, then sleeps

The weights of the jobs of one number of threads must be equal to the byte whatever the waiting.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from statistics import median


def environment(way: str) -> dict[str, str]:
    """The variables of a way of waiting: spin, passive, or count N."""
    if way == "spin":
        return {}
    return {"OMP_WAIT_POLICY": "PASSIVE"} if way == "passive" else {"GOMP_SPINCOUNT": way.removeprefix("count ")}


def main() -> None:
    """Print a table, or be one of the jobs."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--net", default="test_resnet")
    arguments.add_argument("--size", default="32x32", help="height x width")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--jobs", default="1x2,2x2,2x1", help="rows: number of jobs x threads of each")
    arguments.add_argument("--waiting", default="spin,passive,count 1000")
    arguments.add_argument("--job", type=int, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.job:
        take_steps(given.net, given.size, given.batch, given.steps, given.job)
        return
    rows = [tuple(map(int, row.split("x"))) for row in given.jobs.split(",")]
    ways = given.waiting.split(",")
    print(f"| {given.net} {given.size}, {given.steps} steps of {given.batch} | " + " | ".join(ways) + " |", flush=True)
    digests: dict[int, set[str]] = {}
    for jobs, threads in rows:
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(given.repeats):  # in turn, so that a busy minute does not fall on one of them
            for way in ways:
                took, found = side_by_side(jobs, threads, environment(way))
                seconds[way].append(took)
                digests.setdefault(threads, set()).update(found)
        told = [f"{median(times):.2f} ({min(times):.2f}-{max(times):.2f})" for times in seconds.values()]
        print(f"| {jobs} of {threads} threads | " + " | ".join(told) + " |", flush=True)
    for threads, found in digests.items():
        print(f"{threads} threads: {'equal bytes' if len(found) == 1 else f'{len(found)} different results'}")


def side_by_side(jobs: int, threads: int, waiting: dict[str, str]) -> tuple[float, set[str]]:
    """Seconds until the last of several jobs has taken its steps, and the digests of their weights."""
    free = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, *sys.argv, "--job", str(threads)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=free | waiting)
        for _ in range(jobs)
    ]
    for job in started:
        assert job.stdout is not None and job.stdout.readline() == "ready\n"
    begun = time.monotonic()
    for job in started:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    digests = {job.stdout.readline() for job in started if job.stdout is not None}
    took = time.monotonic() - begun
    for job in started:
        job.communicate()
    return took, digests


def take_steps(net: str, size: str, batch: int, steps: int, threads: int) -> None:
    """Take training steps, and print the digest of the weights."""
    import timm
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    height, width = map(int, size.split("x"))
    model = timm.create_model(net, num_classes=18)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, targets = torch.randn(batch, 3, height, width), torch.arange(batch) % 18

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()

    step()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(steps):
        step()
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    print(digest.hexdigest(), flush=True)


if __name__ == "__main__":
    main()
