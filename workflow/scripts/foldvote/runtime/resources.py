"""The resources of a job: GPUs, CPU threads, loader processes."""

from dataclasses import dataclass, replace

from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime
from foldvote.runtime.device import Device, choose_device


@dataclass(frozen=True)
class JobResources:
    """The resources of a job.

    Attributes:
        gpus: number of GPUs granted.
        threads: number of CPU threads.
        runtime: the `runtime` section of the configuration.
    """

    gpus: int
    threads: int
    runtime: Runtime

    @property
    def processes(self) -> int:
        """Number of processes that train one member together: one per GPU."""
        return self.gpus or self.runtime.cpu_processes

    @property
    def per_process(self) -> "JobResources":
        """The resources of each of these processes: an equal part of the threads; it sees all GPUs of the job."""
        return replace(self, threads=max(self.threads // self.processes, 1))

    def device(self, recipe: Recipe, rank: int = 0) -> Device:
        """The device on which this process trains or predicts a member of a recipe.

        Args:
            recipe: for precision and channels_last.
            rank: number of this process among those of the job.

        Raises:
            UserError: if a granted GPU cannot be used, or the device lacks the precision.
        """
        exact = self.runtime.reproducible
        return choose_device(recipe.precision, recipe.channels_last, self.gpus, self.threads, rank, exact)

    def check_gpu(self) -> None:
        """Raise an error if a GPU was granted and cannot be used, whatever the recipe.

        Raises:
            UserError: names the reason.
        """
        choose_device("auto", None, self.gpus, self.threads, reproducible=self.runtime.reproducible)

    def workers(self, device: Device) -> int:
        """Number of loader processes: as configured; else all threads but one with a GPU, and at most one on a CPU."""
        if self.runtime.workers is not None:
            return self.runtime.workers
        return max(self.threads - 1, 1) if device.torch_device.type == "cuda" else min(self.threads - 1, 1)
