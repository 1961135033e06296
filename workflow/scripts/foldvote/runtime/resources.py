"""What the jobs of a member share: the split they must agree on, the machine they may use, the pixels they read."""

from dataclasses import dataclass, replace

from foldvote.config.runtime import Runtime
from foldvote.runtime.device import Device


@dataclass(frozen=True)
class JobResources:
    """What a job may use: GPUs granted, CPU threads, and the `runtime` section of the configuration."""

    gpus: int
    threads: int
    runtime: Runtime

    @property
    def processes(self) -> int:
        """Processes that train one member together: one a GPU."""
        return self.gpus or self.runtime.cpu_processes

    @property
    def share(self) -> "JobResources":
        """What each of these processes may use; all of them see all GPUs."""
        return replace(self, threads=max(self.threads // self.processes, 1))

    def workers(self, compute: Device) -> int:
        """Loader processes: as configured; else all threads but one beside a GPU, and one beside a CPU network."""
        if self.runtime.workers is not None:
            return self.runtime.workers
        return max(self.threads - 1, 1) if compute.device.type == "cuda" else min(self.threads - 1, 1)
