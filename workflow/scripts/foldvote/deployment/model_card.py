"""The card of a bundle: what it predicts, how well as far as is known, from what data, and under which licence."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foldvote.config.tta import view_name
from foldvote.deployment.finished_run import FinishedRun
from foldvote.ensemble.headline import budget_line, headline
from foldvote.io.files import read_json
from foldvote.models.licences import weights_origin

_MOST_CLASSES = 50  # named in the card


def model_card(results: Path, run: FinishedRun, facts: Mapping[str, Any]) -> str:
    """The README of a bundle, a model card in the form of Hugging Face.

    Args:
        results: the folder of the run.
        run: what was exported.
        facts: what the certificate says.
    """
    licences = {weights_origin(recipe.net, recipe.weights).licence for recipe in run.recipes.values()}
    head = [
        "---",
        "library_name: onnxruntime",
        "pipeline_tag: image-classification",
        "tags: [foldvote, ensemble, onnx]",
    ]
    head += [f"license: {'apache-2.0' if licences == {'apache-2.0'} else 'other'}", "---"]
    lines = [*head, "", "# Image classifier: an ensemble by foldvote", "", *_usage(run), *_members(run, facts)]
    lines += [*_scores(results, facts), *_data(results), *_limits(results, run), *_licences(run), *_made(facts)]
    return "\n".join(lines) + "\n"


def _usage(run: FinishedRun) -> Iterator[str]:
    yield from ("## Use", "", "```bash", "pip install -r requirements.txt")
    yield from ("python predict.py IMAGES submission.csv --sample sample.csv --proba probabilities.csv", "```", "")
    yield from ("```python", "from predict import Bundle", "", "bundle = Bundle()")
    yield from ('bundle.predict(["a.jpg", "b.png"])  # names of classes', 'bundle.predict_proba(["a.jpg", "b.png"])')
    yield from ("```", "", "It needs numpy, Pillow, OpenCV and onnxruntime, no network and no GPU.", "")
    classes = run.label_space.classes
    more = f" and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    yield from (f"{len(classes)} classes: {', '.join(classes[:_MOST_CLASSES])}{more}.", "")


def _members(run: FinishedRun, facts: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## What is inside", "", "| model | network | pixels | region | folds |", "|---|---|---|---|---|")
    for model, recipe in run.recipes.items():
        folds = ", ".join(map(str, run.folds[model]))
        fit = recipe.packed.fit
        region = recipe.roi if fit == "squash" else f"{recipe.roi}, fit {fit}"
        yield f"| {model} | {recipe.net} | {recipe.size} | {region} | {folds} |"
    views = ", ".join(map(view_name, run.views))
    yield from ("", f"Views: {views}. Vote: {facts['vote']}. Calibration: {run.scaling['method']}.", "")


def _scores(results: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    metrics = read_json(results / "ensemble/metrics.json")
    yield from ("## Scores", "", "With 95 % intervals over groups:", "")
    yield from (f"- {line}" for line in headline(metrics))
    budget = results / "ensemble/budget.json"
    if facts["wanted"]["budget"] and budget.is_file() and read_json(results / "ensemble/prediction.json")["budget"]:
        yield f"- {budget_line(read_json(budget))}"
    yield ""
    yield (
        "Scores out of fold are those of single members: each image was predicted by networks that had not seen its "
        "group. The vote of all members, which is what this bundle computes, is usually better."
    )
    if facts["wanted"]["folds"] or facts["wanted"]["views"]:
        yield "These scores are of the whole run. This bundle has some of its folds or views only, and was not scored."
    yield ""
    loss = facts["precision"]
    if loss["networks"] != "fp32":
        yield (
            f"The networks are in {loss['networks']}. On {loss['images']:,} images ({loss['scored_on']}) this changes "
            f"macro-F1 by {loss['difference']:+.4f} ({loss['low']:+.4f} to {loss['high']:+.4f}), from "
            f"{loss['macro_f1_fp32']:.4f} to {loss['macro_f1']:.4f}, and the class of {loss['classes_that_differ']:,}."
        )
    for part, found in facts["parity"].items():
        yield (
            f"- Compared with the workflow ({part}): {found['images']:,} images, largest difference of a probability "
            f"{found['largest_difference']:.1e}, {found['classes_that_differ']} other classes."
        )
    yield ""


def _data(results: Path) -> Iterator[str]:
    split = read_json(results / "folds/certificate.json")
    shared = {name: sum(fold["shared"][name] for fold in split["folds"]) for name in ("images", "groups", "bytes")}
    yield from ("## Data and split", "")
    yield (
        f"{split['images']:,} training images of {split['groups']:,} groups, in {len(split['folds'])} parts "
        f"by `{split['method']}`. Shared between training and validation, over all folds: {shared['images']} images, "
        f"{shared['groups']} groups, {shared['bytes']} identical files."
    )
    if "reserve" in split:
        yield f"Kept out of every fold: {split['reserve']['images']:,} images of {split['reserve']['groups']:,} groups."
    yield f"Look-alikes in different groups: {split['near_duplicates']['pairs']:,} pairs."
    yield from (f"Warning: {line}." for line in split["warnings"][:5])
    yield from (f"Digest of the split: `{split['split_sha256']}`.", "")


def _limits(results: Path, run: FinishedRun) -> Iterator[str]:
    yield from ("## Intended use and limits", "")
    yield (
        "For images like those of the training data: the same kind of camera, pose, lighting and population. Nothing "
        "is known of other images; it names one of its classes for any picture, and has no class for `none of these`. "
        "Have decisions about people made or checked by people, and score it on your own images first."
    )
    slices = results / "ensemble/slices.csv"
    if slices.is_file():
        yield "Scores by class and other slices are in the run's `ensemble/slices.csv`; look at the worst ones first."
    if run.least is not None:
        wanted = read_json(results / "ensemble/coverage.json")["wanted"]
        yield f"Prediction sets (`set` in --proba) were fitted to hold the true class with probability {wanted:g}."
    rules = run.images
    yield from (
        f"Read are {', '.join(rules.formats)} up to {rules.max_megapixels:g} megapixels, by content; a damaged or "
        "truncated file is an error and never a guess. Answers are of single images.",
        "",
    )


def _licences(run: FinishedRun) -> Iterator[str]:
    yield from ("## Licence of the weights", "")
    yield from (
        f"- {model} ({recipe.net}): {weights_origin(recipe.net, recipe.weights).text}"
        for model, recipe in run.recipes.items()
    )
    yield "- Weights trained on your images may also be bound by the terms of these images."
    if any(recipe.roi.startswith("face-") for recipe in run.recipes.values()):
        yield "- The face detector (YuNet, MIT) and its licence lie beside this file."
    yield from ("- The Python files are foldvote's (MIT).", "")


def _made(facts: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    yield from ("## Made with", "", f"foldvote {facts['foldvote']}; {versions}. `certificate.json` has the digests.")
