"""Settings that change no result: processes, GPUs, checkpoints, tracking."""

from pydantic import Field

from foldvote.config.base import Section


class Tracking(Section):
    """Where the course of a training is sent, beside history.parquet. None of it can fail a run."""

    tensorboard: bool = True
    """Scalars, learning rate, a grid of pictures with truth and prediction, the graph: <results>/tensorboard."""
    wandb: str | None = None
    """Project at Weights & Biases; offline unless WANDB_MODE says otherwise. Needs `pip install wandb`."""
    mlflow: str | None = None
    """Experiment of MLflow, in <results>/mlruns unless MLFLOW_TRACKING_URI is set. Needs `pip install mlflow`."""


class Runtime(Section):
    """Settings that change no result, so that changing them reruns nothing."""

    workers: int | None = Field(default=None, ge=0, le=256)
    """Processes that load images, for each one that trains; null: as the threads of the job allow."""
    gpus_per_member: int = Field(default=1, ge=1, le=64)
    """GPUs of one machine that train a member together; --resources gpu=N must offer as many."""
    cpu_processes: int = Field(default=1, ge=1, le=64)
    """Processes that train a member together where it has no GPU; they share the threads of the job."""
    predict_batch: int = Field(default=256, ge=1, le=65_536)
    """Images in one batch of predictions."""
    checkpoint_minutes: float = Field(default=5, gt=0)
    """Longest time between two saves of the training state; each epoch's end saves as well."""
    state_dir: str | None = Field(default=None, min_length=1)
    """Folder for what a training writes while it is under way: its saved state and TensorBoard; null: `results`."""
    container: str | None = Field(default=None, min_length=1)
    """Image that rules run in with `--sdm apptainer`: docker://registry/name:tag, or a .sif file."""
    tracking: Tracking = Tracking()
