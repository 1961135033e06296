"""The manifest of a split: all images, decoded once, hashed and labelled; bad images are refused or left out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from foldvote.config.external import AllData
from foldvote.data.entries import entries
from foldvote.data.file_listing import Split, passed_over
from foldvote.data.image_folders import ImageFolders, Root, image_place
from foldvote.data.image_inspection import AcceptedImage, RejectedImage, inspector
from foldvote.data.label_space import LabelSpace
from foldvote.data.layouts.registry import layout_of
from foldvote.data.manifest_table import LEFT_OUT, QUARANTINE, USES, manifest_schema
from foldvote.errors import MOST_TOLD, UserError, did_you_mean, raise_all
from foldvote.io.files import sha256_lines
from foldvote.io.parquet import write_table
from foldvote.runtime.job_log import log
from foldvote.runtime.parallel_map import map_processes

_LOST_TEST = "a test image left out is missing in the submission, which is then refused"


def build_manifest(
    config: AllData,
    split: Split,
    manifest_path: str | Path,
    quarantine_path: str | Path,
    workers: int = 1,
) -> None:
    """Write the manifest of one split and the list of images that were left out.

    The provenance record of the manifest holds data_sha256 (a digest of its ids, paths, labels, groups and file hashes
    in order), corrections (those applied), split and `scheme` (the label space: classes and factors); where files were
    ignored, `ignored` (their number by name); and where names stood in several spellings, `spellings` (these by group
    and class).

    Args:
        config: the configuration.
        split: `train` or `test`.
        manifest_path: the parquet file, schema `manifest_table.manifest_schema`.
        quarantine_path: the parquet file, schema `manifest_table.QUARANTINE`; no rows if no image was left out.
        workers: number of processes that decode.

    Raises:
        UserError: for faults of tables, folders or corrections; for bad images with `images.on_bad: error`; or if no
            image is left. Then nothing is written.
    """
    frame, label_space, corrections, spellings = entries(config, split)
    strangers = passed_over(config, split)
    if strangers:
        told = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in strangers.items())
        log(f"ignored among the {split} images: {told}")
    paths = frame["path"].tolist()
    root = ImageFolders(config.root, config.external_folders(split))
    findings = list(map_processes(inspector(root, config.images), paths, workers, f"decoding {split} images"))
    findings = _without(frame, findings, config.leave_out if split == "train" else [])
    bad = [(path, found) for path, found in zip(paths, findings, strict=True) if isinstance(found, RejectedImage)]
    _refuse_or_log(bad, config, root, split, len(paths), Path(quarantine_path))
    accepted = [isinstance(found, AcceptedImage) for found in findings]
    columns = pd.DataFrame([asdict(found) for found in findings if isinstance(found, AcceptedImage)])
    frame = pd.concat([frame[accepted].reset_index(drop=True), columns], axis=1)
    _log_warnings(frame, label_space, split)
    raw = layout_of(config.data).raw_columns
    uses = tuple((name, kind) for name, kind in USES.items() if name in frame and name not in dict(raw))
    schema = manifest_schema(config.data.factor_names, (*raw, *uses))
    quarantine = pd.DataFrame([(path, found.reason, found.message) for path, found in bad], columns=QUARANTINE.names)
    write_table(quarantine, quarantine_path, QUARANTINE)
    record = {
        "data_sha256": data_digest(frame),
        "corrections": corrections,
        "split": split,
        "scheme": label_space.as_json(),
    }
    record |= {name: value for name, value in (("ignored", strangers), ("spellings", spellings)) if value}
    write_table(frame[schema.names], manifest_path, schema, key=("image_id",), record=record)


def _without(
    frame: pd.DataFrame, findings: Sequence[AcceptedImage | RejectedImage], named: Sequence[str]
) -> list[AcceptedImage | RejectedImage]:
    """The findings, with the images that the user named and every copy of them rejected for the reason LEFT_OUT."""
    place = {name: row for column in ("path", "image_id") for row, name in enumerate(frame[column])}
    raise_all(
        f"leave_out: there is no training image {name!r}{did_you_mean(name, place) or '; give its image_id'}"
        for name in named
        if name not in place
    )
    rows = {place[name] for name in named}
    copies = {found.sha256 for row in rows if isinstance(found := findings[row], AcceptedImage)}
    gone = RejectedImage(LEFT_OUT, "is named by leave_out, or a copy of a file that is")
    return [
        gone if row in rows or (isinstance(found, AcceptedImage) and found.sha256 in copies) else found
        for row, found in enumerate(findings)
    ]


def data_digest(manifest: pd.DataFrame) -> str:
    """SHA-256 over the rows' ids, paths, labels, groups (empty if unknown) and file hashes, in order."""
    return sha256_lines(_lines(manifest))


def _lines(manifest: pd.DataFrame) -> Iterator[str]:
    columns = (manifest[name] for name in ("image_id", "path", "label", "group", "sha256"))
    for image_id, path, label, group, sha256 in zip(*columns, strict=True):
        yield f"{image_id}\t{path}\t{label}\t{'' if pd.isna(group) else group}\t{sha256}"


def _refuse_or_log(
    bad: Sequence[tuple[str, RejectedImage]],
    config: AllData,
    root: Root,
    split: Split,
    total: int,
    quarantine_path: Path,
) -> None:
    """Raise an error for bad images or log that they are left out, as configured."""
    asked = sum(found.reason == LEFT_OUT for _, found in bad)
    if asked:
        log(f"{asked} of {total} {split} images are left out, as leave_out says, listed in {quarantine_path}")
    bad = [(path, found) for path, found in bad if found.reason != LEFT_OUT]
    if not bad and asked < total:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(found.reason for _, found in bad).most_common())
    if config.images.on_bad == "quarantine" and len(bad) + asked < total:
        note = f"; {_LOST_TEST}" if split == "test" else ""
        log(f"{len(bad)} of {total} {split} images are left out ({counts}), listed in {quarantine_path}{note}")
        return
    told = [f"{Path(*image_place(root, path))}: {found.reason}: {found.message}" for path, found in bad[:MOST_TOLD]]
    if len(bad) > MOST_TOLD:
        told.append(f"... and {len(bad) - MOST_TOLD} more")
    remedy = "mend them, or set images.on_bad: quarantine to go on without them"
    if len(bad) + asked == total:
        remedy = "no image is left; correct data_root, the section data or leave_out"
    elif split == "test":
        remedy += f" ({_LOST_TEST})"
    raise UserError(*told, f"{len(bad)} of {total} {split} images are bad ({counts}): {remedy}")


def _log_warnings(frame: pd.DataFrame, label_space: LabelSpace, split: Split) -> None:
    """Log a warning for each flag that images have, and for each class without images."""
    counts = Counter(flag for flags in frame["flags"] if flags for flag in flags.split("+"))
    for flag, count in counts.most_common():
        example = frame.loc[frame["flags"].str.split("+").map(lambda flags, flag=flag: flag in flags), "path"].iloc[0]
        log(f"warning: {count} {split} images are flagged {flag}, such as {example}")
    if split == "train":
        present = set(frame["label"])
        for code, name in enumerate(label_space.classes):
            if code not in present:
                log(f"warning: class {name} has no training image")
