"""What a job may use of the machine: GPUs, CPU threads, loader processes."""

from dataclasses import dataclass, replace

from foldvote.config.runtime import Runtime
from foldvote.runtime.device import Device


@dataclass(frozen=True)
class JobResources:
    """What a job may use.

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
        """What each of these processes may use: its part of the threads, and the sight of all GPUs."""
        return replace(self, threads=max(self.threads // self.processes, 1))

    def workers(self, device: Device) -> int:
        """Number of loader processes: as configured, else all threads but one beside a GPU, or one beside a CPU."""
        if self.runtime.workers is not None:
            return self.runtime.workers
        return max(self.threads - 1, 1) if device.torch_device.type == "cuda" else min(self.threads - 1, 1)
