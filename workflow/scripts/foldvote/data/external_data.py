"""The images of data from elsewhere, as rows of the training entries that are only trained on."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from foldvote.config.data import DataSettings
from foldvote.config.external import AllData, External
from foldvote.data.image_folders import block_of, external_path
from foldvote.data.label_space import LabelSpace
from foldvote.data.layouts.registry import layout_of
from foldvote.data.manifest_table import ONLY, WEIGHT
from foldvote.data.name_spelling import plain_entries
from foldvote.errors import MOST_SHOWN, UserError, did_you_mean, first_few, raise_all
from foldvote.io.names import look, spelled
from foldvote.runtime.job_log import log


def with_external(frame: pd.DataFrame, label_space: LabelSpace, config: AllData) -> pd.DataFrame:
    """The training entries, followed by those of each block of `config.external`.

    Args:
        frame: labelled entries of the data itself, as `entries.Entries` has them.
        label_space: the classes of the data.
        config: the configuration of the data.

    Returns:
        `frame` with the column train_only, and sample_weight where any image has a weight. Of an external image,
        image_id, path and profile begin with the name of its block, and so does group unless `same_groups` says that
        names of groups mean the same; columns that its layout does not have are null.

    Raises:
        UserError: for every fault of the blocks: of their folders and tables, for classes that the data does not have,
            groups that look the same, and images that have the id of another one.
    """
    parts, faults = [frame.assign(**{ONLY: frame.get(ONLY, False)})], []
    for name, settings in config.blocks.items():
        try:
            parts.append(_entries(name, config.external[name], settings, label_space))
        except UserError as error:
            faults += [f"external.{name}: {fault}" for fault in error.faults]
    raise_all(faults)
    weighted = any(WEIGHT in part for part in parts)
    columns = list(dict.fromkeys([*frame, ONLY, *([WEIGHT] if weighted else [])]))
    every = pd.concat([_shaped(part, columns, frame) for part in parts], ignore_index=True)
    raise_all(_doubled(every))
    return _with_same_groups(every, config)


def _entries(name: str, block: External, settings: DataSettings, label_space: LabelSpace) -> pd.DataFrame:
    """The entries of one block with the classes of the data."""
    if not settings.root.is_dir():
        raise UserError(f"data_root: {settings.root} is no folder; set data_root to the folder of the images")
    frame, found = layout_of(block.data).entries(settings.root, "train", Path(settings.results))
    frame, _ = plain_entries(frame, settings, "train")
    theirs = _class_names(frame, block, label_space)
    raise_all(_class_faults(theirs, found, name, block, label_space))
    ours = theirs.map({own: block.classes.get(own, own) for own in theirs.unique()})
    kept = ours.notna()
    if not kept.any():
        raise UserError("no image is left; correct classes, which leaves out all of them")
    if not kept.all():
        dropped = first_few(sorted(set(theirs[~kept])))
        log(f"external.{name}: {(~kept).sum()} of {len(kept)} images are left out, as classes says ({dropped})")
    frame, ours = frame[kept], ours[kept]
    codes = ours.map({own: code for code, own in enumerate(label_space.classes)}).astype("int16")
    for factor, levels in label_space.factors.items():
        frame = frame.assign(**{factor: [levels[level] for level in label_space.level_codes(factor)[codes]]})
    group = frame["group"] if block.same_groups else _named(name, frame["group"])
    frame = frame.assign(
        image_id=_named(name, frame["image_id"]),
        path=[external_path(name, path) for path in frame["path"]],
        profile=_named(name, frame["profile"]),
        group=group,
        label=codes,
        class_name=ours,
        corrected=False,
    ).assign(**{ONLY: True})
    if WEIGHT in frame or block.weight != 1:
        frame[WEIGHT] = frame.get(WEIGHT, 1.0) * block.weight
    return frame


def _named(block: str, names: "pd.Series[str]") -> "pd.Series[str]":
    return f"{block}/" + names


def _class_names(frame: pd.DataFrame, block: External, label_space: LabelSpace) -> "pd.Series[str]":
    """What the block calls the class of each image: where it is made of factors, in the order of the data's factors."""
    factors: Sequence[str] = tuple(label_space.factors) or block.data.factor_names
    return frame[list(factors)].agg("-".join, axis=1) if block.data.factor_names else frame["class_name"]


def _class_faults(
    theirs: "pd.Series[str]", found: set[str], name: str, block: External, label_space: LabelSpace
) -> list[str]:
    """A line for each class that the data does not have, and each name in `classes` that means nothing."""
    known, counts = label_space.classes, theirs.value_counts()
    shown = ", ".join(known[:MOST_SHOWN]) + (", ..." if len(known) > MOST_SHOWN else "")
    listed = set(getattr(block.data, "classes", None) or ()) | found | set(counts.index)
    faults = [
        f"the data has no class {own!r}, which {counts[own]} images here are of; say which of its classes ({shown}) it "
        f"is, or null to leave them out: external.{name}.classes: {{{own!r}: ...}}"
        for own in sorted(set(counts.index) - set(known) - set(block.classes))
    ]
    for own, ours in block.classes.items():
        if own not in listed:
            faults.append(f"classes.{own}: no image here is of this class{did_you_mean(own, listed) or '; drop it'}")
        if ours is not None and ours not in known:
            guess = did_you_mean(ours, known) or f"; use one of {shown}"
            faults.append(f"classes.{own}: the data has no class {ours!r}{guess}")
    return faults


def _shaped(part: pd.DataFrame, columns: list[str], own: pd.DataFrame) -> pd.DataFrame:
    """The rows with these columns and the types of the data's own; weights that are not given are 1."""
    shaped = part.reindex(columns=columns)
    if WEIGHT in columns:
        shaped[WEIGHT] = shaped[WEIGHT].astype("float64").fillna(1.0)
    return shaped.astype({name: kind for name, kind in own.dtypes.items() if name in columns and name != WEIGHT})


def _doubled(every: pd.DataFrame) -> list[str]:
    """A line for each id that several images have."""
    doubled = every["image_id"].duplicated(keep=False)
    return [
        f"external: the image id {spelled(name)} is that of {' and '.join(map(spelled, rows['path']))}; give the block "
        "another name"
        for name, rows in every[doubled].groupby("image_id", sort=True)
    ]


def _with_same_groups(every: pd.DataFrame, config: AllData) -> pd.DataFrame:
    """The entries, where groups of a block that look like one of the data, or of a block before, are as configured."""
    if config.data.similar_groups == "keep":
        return every
    blocks, faults = block_of(every["path"]), []
    known: dict[str, str] = {}
    for name in ["", *config.external]:
        groups = sorted(every.loc[blocks == name, "group"].unique(), reverse=True)
        others = {group: known[look(group)] for group in groups if known.get(look(group), group) != group}
        faults += [
            f"external.{name}: the group {spelled(group)} looks like {spelled(other)} of the data; write one name, or "
            "set data.similar_groups: join (they are one) or keep (they are several)"
            for group, other in others.items()
        ]
        rows = (blocks == name) & every["group"].isin(others)
        every.loc[rows, "group"] = every.loc[rows, "group"].map(others)
        known = {look(group): group for group in groups} | known
    if config.data.similar_groups == "refuse":
        raise_all(faults)
    return every
