"""Predict images with the exported ensemble beside this file; needs numpy, Pillow, OpenCV and onnxruntime only.

    python predict.py IMAGES submission.csv

or, from Python, with the folder of this file on sys.path:

    from predict import Bundle
    bundle = Bundle()
    bundle.predict(["a.jpg", "b.png"])        # names of classes
    bundle.predict_proba(["a.jpg", "b.png"])  # one column for each of bundle.classes_

Images are read strictly, cropped and resized by the files in `ingest/`, which are those of the workflow itself.
"""

import argparse
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # otherwise onnxruntime tells its makers over the network that it is used

try:
    import cv2
    import numpy as np
    import numpy.typing as npt
    import onnxruntime

    from foldvote.config.image_size import Framing
    from foldvote.data.cropping import cut
    from foldvote.data.face_detector import confident_region, detect_face
    from foldvote.data.image_decoding import BadImage, accepted_array, decode, read_image
    from foldvote.deployment.bundle_answers import Answers, Below, answer_columns, images_of, read_csv, write_csv
    from foldvote.errors import UserError, first_few, raise_all
    from foldvote.submission.sample_matching import matched_ids
except ImportError as error:
    if __name__ == "__main__":
        sys.exit(f"predict.py: {error}; run `pip install -r requirements.txt`, and keep the folder `ingest` beside it")
    raise

Picture = str | Path | bytes | np.ndarray | Below
Votes = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
_READING = threading.Lock()  # strict decoding sets switches of Pillow that all threads share


@dataclass(frozen=True)
class Rules:
    """Which images are accepted, see ingest/image_decoding.py."""

    formats: tuple[str, ...]
    tolerate_tail: bool
    animated: str
    background: tuple[int, int, int]
    min_side: int
    max_megapixels: float


@dataclass(frozen=True)
class Piece:
    """Predictions of some images that follow one another.

    Attributes:
        rows: the positions of the images that were predicted.
        probabilities: float64 (rows, classes), in the order of `Bundle.classes`.
        codes: of the predicted classes, int64 (rows,).
        bad: by its position each image that was rejected, and why.
    """

    rows: list[int]
    probabilities: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]
    bad: dict[int, BadImage]


class Bundle:
    """The exported ensemble in a folder. May be used by several threads at once.

    Attributes:
        classes: names of the classes in the order of their codes.
        classes_: the same in alphabetical order, as scikit-learn's metrics expect the columns of `predict_proba`.
        settings: the content of settings.json.
    """

    def __init__(self, folder: str | Path | None = None, threads: int | None = None, batch: int = 32) -> None:
        """Load the networks.

        Args:
            folder: the folder of settings.json; None: that of this file.
            threads: CPU threads; None: as many as there are cores.
            batch: images in one forward pass.

        Raises:
            UserError: if a file is missing, or is not the one that the bundle was written with.
        """
        self.folder = Path(__file__).parent if folder is None else Path(folder)
        self.settings = _json(self.folder / "settings.json")
        raise_all(_file_faults(self.folder, self.settings["files"]))
        self.classes: list[str] = _json(self.folder / "classes.json")["classes"]
        self.classes_ = np.array(sorted(self.classes))
        self._column_of = np.argsort(np.array(self.classes))
        images = self.settings["images"]
        self._rules = Rules(**images | {"formats": tuple(images["formats"]), "background": tuple(images["background"])})
        detector = self.settings["detector"]
        self._detector = self.folder / detector if detector else None
        self._batch = max(batch, 1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        if threads:
            cv2.setNumThreads(threads)
        self._graphs = [graph for graph in self.settings["graphs"] if graph["size"] is not None]
        self._framings = [Framing(one["size"], one["roi"], one.get("fit", "squash")) for one in self._graphs]
        self._sessions = {
            graph["file"]: onnxruntime.InferenceSession(
                str(self.folder / graph["file"]), options, providers=["CPUExecutionProvider"]
            )
            for graph in self.settings["graphs"]
        }

    def predict(self, images: Iterable[Picture]) -> npt.NDArray[np.str_]:
        """The predicted class of each image.

        Args:
            images: paths, contents of files as bytes, or uint8 arrays of shape (height, width, 3), RGB, upright; each
                of any size.

        Returns:
            Names of classes, shape (images,).

        Raises:
            UserError: naming each image that is rejected, and why.
        """
        return np.array(self.classes)[self.votes(images)[1]]

    def predict_proba(self, images: Iterable[Picture]) -> npt.NDArray[np.float64]:
        """The calibrated probability of every class: float64 (images, classes), a column for each of `classes_`.

        Args:
            images: as for `predict`.

        Raises:
            UserError: naming each image that is rejected, and why.
        """
        return self.votes(images)[0][:, self._column_of]

    def votes(self, images: Iterable[Picture]) -> Votes:
        """The probabilities and the predicted codes, in the order of `classes`.

        Args:
            images: as for `predict`.

        Returns:
            float64 (images, classes) and int64 (images,).

        Raises:
            UserError: naming each image that is rejected, and why.
        """
        if isinstance(images, str | Path | bytes) or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise UserError("images: is one image; give a list: [image]")
        given = list(images)
        probabilities, codes = np.empty((len(given), len(self.classes))), np.empty(len(given), np.int64)
        for piece in self.pieces(given):
            raise_all(f"{_name(given, row)}: {bad.message}" for row, bad in sorted(piece.bad.items()))
            probabilities[piece.rows], codes[piece.rows] = piece.probabilities, piece.codes
        return probabilities, codes

    def pieces(self, images: Sequence[Picture]) -> Iterator[Piece]:
        """Predict any number of images in little memory; while some are predicted, the next ones are read.

        Args:
            images: as for `predict`, also pairs of a folder and the path of a file below it.

        Yields:
            The images of one batch after another; bad images are listed and stop nothing.
        """
        starts = range(0, len(images), self._batch)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, images, 0)
            for start in starts:
                seen, bad = coming.result()
                if start + self._batch < len(images):
                    coming = reader.submit(self._read, images, start + self._batch)
                yield self._predicted(seen, bad)

    def _read(
        self, images: Sequence[Picture], start: int
    ) -> tuple[dict[int, list[npt.NDArray[np.uint8]]], dict[int, BadImage]]:
        """By its position the arrays of each image of a batch, one for each graph, and the images that are rejected."""
        seen, bad = {}, {}
        for row in range(start, min(start + self._batch, len(images))):
            try:
                with _READING:
                    seen[row] = self._seen(images[row])
            except BadImage as error:
                bad[row] = error
            except UserError as error:
                bad[row] = BadImage("roi", str(error))
        return seen, bad

    def _seen(self, image: Picture) -> list[npt.NDArray[np.uint8]]:
        """An image as each graph takes it."""
        if isinstance(image, np.ndarray):
            pixels = accepted_array(image, self._rules)
        elif isinstance(image, bytes):
            pixels = decode(image, self._rules).pixels
        else:
            if not isinstance(image, tuple):
                real = Path(os.path.realpath(image))
                image = real.parent, real.name
            pixels = read_image(*image, self._rules)[1].pixels
        face = None
        if self._detector is not None:
            face = confident_region(detect_face(pixels, self._detector), self.settings["min_confidence"])
        return [cut(pixels, framing, face) for framing in self._framings]

    def _predicted(self, seen: Mapping[int, list[npt.NDArray[np.uint8]]], bad: dict[int, BadImage]) -> Piece:
        if not seen:
            return Piece([], np.empty((0, len(self.classes))), np.empty(0, np.int64), bad)
        found: dict[str, Any] = {}
        for number, graph in enumerate(self._graphs):
            batch = np.stack([arrays[number] for arrays in seen.values()])
            values = self._sessions[graph["file"]].run(graph["outputs"], {graph["inputs"][0]: batch})
            found |= {Path(graph["file"]).stem: values[0]} if len(values) == 1 else _by_name(graph, values)
        for graph in self.settings["graphs"]:
            if graph["size"] is None:  # the vote over several graphs
                given = {name: found[name] for name in graph["inputs"]}
                found = _by_name(graph, self._sessions[graph["file"]].run(graph["outputs"], given))
        probabilities = found["probabilities"].astype(np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)  # float32 sums to 1 with an error
        return Piece(list(seen), probabilities, found["codes"].astype(np.int64), bad)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see `python predict.py --help`."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Predict images with the ensemble in this folder.")
    parser.add_argument("images", type=Path, help="a folder of images, or a CSV table of them (--root)")
    parser.add_argument("submission", type=Path, help="the CSV file to write")
    parser.add_argument("--sample", type=Path, help="CSV whose ids, order and columns are kept")
    parser.add_argument("--root", type=Path, help="folder of the images of a table; default: that of the table")
    parser.add_argument("--proba", type=Path, help="also write a CSV with the probability of every class")
    parser.add_argument("--bad", choices=["error", "skip"], default="error", help="what a bad image does")
    parser.add_argument("--batch", type=int, default=32, help="images in one forward pass")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all cores")
    options = parser.parse_args(arguments)
    try:
        answer_images(Bundle(threads=options.threads, batch=options.batch), options)
    except UserError as error:
        for fault in error.faults:
            print(f"predict.py: {fault}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return 1
    return 0


def answer_images(bundle: Bundle, options: argparse.Namespace) -> None:
    """Predict and write what the command line asks for; nothing is written if anything is wrong.

    Args:
        bundle: the ensemble.
        options: the parsed command line.

    Raises:
        UserError: one line for each fault.
    """
    written = [path for path in (options.submission, options.proba) if path]
    raise_all(f"{path}: its folder is not there; make it" for path in written if not path.parent.is_dir())
    form = bundle.settings["submission"]
    ids, sources = images_of(options.images, options.root, form["id_column"])
    header, rows, names = [form["id_column"]], [[name] for name in ids], ids
    if options.sample:
        header, rows = read_csv(options.sample, form["id_column"])
        names, how = matched_ids([row[header.index(form["id_column"])] for row in rows], ids)
        known = dict(zip(ids, sources, strict=True))
        absent = [name for name in names if name not in known]
        if absent:
            raise UserError(f"{options.sample}: {len(absent)} images are not in {options.images}: {first_few(absent)}")
        if how:
            print(f"{options.sample}: its ids are those of the images {how}", file=sys.stderr)
        sources = [known[name] for name in names]
    columns = answer_columns(header, form, options.sample or options.submission)
    faults: list[str] = []
    with Answers(bundle.classes, bundle.settings, columns, names, options.proba) as answers:
        for piece in bundle.pieces(sources):
            answers.add(piece.rows, piece.probabilities, piece.codes)
            faults += [f"{names[row]}: {bad.message}" for row, bad in sorted(piece.bad.items())]
        if options.bad == "error":
            raise_all(faults)
        for fault in faults:
            print(f"predict.py: left out: {fault}", file=sys.stderr)
        write_csv(options.submission, *answers.table(header, rows, keep=options.sample is not None))


def _by_name(graph: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(graph["outputs"], values, strict=True))


def _name(images: Sequence[Picture], row: int) -> str:
    image = images[row]
    return (
        f"images[{row}]"
        if isinstance(image, np.ndarray | bytes)
        else str(image[1] if isinstance(image, tuple) else image)
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy the bundle again") from None


def _file_faults(folder: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """A line for each file that is missing or not the one that the bundle was written with."""
    for name, sha256 in digests.items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: is missing; copy the bundle again"
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                yield f"{path}: is not the file that the bundle was written with; copy the bundle again"


if __name__ == "__main__":
    sys.exit(main())
