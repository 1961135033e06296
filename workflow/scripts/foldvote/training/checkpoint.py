"""The checkpoints of a training run: written atomically, with a checksum; the last two are kept.

A file is a header line with the SHA-256 of the rest, followed by the bytes of `torch.save` of plain types and tensors.
They are read with `weights_only=True`, so that no code in a file is executed.
"""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from foldvote.errors import UserError
from foldvote.io.files import sha256_bytes, write_bytes

_MAGIC = b"foldvote-checkpoint-1 "
_KEPT = 2  # files


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write one checkpoint and drop all but the last two.

    Args:
        folder: the member's resume folder.
        step: number of finished optimizer steps, which orders the files.
        state: plain types and tensors.

    Raises:
        UserError: if the disk is full; earlier files are not changed, and the text says how many bytes are needed.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    needed = len(content) + 1024
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: a checkpoint needs {needed:,} bytes, {free:,} are free; free space and run the same command"
        )
    write_bytes(folder / f"step-{step:09d}.ckpt", _MAGIC + sha256_bytes(content).encode() + b"\n" + content)
    for old in _files(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)


def load_checkpoint(folder: Path, fingerprint: dict[str, Any], warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Read the newest intact checkpoint of this run.

    Args:
        folder: the member's resume folder.
        fingerprint: everything that the run depends on; a checkpoint with another fingerprint is not used.
        warn: called with one line for each file that is not used.

    Returns:
        The saved state, or None if training has to start from the beginning.
    """
    for path in reversed(_files(folder)):
        try:
            state = _read(path)
        except UserError as error:
            warn(f"warning: {error}")
            continue
        differing = [name for name in fingerprint if state.get("fingerprint", {}).get(name) != fingerprint[name]]
        if differing:
            warn(f"warning: {path}: is of another run (other {', '.join(differing)}): not used, training starts anew")
            return None
        return state
    return None


def drop_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a finished member, so that a forced rerun starts from the beginning."""
    for path in _files(folder):
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"))


def _read(path: Path) -> dict[str, Any]:
    header, _, content = path.read_bytes().partition(b"\n")
    if header != _MAGIC + sha256_bytes(content).encode():
        raise UserError(f"{path}: its checksum does not match: damaged, the one before it is used")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: holds more than tensors and plain values: not loaded, the one before it is used"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: is no training state: not used")
    return state
