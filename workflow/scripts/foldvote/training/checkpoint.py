"""The checkpoints of a training run: written atomically, with a checksum; the last two are kept.

A file is a header line with the SHA-256 of the rest, followed by the bytes of `torch.save` of plain types and tensors.
They are read with `weights_only=True`, so that no code in a file is executed.
"""

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from foldvote.errors import UserError
from foldvote.io.files import read_json, whole_file, write_json

_MAGIC = b"foldvote-checkpoint-1 "
_HEADER = len(_MAGIC) + 64 + 1  # bytes: the hexadecimal digest, a newline
_KEPT = 2  # files
_PARTS = "parts.json"
_LONGEST = 40  # characters of two values that are told


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write one checkpoint and drop all but the last two. The file is never whole in memory.

    Args:
        folder: the member's resume folder.
        step: number of finished optimizer steps, which orders the files.
        state: plain types and tensors.

    Raises:
        UserError: if the disk is full; earlier files are not changed, and the text says how many bytes are needed.
    """
    needed = _bytes_of(state, set())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: a checkpoint needs {needed:,} bytes, {free:,} are free; free space and run the same command"
        )
    with whole_file(folder / f"step-{step:09d}.ckpt") as temporary, temporary.open("wb") as file:
        file.write(bytes(_HEADER))
        hashing = _HashingFile(file)
        torch.save(state, hashing)
        file.seek(0)
        file.write(_header(hashing.digest.hexdigest()))
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
        differing = _differences(state.get("fingerprint", {}), fingerprint)
        if differing:
            warn(f"warning: {path}: is of another run (other {', '.join(differing)}): not used, training starts anew")
            return None
        return state
    return None


def drop_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a finished member, so that a forced rerun starts from the beginning."""
    for path in [*_files(folder), folder / _PARTS]:
        path.unlink(missing_ok=True)


def remember_parts(folder: Path, parts: int, fingerprint: dict[str, Any]) -> None:
    """Note in how many parts a batch has to go through the network, for the next start of a run that ends now.

    Args:
        folder: the member's resume folder.
        parts: number of parts, over all processes.
        fingerprint: of the run.
    """
    write_json(folder / _PARTS, {"parts": parts, "fingerprint": fingerprint})


def remembered_parts(folder: Path, fingerprint: dict[str, Any]) -> int:
    """The number of parts that an earlier start of this run noted; 1 where there is none, or it was another run."""
    with suppress(UserError, LookupError, TypeError):
        noted = read_json(folder / _PARTS)
        if noted["fingerprint"] == fingerprint:
            return int(noted["parts"])
    return 1


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"))


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """The names of what differs, with both values where they are short."""
    told = []
    for name in (name for name in ours if theirs.get(name) != ours[name]):
        values = f"{theirs.get(name)}, now {ours[name]}"
        told.append(f"{name}: {values}" if len(values) <= _LONGEST else name)
    return told


def _header(digest: str) -> bytes:
    return _MAGIC + digest.encode() + b"\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if header != _header(digest):
                raise UserError(f"{path}: its checksum does not match: damaged, the one before it is used")
            file.seek(_HEADER)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path}: holds more than tensors and plain values: not loaded, the one before it is used"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: is no training state: not used")
    return state


class _HashingFile:
    """A file that is written once from its start to its end, and hashed on the way.

    Attributes:
        digest: SHA-256 of what was written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.digest, self._file = hashlib.sha256(), file

    def write(self, content: bytes) -> int:
        """Write some bytes."""
        self.digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Hand all bytes to the operating system."""
        self._file.flush()


def _bytes_of(state: Any, seen: set[int]) -> int:
    """About the size of a state's file: its tensors, each memory once, and some for the rest."""
    if isinstance(state, torch.Tensor):
        storage = state.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return 512 + (storage.nbytes() if new else 0)
    if isinstance(state, dict):
        return 512 + sum(_bytes_of(value, seen) for value in state.values())
    return 64 + sum(_bytes_of(value, seen) for value in state) if isinstance(state, list | tuple) else 64
