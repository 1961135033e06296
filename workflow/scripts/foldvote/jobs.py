"""What the jobs of a member share: the split they must agree on, the machine they may use, the pixels they read."""

from dataclasses import dataclass, replace
from pathlib import Path

from foldvote.compute import Compute
from foldvote.errors import Refusal
from foldvote.pixels import Pixels
from foldvote.recipes import Recipe
from foldvote.sections import Runtime


@dataclass(frozen=True)
class SplitFiles:
    """What tells the classes and the split: data/classes.json, folds/folds.parquet, folds/certificate.json."""

    classes: Path
    folds: Path
    certificate: Path


@dataclass(frozen=True)
class Machine:
    """What a job may use: GPUs granted, CPU threads, and the `runtime` section of the configuration."""

    gpus: int
    threads: int
    runtime: Runtime

    @property
    def processes(self) -> int:
        """Processes that train one member together: one a GPU."""
        return self.gpus or self.runtime.cpu_processes

    @property
    def share(self) -> "Machine":
        """What each of these processes may use; all of them see all GPUs."""
        return replace(self, threads=max(self.threads // self.processes, 1))

    def workers(self, compute: Compute) -> int:
        """Loader processes: as configured; else all threads but one beside a GPU, and one beside a CPU network."""
        if self.runtime.workers is not None:
            return self.runtime.workers
        return max(self.threads - 1, 1) if compute.device.type == "cuda" else min(self.threads - 1, 1)


def matching_pixels(path: Path, recipe: Recipe, data_sha256: str | None) -> Pixels:
    """Open packed images and make sure that they are the recipe's.

    Args:
        path: the Arrow file.
        recipe: for its size and region of interest.
        data_sha256: digest of the manifest they must be packed from; None accepts any.

    Raises:
        Refusal: if they were packed from something else.
    """
    pixels = Pixels(path)
    expected = {"size": recipe.size, "roi": recipe.roi} | ({"data_sha256": data_sha256} if data_sha256 else {})
    differing = [name for name, value in expected.items() if pixels.record.get(name) != value]
    if differing:
        raise Refusal(
            f"{path}: was packed from other {', '.join(differing)} than this job expects; run `snakemake -R pixels`"
        )
    return pixels
