"""A finished ensemble as an object that predicts images, files or arrays, as its run predicts test images."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from foldvote.config.runtime import Runtime
from foldvote.data.image_inspection import RejectedImage
from foldvote.data.label_space import known_classes
from foldvote.data.metadata import encode, metadata_of_rows
from foldvote.deployment.finished_run import Codes, FinishedRun, Floats, read_finished_run
from foldvote.deployment.new_pixels import FileBelow, NewImage, PixelRows, Source, faces_fault, reader
from foldvote.errors import UserError, raise_all
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import View, views_of
from foldvote.io.paths import MemberKey
from foldvote.runtime.device import Device, name_nondeterminism
from foldvote.runtime.parallel_map import stream_processes
from foldvote.runtime.resources import JobResources

Picture = str | Path | np.ndarray
_MOST_IMAGES = 2_048  # in a piece
_MOST_BYTES = 256 * 2**20  # of the pixels of a piece


@dataclass(frozen=True)
class Piece:
    """Predictions of some images that follow one another.

    Attributes:
        rows: the positions of the images that were predicted, int64 (images,).
        digests: of each of them the SHA-256 as 64 hex digits: of its file, or without ids of its pixels.
        probabilities: float64 (images, classes), in the order of `Ensemble.classes`.
        codes: of the predicted classes, int64 (images,).
        bad: by its position each image that was rejected, and why.
    """

    rows: npt.NDArray[np.int64]
    digests: list[str]
    probabilities: npt.NDArray[np.float64]
    codes: Codes
    bad: dict[int, RejectedImage]


class Ensemble:
    """The ensemble of a finished run, which predicts images as the run predicts its test images.

    Images are read strictly, as the run reads its own: by their content, upright, RGB. They are cropped, resized, seen
    in every view by every network, voted on and calibrated as test images are.

        ensemble = Ensemble.load("results")
        ensemble.predict(["a.jpg", "b.png"])        # names of classes
        ensemble.predict_proba(["a.jpg", "b.png"])  # one column for each of ensemble.classes_

    Where its networks or its vote see metadata (`run.metadata`), every method needs it for each image.

    Attributes:
        run: the finished run.
        classes: names of the classes in the order of their codes.
        classes_: the same in alphabetical order, as scikit-learn's metrics expect the columns of `predict_proba`.
    """

    def __init__(self, run: FinishedRun, resources: JobResources) -> None:
        """Load every network of a finished run; `load` does it from a folder.

        Args:
            run: the finished run.
            resources: GPUs, CPU threads and the size of batches.

        Raises:
            UserError: if a network's files are not those that were trained, the device cannot be used, or the run
                crops faces that cannot be found in other images.
        """
        self.run, self.classes = run, list(run.label_space.classes)
        inputs = list(run.inputs)
        raise_all(filter(None, [faces_fault(run.results, inputs)]))
        self.classes_ = np.array(sorted(self.classes))
        self._column_of = np.argsort(np.array(self.classes))
        self._batch = resources.runtime.predict_batch
        alike = {(recipe.packed.shape, recipe.size): recipe for recipe in run.recipes.values()}
        ready = {key: views_of(recipe, run.views) for key, recipe in alike.items()}
        self._views = {model: ready[recipe.packed.shape, recipe.size] for model, recipe in run.recipes.items()}
        self._by_content = any(view.change for views in self._views.values() for view in views)
        self._reader = reader(run.images, inputs, run.min_confidence, of_pixels=False)
        self._reader_of_content = reader(run.images, inputs, run.min_confidence, of_pixels=True)
        image_bytes = sum(3 * height * width for height, width in (framing.shape for framing in inputs))
        batches = min(_MOST_IMAGES, _MOST_BYTES // image_bytes) // self._batch
        self.images_at_once = max(batches, 1) * self._batch
        self._members: dict[MemberKey, tuple[nn.Module, Device]] = {}
        for member in run.members:
            device = resources.device(run.recipes[member[0]])
            self._members[member] = device.place(run.load(member)).eval(), device

    @classmethod
    def load(
        cls,
        results: str | Path = "results",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int | None = None,
        batch_size: int = 256,
    ) -> "Ensemble":
        """Load the ensemble of a finished run.

        Args:
            results: the folder of the run: `results` of its configuration.
            device: `auto` takes a GPU if there is one.
            threads: CPU threads of an operation; None: as many as there are cores.
            batch_size: images in one forward pass. With that of the run (`runtime.predict_batch`) predictions of its
                test images are the same to the last bit.

        Raises:
            UserError: if the folder holds no finished run, or the device cannot be used.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device: {device!r} is none; use auto, cpu or cuda")
        gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        cores = threads or len(os.sched_getaffinity(0))
        return cls(read_finished_run(Path(results)), JobResources(int(gpu), cores, Runtime(predict_batch=batch_size)))

    @property
    def devices(self) -> str:
        """The hardware that the networks run on, such as `CPU`."""
        return ", ".join(sorted({device.name for _, device in self._members.values()}))

    def __repr__(self) -> str:
        return f"Ensemble({str(self.run.results)!r}): {len(self._members)} networks, {len(self.classes)} classes"

    def predict(self, images: Iterable[Picture], metadata: pd.DataFrame | None = None) -> npt.NDArray[np.str_]:
        """The predicted class of each image, after the offsets of the vote where it has any.

        Args:
            images: paths, or uint8 arrays of shape (height, width, 3), RGB; each of any size.
            metadata: one row per image, for an ensemble that sees it (`run.metadata`): a column of each name, with
                missing values where it is unknown. Others do not look at it.

        Returns:
            Names of classes, shape (images,).

        Raises:
            UserError: naming each image that is rejected, and why; or what is wrong with the metadata.
        """
        return np.array(self.classes)[self.votes(images, metadata=metadata)[1]]

    def predict_proba(self, images: Iterable[Picture], metadata: pd.DataFrame | None = None) -> npt.NDArray[np.float64]:
        """The calibrated probability of every class.

        Args:
            images, metadata: as for `predict`.

        Returns:
            float64 (images, classes): a column for each of `classes_`, which is not the order of the codes.

        Raises:
            UserError: as for `predict`.
        """
        return self.votes(images, metadata=metadata)[0][:, self._column_of]

    def votes(
        self,
        images: Iterable[Picture],
        ids: Sequence[str] | None = None,
        workers: int = 1,
        metadata: pd.DataFrame | None = None,
    ) -> tuple[npt.NDArray[np.float64], Codes]:
        """The probabilities and the predicted classes in the order of the codes, as in ensemble/test.parquet.

        Args:
            images, metadata: as for `predict`.
            ids: as for `pieces`.
            workers: as for `pieces`.

        Returns:
            Calibrated probabilities, float64 (images, classes), and the predicted codes, int64 (images,).

        Raises:
            UserError: as for `predict`.
        """
        given = _listed(images)
        probabilities, codes = np.empty((len(given), len(self.classes))), np.empty(len(given), np.int64)
        for piece in self.pieces(given, ids, workers, metadata=metadata):
            raise_all(
                f"{_name(given, row)}: {found.reason}: {found.message}" for row, found in sorted(piece.bad.items())
            )
            probabilities[piece.rows], codes[piece.rows] = piece.probabilities, piece.codes
        return probabilities, codes

    def pieces(
        self,
        images: Sequence[Picture | FileBelow],
        ids: Sequence[str] | None = None,
        workers: int = 1,
        track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda images, _total: images,
        metadata: pd.DataFrame | None = None,
    ) -> Iterator[Piece]:
        """Predict many images in little memory, piece by piece; bad images are listed and stop nothing.

        Args:
            images: paths, arrays, or pairs of a folder and the path of a file below it, which no symlink may leave.
            ids: names of the images, on which views with random steps depend; None: each view is drawn by the pixels
                of the image, so that equal pictures get equal predictions.
            workers: processes that read images. More than one, with hundreds of images, needs a main module that can be
                imported: a script with an `if __name__ == "__main__"` guard, or a notebook.
            track: called with the images, as they are read, and their number; returns the same and may show progress.
            metadata: as for `predict`.

        Yields:
            Up to `images_at_once` predicted images in their order.

        Raises:
            UserError: if something in `images` is neither a path nor an array, memory does not suffice for one, or the
                metadata is not that of the images.
        """
        beside = self._beside(len(images), metadata)
        sources = (_source(image, row) for row, image in enumerate(images))
        read = self._reader_of_content if ids is None and self._by_content else self._reader
        found = stream_processes(read, sources, len(images), workers, self.images_at_once, "reading images")
        rows: list[int] = []
        seen: list[NewImage] = []
        bad: dict[int, RejectedImage] = {}
        for row, one in enumerate(track(found, len(images))):
            if isinstance(one, RejectedImage):
                bad[row] = one
            else:
                rows.append(row)
                seen.append(one)
            if len(seen) == self.images_at_once:
                yield self._predicted(rows, seen, bad, ids, beside)
                rows, seen, bad = [], [], {}
        if rows or bad:
            yield self._predicted(rows, seen, bad, ids, beside)

    def _beside(self, images: int, metadata: pd.DataFrame | None) -> pd.DataFrame | None:
        """The metadata that the ensemble sees, one row per image; None if it sees none."""
        wanted = self.run.metadata
        if not wanted:
            return None
        if metadata is None or len(metadata) != images:
            there = "is missing" if metadata is None else f"has {len(metadata):,} rows for {images:,} images"
            raise UserError(
                f"metadata: {there}; give a table of one row per image with the columns {', '.join(wanted)}, which the "
                "ensemble sees beside the image, with missing values where one is unknown"
            )
        return metadata_of_rows("metadata", wanted, metadata, first_row=0)

    def _predicted(
        self,
        rows: list[int],
        seen: list[NewImage],
        bad: dict[int, RejectedImage],
        ids: Sequence[str] | None,
        metadata: pd.DataFrame | None,
    ) -> Piece:
        digests = [one.digest for one in seen]
        names = digests if ids is None else [ids[row] for row in rows]
        probabilities, codes = np.empty((0, len(self.classes))), np.empty(0, int)
        if seen:
            probabilities, codes = self._vote(names, seen, None if metadata is None else metadata.iloc[rows])
        return Piece(np.array(rows, np.int64), digests, probabilities, codes, bad)

    @name_nondeterminism()
    def _vote(
        self, ids: Sequence[str], seen: Sequence[NewImage], metadata: pd.DataFrame | None
    ) -> tuple[npt.NDArray[np.float64], Codes]:
        """The vote of all networks on prepared images."""
        logits: dict[MemberKey, dict[str, Floats]] = {}
        for number, models in enumerate(self.run.inputs.values()):
            images = PixelRows(ids, [one.pixels[number] for one in seen])
            for member in (member for member in self._members if member[0] in models):
                logits[member] = self._logits(member, images, self._views[member[0]], metadata)
        return self.run.vote(logits, metadata)

    def _logits(
        self, member: MemberKey, images: PixelRows, views: Sequence[View], metadata: pd.DataFrame | None
    ) -> dict[str, Floats]:
        """A member's logits of the task's classes, by view."""
        model, device = self._members[member]
        rows, encoding = np.arange(len(images.row_of)), self.run.encodings.get(member)
        beside = None if encoding is None or metadata is None else encode(metadata, encoding)
        own = predict_logits(model, images, rows, views, device, self._batch, metadata=beside)
        code_of = known_classes(self.run.recipes[member[0]], self.run.label_space)[1]
        return {view: values[:, code_of] for view, values in own.items()}


def _listed(images: Iterable[Picture]) -> Sequence[Picture]:
    """The images as a sequence.

    Raises:
        UserError: if they are a single image, or something else that holds none.
    """
    one_array = isinstance(images, np.ndarray) and images.ndim < 4 and np.issubdtype(images.dtype, np.number)
    if one_array or isinstance(images, str | Path):
        shown = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else repr(str(images))
        raise UserError(f"images: {shown} is one image; give a list: [image]")
    return list(images)


def _source(image: Picture | FileBelow, row: int) -> Source:
    """What `read_new` reads.

    Raises:
        UserError: if it is neither a path nor an array.
    """
    if isinstance(image, np.ndarray | tuple):
        return image
    if not isinstance(image, str | Path):
        raise UserError(f"images[{row}]: is a {type(image).__name__}; give a path or a uint8 array (height, width, 3)")
    path = Path(image)
    real = path.resolve() if path.exists() else path.absolute()
    return real.parent, real.name


def _name(images: Sequence[Picture], row: int) -> str:
    return f"images[{row}]" if isinstance(images[row], np.ndarray) else str(images[row])
