"""Wall time and peak memory of the manifest and the pixels stage, compared with decoding the same files with Pillow.

    .venv/bin/python benchmarks/ingest.py --images 18900

A few hundred faces are drawn at the home task's size (384 x 512) and repeated under other names by hard links. The
baseline is what a careful notebook would do for the same result: open, decode and resize each file with Pillow and
NumPy, on as many processes. Peak memory is the sum over all processes.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import psutil
from PIL import Image

from demo_faces.folder import draw_demo
from foldvote.config.data import DataSettings
from foldvote.data.manifest import build_manifest
from foldvote.data.packed_images import pack_images

SIZE = "128x96"
DRAWN = 60


def main() -> None:
    """Measure and print one line per stage."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=18_900)
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings = repeat_faces(root, given.images, given.workers)
        manifest, packed = root / "manifest.parquet", root / "train.arrow"
        paths = sorted(str(path) for path in (root / "data").rglob("*.jpg"))
        peer = timed("Pillow alone", len(paths), lambda: decode_all(paths, given.workers))
        stages = [
            (
                "manifest",
                lambda: build_manifest(settings, "train", manifest, root / "quarantine.parquet", given.workers),
            ),
            (
                "pixels",
                lambda: pack_images(
                    manifest, settings.root, settings.images, SIZE, "none", packed, workers=given.workers
                ),
            ),
        ]
        for name, stage in stages:
            seconds = timed(name, len(paths), stage)
            print(f"{name}: {seconds / peer:.2f} x the time of Pillow alone")


def timed(name: str, images: int, work: Callable[[], object]) -> float:
    """Run `work` and print its wall time and the peak memory of this process and all its children together."""
    done, peaks = threading.Event(), [0]
    sampler = threading.Thread(target=sample_memory, args=(done, peaks))
    sampler.start()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    done.set()
    sampler.join()
    rate = images / seconds
    print(f"{name}: {images:,} images in {seconds:.1f} s, {rate:.0f} images/s, peak {peaks[0] / 2**20:.0f} MiB")
    return seconds


def sample_memory(done: threading.Event, peaks: list[int]) -> None:
    """Keep the largest sum of resident memory of this process and its children in `peaks[0]`, in bytes."""
    this = psutil.Process()
    while not done.wait(0.1):
        total = 0
        for process in [this, *this.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        peaks[0] = max(peaks[0], total)


def repeat_faces(root: Path, images: int, workers: int) -> DataSettings:
    """A folder of classes with `images` files: drawn faces, each under many names."""
    draw_demo(root / "demo", DRAWN, 1, "512x384", seed=1, workers=workers)
    drawn = sorted(path for path in (root / "demo/train").rglob("[!.]*.jpg"))
    for number in range(images):
        source = drawn[number % len(drawn)]
        target = root / f"data/train/{'ab'[number % 2]}/{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    layout = {"layout": "folders", "group_pattern": r"^(\d+)"}
    return DataSettings.model_validate({"data_root": str(root / "data"), "data": layout})


def decode_all(paths: list[str], workers: int) -> None:
    """The baseline: every file decoded and resized, the arrays discarded."""
    with ProcessPoolExecutor(workers) as pool:
        for _ in pool.map(decode, paths, chunksize=32):
            pass


def decode(path: str) -> int:
    """Decode and resize one file with Pillow."""
    with Image.open(path) as image:
        return int(np.asarray(image.convert("RGB").resize((96, 128), Image.Resampling.BOX)).sum())


if __name__ == "__main__":
    main()
