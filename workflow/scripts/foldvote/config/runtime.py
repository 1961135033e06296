"""How a run uses the machine: processes, GPUs, checkpoints, tracking, and the time that it may take."""

from pydantic import Field, model_validator

from foldvote.config.base import FilePath, FolderPath, Section, Share


class Tracking(Section):
    """Where training metrics are sent in addition to history.parquet. A failure here never fails a run."""

    tensorboard: bool = True
    """Scalars, learning rate, images with true and predicted class, and the graph, in <results>/tensorboard."""
    wandb: str | None = None
    """Project of Weights & Biases; offline unless WANDB_MODE says otherwise. Needs `pip install wandb`."""
    mlflow: str | None = None
    """Experiment of MLflow, in <results>/mlruns unless MLFLOW_TRACKING_URI is set. Needs `pip install mlflow`."""


class Runtime(Section):
    """Settings that do not change results, apart from last bits, and rerun nothing; only `max_hours` changes them."""

    workers: int | None = Field(default=None, ge=0, le=256)
    """Processes that load images, for each process that trains; null: as many as the threads of the job allow."""
    gpus_per_member: int = Field(default=1, ge=1, le=64)
    """GPUs of one machine that train a member together; `--resources gpu=N` must offer at least as many."""
    members_per_gpu: int = Field(default=1, ge=1, le=64)
    """Jobs that share a GPU; `--resources gpu=N` must offer that many for each GPU."""
    member_threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads of a training on the CPU; null: all cores. Fewer train several members side by side."""
    cpu_processes: int = Field(default=1, ge=1, le=64)
    """Processes that train a member together where it has no GPU; they share the threads of the job."""
    reproducible: bool = True
    """On a GPU: the same bytes at every run, and exact fp32; false: faster kernels and TF32, recorded in model.json."""
    predict_batch: int = Field(default=256, ge=1, le=65_536)
    """Most images in one batch of predictions; on a CPU fewer, if that is faster."""
    checkpoint_minutes: float = Field(default=5, gt=0)
    """Longest time in minutes between two saves of the training state, which is also saved after an epoch unless saving
    takes more than a twentieth of the time."""
    state_dir: FolderPath | None = Field(default=None, min_length=1)
    """Folder for what a training writes while it runs: its saved state and TensorBoard files; null: `results`."""
    container: FilePath | None = Field(default=None, min_length=1)
    """Container image in which rules run with `--sdm apptainer`: docker://registry/name:tag, or a .sif file."""
    max_hours: float | None = Field(default=None, gt=0)
    """Hours that a run on this machine may take: before it trains, it measures a few steps of each model and plans how
    many epochs of which models fit, see docs/running.md; null: no limit, and no plan."""
    least_epochs: Share = 0.5
    """With max_hours, the smallest share of its epochs that a model is trained for; where even these do not fit, models
    are left out, the last first."""
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _shared_or_several(self) -> "Runtime":
        if self.members_per_gpu > 1 and self.gpus_per_member > 1:
            raise ValueError(
                f"members_per_gpu {self.members_per_gpu} and gpus_per_member {self.gpus_per_member} exclude each "
                "other: members share GPUs, or train on several; set one of them to 1"
            )
        return self
