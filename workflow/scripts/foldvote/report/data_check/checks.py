"""What the data check looks for, as findings in words."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from foldvote.data.image_statistics import cohens_d, eta_squared
from foldvote.report.data_check.counts import class_counts, flag_counts, format_counts, size_counts, stratum_balance
from foldvote.report.data_check.inputs import CONFLICT, JOINED, LEAKED, DataCheckInputs
from foldvote.runtime.checks import Finding

UNEVEN = 10  # times as many images in the largest class as in the smallest
SHIFTED = 0.5  # standard deviations between train and test
TELLING = 0.2  # share of a measure's variance that lies between the levels of a factor
BLACK, WHITE, FLAT = 20.0, 235.0, 8.0  # mean luma below and above, and its standard deviation below, of 0 to 255
ASPECTS = 0.1  # by how much widths over heights may differ, relatively
NEAR_BORDER = 2  # years
MOST_NAMED = 5


def run_checks(facts: DataCheckInputs) -> list[Finding]:
    """Every finding, errors first, then warnings; each names the section of the page where to look."""
    found = [
        *_people(facts),
        *_classes(facts),
        *_ages(facts),
        *_files(facts),
        *_light(facts),
        *_folds(facts),
        *_alike(facts),
        *_left_out(facts),
        *_corrected(facts),
    ]
    order = {"error": 0, "warning": 1, "ok": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def strange_light(light: pd.DataFrame) -> pd.DataFrame:
    """Images that are nearly black, nearly white or nearly of one colour.

    Returns:
        Rows of image_statistics.IMAGE_STATISTICS with a column why, the flattest first.
    """
    why = pd.Series("", index=light.index, dtype="object")
    why[light["contrast"] < FLAT] = "nearly of one colour"
    why[light["brightness"] > WHITE] = "nearly white"
    why[light["brightness"] < BLACK] = "nearly black"
    return light.assign(why=why)[why != ""].sort_values(["contrast", "image_id"])


def _people(facts: DataCheckInputs) -> Iterator[Finding]:
    train, place = facts.train, "counts"
    persons, groups = train["profile"].nunique(), train["group"].nunique()
    tests = f" {len(facts.manifests['test']):,} test images." if "test" in facts.manifests else " No test images."
    yield Finding(
        "ok", f"{len(train):,} training images of {_n(persons, 'person')} in {_n(groups, 'group')}.{tests}", "", place
    )
    of_group = train.groupby("group")["profile"].nunique()
    several = of_group[of_group > 1]
    if len(several):
        text = f"{_n(len(several), 'group')} with several persons, such as {_names(several.index)}: kept in one fold."
        yield Finding("ok", text, "", "persons")
    shots = train.groupby("profile").size()
    usual = int(shots.mode().iloc[0])
    other = shots[shots != usual]
    if len(other):
        text = f"{_n(len(other), 'person')} with other than {_n(usual, 'image')}: {_names(other.index)}."
        level = "warning" if len(other) < len(shots) / 4 else "ok"
        yield Finding(level, text, "Are images missing, or ids mixed up?" if level == "warning" else "", "persons")
    elif len(shots) > 1:
        yield Finding("ok", f"Each person has {_n(usual, 'image')}.", "", "persons")


def _classes(facts: DataCheckInputs) -> Iterator[Finding]:
    counted = class_counts(facts.train, facts.scheme)
    absent = counted.loc[counted["images"] == 0, "name"]
    if len(absent):
        text = f"{_n(len(absent), 'class', 'classes')} without any training image: {_names(absent)}."
        yield Finding("warning", text, "Nothing can be learnt of them, and macro-F1 counts them as 0.", "counts")
    there = counted[counted["images"] > 0].sort_values("images")
    if len(there) < 2:
        return
    low, high = there.iloc[0], there.iloc[-1]
    times = high["images"] / low["images"]
    text = (
        f"The largest class, {high['name']}, has {times:.3g} times the images of the smallest, {low['name']} "
        f"({high['images']:,} and {low['images']:,}; {_n(low['persons'], 'person')})."
    )
    remedy = "Macro-F1 hangs on the small classes: see class weights, samplers and losses." if times >= UNEVEN else ""
    yield Finding("warning" if times >= UNEVEN else "ok", text, remedy, "counts")


def _ages(facts: DataCheckInputs) -> Iterator[Finding]:
    if "age_years" not in facts.train or not facts.age_borders:
        return
    years = facts.train.dropna(subset=["age_years"]).drop_duplicates("profile")["age_years"].astype(int)
    near = sum(
        ((years >= border - NEAR_BORDER) & (years < border + NEAR_BORDER)).to_numpy() for border in facts.age_borders
    )
    share = float(np.mean(np.asarray(near) > 0)) if len(years) else 0.0
    borders = " or ".join(map(str, facts.age_borders))
    text = (
        f"{share:.0%} of the persons are within {NEAR_BORDER} years of an age border ({borders}): hard to tell by eye."
    )
    yield Finding("ok", text, "", "counts")


def _files(facts: DataCheckInputs) -> Iterator[Finding]:
    sizes = size_counts(facts.manifests)
    aspects = pd.concat([rows["width"] / rows["height"] for rows in facts.manifests.values()])
    if len(sizes) == 1:
        yield Finding("ok", f"All images are {sizes['size'].iloc[0]} pixels (width x height).", "", "files")
    elif aspects.max() > aspects.min() * (1 + ASPECTS):
        text = f"Images are of different shapes: width over height from {aspects.min():.2f} to {aspects.max():.2f}."
        yield Finding("warning", text, "They are stretched to the recipe's size; a roi cuts instead.", "files")
    else:
        yield Finding("ok", "Images are of several sizes and nearly one shape.", "", "files")
    formats = format_counts(facts.manifests)
    if "test" in formats:
        for part, other in (("train", "test"), ("test", "train")):
            only = formats[(formats[part] > 0) & (formats[other] == 0)]
            for _, row in only.iterrows():
                text = f"{_n(row[part], 'image')} of format {row['format']} in {part}, none in {other}."
                yield Finding("warning", text, "Were the two sets made in the same way?", "files")
    for _, row in flag_counts(facts.manifests).iterrows():
        text = f"{_n(row['images'], 'image')} in {row['split']} flagged {row['flag']}, such as {row['example']}."
        yield Finding("warning", text, "docs/files.md says what the flags mean.", "files")


def _light(facts: DataCheckInputs) -> Iterator[Finding]:
    train = facts.light["train"].merge(facts.train, on="image_id", suffixes=("", "_of_file"))
    if "test" in facts.light and len(facts.light["test"]):
        shifts = {
            name: cohens_d(train[name], facts.light["test"][name]) for name in ("brightness", "contrast", "saturation")
        }
        name, most = max(shifts.items(), key=lambda item: abs(item[1]))
        far = abs(most) > SHIFTED
        text = f"Test images differ from training images most in {name}: by {most:+.2f} standard deviations."
        yield Finding(
            "warning" if far else "ok", text, "See whether the augmentation covers it." if far else "", "light"
        )
    parts = {f"The factor {name}": train[name] for name in facts.scheme.factors} or {"The class": train["class_name"]}
    telling = [
        (eta_squared(train[measure], part), measure, name)
        for name, part in parts.items()
        for measure in ("brightness", "contrast", "saturation")
    ]
    share, measure, name = max(telling)
    text = f"{name} explains at most {share:.0%} of an image's light or colour ({measure})."
    remedy = "A net may learn the light instead of the thing: compare the pictures." if share > TELLING else ""
    yield Finding("warning" if share > TELLING else "ok", text, remedy, "light")
    for split, light in facts.light.items():
        strange = strange_light(light)
        if len(strange):
            text = f"{_n(len(strange), 'image')} in {split} nearly black, white or of one colour."
            yield Finding("warning", text, "Look at them; leave out what is no photograph.", "light")


def _folds(facts: DataCheckInputs) -> Iterator[Finding]:
    certificate = facts.certificate
    shared = sum(number for fold in certificate["folds"] for number in fold["shared"].values())
    level = "error" if shared else "ok"
    both = f"{shared:,} things stand" if shared else "Nothing stands"
    text = f"{both} on both sides of a fold: no image, person, group or file content was counted twice."
    text = text if not shared else f"{both} on both sides of a fold."
    yield Finding(level, text, "Run `snakemake -R folds`." if shared else "", "folds")
    balance = stratum_balance(certificate)
    if balance["departure"].notna().any():
        worst = balance.loc[balance["departure"].idxmax()]
        text = (
            f"Strata are balanced to within {worst['departure']:.1f} groups of the equal share "
            f"(the farthest is {worst['stratum']})."
        )
        # Whole groups can be spread no better than to less than one; what is joined may cost a little more.
        level = "ok" if worst["departure"] <= 1 + len(certificate["merged_groups"]) else "warning"
        yield Finding(level, text, "" if level == "ok" else "Stratify by less, or take fewer folds.", "folds")
    rare = certificate["warnings"]
    if rare:
        text = f"{_n(len(rare), 'class or stratum', 'classes and strata')} with fewer groups than folds; {rare[0]}."
        yield Finding("warning", text, "Take fewer folds, or stratify by less.", "folds")


def _alike(facts: DataCheckInputs) -> Iterator[Finding]:
    kinds = facts.alike["kind"].value_counts()
    remedies = {
        CONFLICT: "One label is wrong: correct it in corrections.csv.",
        LEAKED: "Do you know these persons' answers already? Then their test score means nothing.",
        JOINED: "They are kept in one fold; is it one person under two ids?",
    }
    for kind, remedy in remedies.items():
        if kinds.get(kind, 0):
            yield Finding("warning", f"{_n(kinds[kind], 'pair')}: {kind}.", remedy, "alike")
    near = {"two groups": facts.certificate["near_duplicates"]}
    near |= {"train and test": facts.overlap["near_duplicates"]} if facts.overlap else {}
    for where, pairs in near.items():
        if pairs["pairs"]:
            text = f"{_n(pairs['pairs'], 'pair')} of pictures in {where} alike to {pairs['bits']} of 64 bits."
            yield Finding("warning", text, "Is it one person, or only one background?", "alike")
    if not len(kinds):
        yield Finding("ok", "No two pictures of different people are alike.", "", "alike")


def _left_out(facts: DataCheckInputs) -> Iterator[Finding]:
    for split, rows in facts.quarantines.items():
        if len(rows):
            counts = ", ".join(f"{number} {reason}" for reason, number in rows["reason"].value_counts().items())
            text = f"{_n(len(rows), 'image')} left out of {split}: {counts}."
            more = " A submission without them is refused." if split == "test" else ""
            yield Finding("warning", text, f"Mend or replace them.{more}", "quarantine")
    if not any(map(len, facts.quarantines.values())):
        yield Finding("ok", "No image was left out: every file decodes to its end.", "", "quarantine")


def _corrected(facts: DataCheckInputs) -> Iterator[Finding]:
    if not facts.corrections:
        yield Finding("ok", "No corrections of labels are configured.", "", "corrections")
        return
    images = int(facts.train["corrected"].sum())
    applied = len(facts.corrections["applied"])
    text = f"{_n(applied, 'correction')} applied, which changed {_n(images, 'image')}."
    skipped = facts.corrections["skipped"]
    if skipped:
        text += " Left aside: " + ", ".join(f"{number} ({reason})" for reason, number in skipped.items()) + "."
    yield Finding("ok", text, "", "corrections")


def _n(number: int, what: str, many: str = "") -> str:
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def _names(names: pd.Index | pd.Series) -> str:
    shown = ", ".join(map(str, names[:MOST_NAMED]))
    return f"{shown} and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else shown


_SIDES = {"images": "image", "profiles": "person", "groups": "group", "bytes": "file content"}


def certificate_in_words(certificate: Mapping[str, Any]) -> list[str]:
    """What a certificate proves and what it does not, a sentence or two an item.

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
    shared = {what: sum(fold["shared"][what] for fold in folds) for what in _SIDES}
    if any(shared.values()):
        found = ", ".join(f"{number} of {_SIDES[what]}" for what, number in shared.items() if number)
        yield f"The split leaks: on both sides of some fold stand {found}."
    else:
        yield (
            "For every fold the two sides were compared anew: no image, no person, no group and no file content "
            "stands in training and in validation."
        )
    balance = stratum_balance(certificate)
    if balance["departure"].notna().any():
        worst = balance.loc[balance["departure"].idxmax()]
        yield (
            f"Each fold should have an equal share of each of {len(balance)} strata. The farthest from it is "
            f"{worst['stratum']}: {worst['departure']:.1f} groups from {worst['groups'] / _fold_count(balance):.1f}."
        )
    merged = certificate["merged_groups"]
    if merged:
        sets = f"{len(merged)} set{'s' * (len(merged) != 1)}"
        yield f"{sets} of groups with a photograph in common, joined before the split."
    near = certificate["near_duplicates"]
    pairs = near["pairs"]
    found = f"{pairs:,} pair{'s' * (pairs != 1)}" if pairs else "No pair"
    yield (
        f"Not proved: that a person has only one id. {found} of pictures in different groups "
        f"{'are' if pairs > 1 else 'is'} alike to {near['bits']} of 64 bits."
    )


def _fold_count(balance: Any) -> int:
    return sum(name.startswith("fold ") for name in balance.columns)
