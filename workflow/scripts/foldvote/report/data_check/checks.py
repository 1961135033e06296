"""The checks of the data: each gives findings in words."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from foldvote.data.image_folders import block_of
from foldvote.data.image_statistics import cohens_d, eta_squared
from foldvote.data.manifest_table import LEFT_OUT, WEIGHT
from foldvote.io.names import alike, spelled
from foldvote.report.data_check.counts import class_counts, flag_counts, format_counts, size_counts, stratum_balance
from foldvote.report.data_check.inputs import CONFLICT, JOINED, LEAKED, DataCheckInputs
from foldvote.runtime.checks import Finding, Level

MOST_IMBALANCE = 10  # images of the largest class per image of the smallest
MOST_SHIFT = 0.5  # Cohen's d between train and test
MOST_EXPLAINED = 0.2  # share of a measure's variance that lies between the levels of a factor
BLACK, WHITE = 20.0, 235.0  # mean luma (0 to 255) below and above which an image is unusual
FLAT = 8.0  # standard deviation of the luma below which an image is of one colour
ASPECTS = 0.1  # relative difference between the aspect ratios of images
NEAR_BORDER = 2  # of the numeric factor's unit, such as years
LEAST_WORTH = 0.5  # share of the images that weighted images should be worth
MOST_NAMED = 5


def run_checks(inputs: DataCheckInputs) -> list[Finding]:
    """All findings: errors first, then warnings; `place` is a section of the page.

    Args:
        inputs: the tables of the data stages.
    """
    found = [
        *_persons(inputs),
        *_classes(inputs),
        *_names_alike(inputs),
        *_weights(inputs),
        *_near_borders(inputs),
        *_files(inputs),
        *_light(inputs),
        *_folds(inputs),
        *_leaks(inputs),
        *_lookalikes(inputs),
        *_quarantine(inputs),
        *_ignored(inputs),
        *_corrections(inputs),
    ]
    order = {"error": 0, "warning": 1, "ok": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def unusual_images(light: pd.DataFrame) -> pd.DataFrame:
    """Images that are nearly black, nearly white or nearly of one colour.

    Args:
        light: rows of image_statistics.IMAGE_STATISTICS.

    Returns:
        Those rows with a further column why, those with the least contrast first.
    """
    why = pd.Series("", index=light.index, dtype="object")
    why[light["contrast"] < FLAT] = "nearly of one colour"
    why[light["brightness"] > WHITE] = "nearly white"
    why[light["brightness"] < BLACK] = "nearly black"
    return light.assign(why=why)[why != ""].sort_values(["contrast", "image_id"])


def _persons(inputs: DataCheckInputs) -> Iterator[Finding]:
    train, place = inputs.train, "counts"
    persons, groups = train["profile"].nunique(), train["group"].nunique()
    tests = f" {len(inputs.manifests['test']):,} test images." if "test" in inputs.manifests else " No test images."
    yield Finding(
        "ok", f"{len(train):,} training images of {_n(persons, 'person')} in {_n(groups, 'group')}.{tests}", "", place
    )
    of_group = train.groupby("group")["profile"].nunique()
    several = of_group[of_group > 1]
    if len(several):
        text = f"{_n(len(several), 'group')} with several persons, such as {_names(several.index)}: kept in one fold."
        yield Finding("ok", text, "", "persons")
    images = train.groupby("profile").size()
    usual = int(images.mode().iloc[0])
    other = images[images != usual]
    if len(other):
        text = f"{_n(len(other), 'person')} with more or fewer than {_n(usual, 'image')}: {_names(other.index)}."
        level: Level = "warning" if len(other) < len(images) / 4 else "ok"
        yield Finding(level, text, "Are images missing, or ids mixed up?" if level == "warning" else "", "persons")
    elif len(images) > 1:
        yield Finding("ok", f"Each person has {_n(usual, 'image')}.", "", "persons")


def _classes(inputs: DataCheckInputs) -> Iterator[Finding]:
    counted = class_counts(inputs.train, inputs.label_space)
    absent = counted.loc[counted["images"] == 0, "name"]
    if len(absent):
        text = f"{_n(len(absent), 'class', 'classes')} without any training image: {_names(absent)}."
        yield Finding("warning", text, "Nothing can be learnt about them, and macro-F1 counts them as 0.", "counts")
    there = counted[counted["images"] > 0].sort_values("images")
    if len(there) < 2:
        return
    low, high = there.iloc[0], there.iloc[-1]
    times = high["images"] / low["images"]
    text = (
        f"The largest class, {high['name']}, has {times:.3g} times the images of the smallest, {low['name']} "
        f"({high['images']:,} and {low['images']:,}; {_n(low['persons'], 'person')})."
    )
    remedy = (
        "Macro-F1 depends on the small classes: consider class weights, samplers and losses."
        if times >= MOST_IMBALANCE
        else ""
    )
    yield Finding("warning" if times >= MOST_IMBALANCE else "ok", text, remedy, "counts")


def _names_alike(inputs: DataCheckInputs) -> Iterator[Finding]:
    """Names that were joined because a reader takes them for one, and names that look the same and were not."""
    for what, names in inputs.spellings.items():
        name, several = next(iter(names.items()))
        text = (
            f"{_n(len(names), what, 'classes' if what == 'class' else '')} written in several ways and joined, such as "
            f"{spelled(name)}: {', '.join(map(spelled, several))}."
        )
        yield Finding("warning", text, "Is each of them one? Write one name in the data.", "counts")
    train = inputs.train
    kept = {"groups": (alike(train["group"].unique()), "Are they one? Then set data.similar_groups: join.")}
    kept["classes"] = (alike(inputs.label_space.classes), "Are they one? Then list one of them in data.classes.")
    ids = (name for rows in inputs.manifests.values() for name in rows["image_id"])
    kept["image ids"] = (alike(ids, case=True), "Is it one image twice? Otherwise rename one of them.")
    for what, (sets, remedy) in kept.items():
        if sets:
            shown = "; ".join(" and ".join(map(spelled, names)) for names in sets[:MOST_NAMED])
            text = f"{_n(len(sets), 'set')} of different {what} that look the same, such as {shown}."
            yield Finding("warning", text, remedy, "counts")


def _weights(inputs: DataCheckInputs) -> Iterator[Finding]:
    """How many images the weights are worth: Kish's effective size, (sum w)^2 / sum w^2."""
    if WEIGHT not in inputs.folds:
        return
    weights = inputs.folds.drop_duplicates("image_id")[WEIGHT].to_numpy()
    worth = weights.sum() ** 2 / (weights**2).sum()
    few = worth < LEAST_WORTH * len(weights)
    text = (
        f"Training images have weights from {weights.min():.4g} to {weights.max():.4g} in the loss; together they are "
        f"worth {worth:,.0f} of {len(weights):,} images of equal weight. Scores have no weights."
    )
    yield Finding(
        "warning" if few else "ok", text, "Few images decide: are the weights right?" if few else "", "counts"
    )


def _near_borders(inputs: DataCheckInputs) -> Iterator[Finding]:
    numeric = inputs.numeric
    if numeric is None:
        return
    known = inputs.train.dropna(subset=[numeric.column]).drop_duplicates("profile")[numeric.column].astype(int)
    near = sum(
        ((known >= border - NEAR_BORDER) & (known < border + NEAR_BORDER)).to_numpy() for border in numeric.borders
    )
    share = float(np.mean(np.asarray(near) > 0)) if len(known) else 0.0
    borders = " or ".join(map(str, numeric.borders))
    text = (
        f"{share:.0%} of the persons are within {NEAR_BORDER} {numeric.unit} of an {numeric.name} border ({borders}): "
        "hard to label by eye."
    )
    yield Finding("ok", text, "", "counts")


def _files(inputs: DataCheckInputs) -> Iterator[Finding]:
    sizes = size_counts(inputs.manifests)
    aspects = pd.concat([rows["width"] / rows["height"] for rows in inputs.manifests.values()])
    if len(sizes) == 1:
        yield Finding("ok", f"All images are {sizes['size'].iloc[0]} pixels (width x height).", "", "files")
    elif aspects.max() > aspects.min() * (1 + ASPECTS):
        text = (
            f"Images have different aspect ratios: width over height from {aspects.min():.2f} to {aspects.max():.2f}."
        )
        remedy = "They are stretched to the recipe's size, unless its fit is pad or crop; with a roi they are cropped."
        yield Finding("warning", text, remedy, "files")
    else:
        yield Finding("ok", "Images have several sizes and nearly one aspect ratio.", "", "files")
    formats = format_counts(inputs.manifests)
    if "test" in formats:
        for part, other in (("train", "test"), ("test", "train")):
            only = formats[(formats[part] > 0) & (formats[other] == 0)]
            for _, row in only.iterrows():
                text = f"{_n(row[part], 'image')} of format {row['format']} in {part}, none in {other}."
                yield Finding("warning", text, "Were the two sets made in the same way?", "files")
    for _, row in flag_counts(inputs.manifests).iterrows():
        text = f"{_n(row['images'], 'image')} in {row['split']} flagged {row['flag']}, such as {row['example']}."
        yield Finding("warning", text, "docs/files.md explains the flags.", "files")


def _light(inputs: DataCheckInputs) -> Iterator[Finding]:
    train = inputs.light["train"].merge(inputs.train, on="image_id", suffixes=("", "_of_file"))
    if "test" in inputs.light and len(inputs.light["test"]):
        shifts = {
            name: cohens_d(train[name], inputs.light["test"][name]) for name in ("brightness", "contrast", "saturation")
        }
        name, most = max(shifts.items(), key=lambda item: abs(item[1]))
        far = abs(most) > MOST_SHIFT
        remedy = "Check that the augmentation covers it." if far else ""
        text = f"Test images differ from training images most in {name}: by {most:+.2f} standard deviations."
        yield Finding("warning" if far else "ok", text, remedy, "light")
    parts = {f"The factor {name}": train[name] for name in inputs.label_space.factors}
    parts = parts or {"The class": train["class_name"]}
    explained = [
        (eta_squared(train[measure], part), measure, name)
        for name, part in parts.items()
        for measure in ("brightness", "contrast", "saturation")
    ]
    share, measure, name = max(explained)
    text = f"{name} explains at most {share:.0%} of an image's light or colour ({measure})."
    remedy = (
        "A network may learn the light instead of the object: compare the images." if share > MOST_EXPLAINED else ""
    )
    yield Finding("warning" if share > MOST_EXPLAINED else "ok", text, remedy, "light")
    for split, light in inputs.light.items():
        unusual = unusual_images(light)
        if len(unusual):
            text = f"{_n(len(unusual), 'image')} in {split} nearly black, white or of one colour."
            yield Finding("warning", text, "Look at them, and remove what is not a photograph.", "light")


def _folds(inputs: DataCheckInputs) -> Iterator[Finding]:
    certificate = inputs.certificate
    shared = sum(number for fold in certificate["folds"] for number in fold["shared"].values())
    level: Level = "error" if shared else "ok"
    text = "No image, person, group or file content is on both sides of a fold."
    if shared:
        text = f"{shared:,} images, persons, groups or file contents are on both sides of a fold."
    yield Finding(level, text, "Run your command again with `-R folds`." if shared else "", "folds")
    balance = stratum_balance(certificate)
    if balance["departure"].notna().any():
        worst = balance.loc[balance["departure"].idxmax()]
        text = (
            f"Strata are balanced to within {worst['departure']:.1f} groups of an equal share "
            f"(the largest deviation is in {worst['stratum']})."
        )
        # Whole groups allow a deviation below one group; each set of merged groups may add one more.
        level = "ok" if worst["departure"] <= 1 + len(certificate["merged_groups"]) else "warning"
        yield Finding(level, text, "" if level == "ok" else "Stratify by fewer factors, or use fewer folds.", "folds")
    outside = certificate.get("train_only")
    if outside:
        text = (
            f"{_n(outside['images'], 'image')} of {_n(outside['groups'], 'group')} only trained on, never scored; no "
            "member learns from those of groups that it is scored on."
        )
        yield Finding("ok", text, "", "folds")
    blocks = block_of(inputs.train["path"])
    for name, rows in inputs.train[blocks != ""].groupby(blocks):
        weight = f", weight {rows[WEIGHT].mean():.3g} on average" if WEIGHT in rows else ""
        text = f"external.{name}: {_n(len(rows), 'image')} of {_n(rows['group'].nunique(), 'group')}{weight}."
        yield Finding("ok", text, "", "folds")
    rare = certificate["warnings"]
    if rare:
        text = f"{_n(len(rare), 'class or stratum', 'classes and strata')} that some fold lacks: {rare[0]}."
        yield Finding("warning", text, "Add groups, use fewer folds, or stratify by fewer factors.", "folds")


def _leaks(inputs: DataCheckInputs) -> Iterator[Finding]:
    for told in inputs.leaks["told"] if inputs.leaks else ():
        yield Finding(told["level"], f"Leak check: {told['text']}.", told["remedy"], "folds")


def _lookalikes(inputs: DataCheckInputs) -> Iterator[Finding]:
    kinds = inputs.lookalikes["kind"].value_counts()
    remedies = {
        CONFLICT: "One label is wrong: correct it in corrections.csv.",
        LEAKED: "If their labels are known from training, their test score means nothing.",
        JOINED: "They are kept in one fold. Is it one person with two ids?",
    }
    for kind, remedy in remedies.items():
        if kinds.get(kind, 0):
            yield Finding("warning", f"{_n(kinds[kind], 'pair')}: {kind}.", remedy, "alike")
    near = {"two groups": inputs.certificate["near_duplicates"]}
    near |= {"train and test": inputs.overlap["near_duplicates"]} if inputs.overlap else {}
    for where, pairs in near.items():
        if pairs["pairs"]:
            bits = f"at most {pairs['bits']} of 64 bits differ"
            text = f"{_n(pairs['pairs'], 'pair')} of similar images in {where} ({bits})."
            yield Finding("warning", text, "Is it one person, or only the same background?", "alike")
    if not len(kinds):
        yield Finding("ok", "No two images of different groups are similar.", "", "alike")


def _quarantine(inputs: DataCheckInputs) -> Iterator[Finding]:
    for split, rows in inputs.quarantines.items():
        if len(rows):
            counts = ", ".join(f"{number} {reason}" for reason, number in rows["reason"].value_counts().items())
            text = f"{_n(len(rows), 'image')} of {split} in quarantine: {counts}."
            more = " A submission without them is refused." if split == "test" else ""
            asked = set(rows["reason"]) == {LEFT_OUT}
            remedy = "" if asked else f"Repair or replace them.{more}"
            yield Finding("ok" if asked else "warning", text, remedy, "quarantine")
    if not any(map(len, inputs.quarantines.values())):
        yield Finding("ok", "No image is in quarantine: every file can be decoded completely.", "", "quarantine")


def _ignored(inputs: DataCheckInputs) -> Iterator[Finding]:
    for split, counts in inputs.ignored.items():
        named = ", ".join(
            f"{count} x {name}" if count > 1 else name for name, count in list(counts.items())[:MOST_NAMED]
        )
        more = f" and {len(counts) - MOST_NAMED} other names" if len(counts) > MOST_NAMED else ""
        text = f"{_n(sum(counts.values()), 'file or folder')} among the {split} images ignored: {named}{more}."
        yield Finding("ok", text, "", "quarantine")


def _corrections(inputs: DataCheckInputs) -> Iterator[Finding]:
    if not inputs.corrections:
        yield Finding("ok", "No corrections of labels are configured.", "", "corrections")
        return
    images = int(inputs.train["corrected"].sum())
    applied = len(inputs.corrections["applied"])
    text = f"{_n(applied, 'correction')} applied, which changed {_n(images, 'image')}."
    skipped = inputs.corrections["skipped"]
    if skipped:
        text += " Not applied: " + ", ".join(f"{number} ({reason})" for reason, number in skipped.items()) + "."
    yield Finding("ok", text, "", "corrections")


def _n(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _names(names: pd.Index | pd.Series) -> str:
    shown = ", ".join(map(str, names[:MOST_NAMED]))
    return f"{shown} and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else shown


_SHARED = {"images": "image(s)", "profiles": "person(s)", "groups": "group(s)", "bytes": "file content(s)"}


def certificate_in_words(certificate: Mapping[str, Any]) -> list[str]:
    """What a certificate proves and what it does not, as sentences.

    Args:
        certificate: `folds/certificate.json`.
    """
    return list(_sentences(certificate))


def _sentences(certificate: Mapping[str, Any]) -> Iterator[str]:
    folds = certificate["folds"]
    yield (
        f"{certificate['images']:,} images of {certificate['profiles']:,} persons in {certificate['groups']:,} groups "
        f"were split into {len(folds)} {'fold' if len(folds) == 1 else 'folds'} by {certificate['method']}, "
        f"seed {certificate['seed']}."
    )
    shared = {name: sum(fold["shared"][name] for fold in folds) for name in _SHARED}
    if any(shared.values()):
        found = ", ".join(f"{number} {_SHARED[name]}" for name, number in shared.items() if number)
        yield f"The split leaks: training and validation of some fold share {found}."
    else:
        yield (
            "The two sides of every fold were compared: training and validation share no image, no person, no group "
            "and no file content."
        )
    balance = stratum_balance(certificate)
    if balance["departure"].notna().any():
        worst = balance.loc[balance["departure"].idxmax()]
        yield (
            f"Each fold should have an equal share of each of {len(balance)} strata. The largest deviation is in "
            f"{worst['stratum']}: {worst['departure']:.1f} groups from {worst['groups'] / _fold_count(balance):.1f}."
        )
    if outside := certificate.get("train_only"):
        lost = [fold["images"] for fold in outside["kept_out"]]
        kept = f"between {min(lost):,} and {max(lost):,}" if len(set(lost)) > 1 else f"{lost[0]:,}"
        yield (
            f"{outside['images']:,} more images of {outside['groups']:,} groups are only trained on. "
            f"{outside['shared_groups']:,} of these groups are also in a fold or in the reserve; {kept} of the images "
            "were kept out of each member, which is scored on their groups."
        )
    merged = certificate["merged_groups"]
    if merged:
        sets = f"{len(merged)} set{'s' * (len(merged) != 1)}"
        yield f"{sets} of groups with an image in common were merged before the split."
    near = certificate["near_duplicates"]
    pairs = near["pairs"]
    found = f"{pairs:,} pair{'s' * (pairs != 1)}" if pairs else "No pair"
    yield (
        f"Not proved: that a person has only one id. {found} of images in different groups "
        f"{'are' if pairs > 1 else 'is'} similar (at most {near['bits']} of 64 bits differ)."
    )


def _fold_count(balance: Any) -> int:
    return sum(name.startswith("fold ") for name in balance.columns)
