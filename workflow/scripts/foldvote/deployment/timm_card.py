"""The model card of a member that was exported for timm: README.md with the head that Hugging Face reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foldvote.config.image_size import Framing, parse_size
from foldvote.config.recipe import Recipe
from foldvote.config.tta import view_name
from foldvote.models.licences import weights_origin

_FITS = {
    "squash": "without keeping its aspect ratio",
    "pad": "with its aspect ratio kept and bars of grey (128) beside it, where timm takes the mean colour",
    "crop": "after cutting off, at both ends, what is too much for this aspect ratio",
}


@dataclass(frozen=True)
class MemberFacts:
    """What a card is written from.

    Attributes:
        about: the member's sidecar, model.json.
        recipe: its recipe.
        label_names: the classes that it knows.
        metrics: the content of ensemble/metrics.json.
        views: the test-time views of the run.
        certificate: the content of folds/certificate.json.
        config: the content of the folder's config.json.
        head: what a reader must know of the head.
    """

    about: Mapping[str, Any]
    recipe: Recipe
    label_names: Sequence[str]
    metrics: Mapping[str, Any]
    views: Sequence[str | dict[str, Any]]
    certificate: Mapping[str, Any]
    config: Mapping[str, Any]
    head: str


def model_card(facts: MemberFacts) -> str:
    """The text of README.md."""
    about, recipe = facts.about, facts.recipe
    name = f"{about['model']}-fold{about['fold']}"
    names = ", ".join(f"`{label}`" for label in facts.label_names)
    kind = "The logits are" if facts.config["num_classes"] else "The member tells apart"
    return "\n".join(
        [
            *_front_matter(facts),
            f"# {name}",
            "",
            f"One of the {_members(facts)} networks of a K-fold ensemble made with foldvote: `{recipe.net}` for images "
            f"of {recipe.size} pixels (height x width). {weights_origin(recipe.net, recipe.weights).text}"
            f"{_averaged(recipe)}",
            "",
            facts.head,
            "",
            f"{kind}, in this order: {names}."
            + (f" It learnt {', '.join(recipe.factors)} alone." if recipe.factors else ""),
            "",
            *_training_lines(facts),
            *_score_lines(facts),
            *_use_lines(facts, name),
        ]
    )


def _front_matter(facts: MemberFacts) -> list[str]:
    task = "image-classification" if facts.config["num_classes"] else "image-feature-extraction"
    keys = weights_origin(facts.recipe.net, facts.recipe.weights).front_matter
    return [
        "---",
        "library_name: timm",
        f"pipeline_tag: {task}",
        "tags:",
        *(f"- {tag}" for tag in (task, "timm", "foldvote")),
        *(f"{key}: {keys[key]}" for key in sorted(keys)),
        "---",
        "",
    ]


def _members(facts: MemberFacts) -> int:
    return sum(len(folds) for folds in facts.metrics["oof"]["members"].values())


def _averaged(recipe: Recipe) -> str:
    """What the weights are the mean of, if of several; such a mean is one network like any other."""
    means = [
        f"a moving average over training (EMA, decay {recipe.ema})" if recipe.ema is not None else "",
        f"the average from {recipe.swa:.0%} of the epochs on (SWA)" if recipe.swa is not None else "",
        f"the average of the {recipe.soup} best epochs (soup)" if recipe.soup > 1 else "",
    ]
    given = " and ".join(mean for mean in means if mean)
    return f" Its weights are {given}; that is one network already, and nothing had to be merged." if given else ""


def _training_lines(facts: MemberFacts) -> list[str]:
    about, certificate = facts.about, facts.certificate
    own = next((one for one in certificate["folds"] if one["fold"] == about["fold"]), None)
    counts = (
        f"- Trained on {own['train']['images']:,} images of {own['train']['groups']:,} groups (people, in the task "
        f"of masks); {own['validation']['images']:,} images of {own['validation']['groups']:,} other groups were kept "
        "out."
        if own
        else "- How many images it was trained on is not recorded."
    )
    epochs = ", ".join(str(epoch) for epoch in about.get("epochs", []))
    return [
        "## Training",
        "",
        counts,
        f"- Fold {about['fold']} of the split `{about['split_sha256']}`; no group is on both sides.",
        f"- Digest of the images: `{about['data_sha256']}`; of the member's weights in the run: `{about['sha256']}`.",
        f"- Seed {about['seed']}; {facts.recipe.epochs} epochs" + (f", weights of epoch {epochs}." if epochs else "."),
        "",
    ]


def _score_lines(facts: MemberFacts) -> list[str]:
    about, metrics = facts.about, facts.metrics
    scores = metrics["oof"]["members"].get(about["model"], {}).get(str(about["fold"]))
    if scores is None:
        return []
    views = ", ".join(view_name(view) for view in facts.views)
    rows = []
    for name in dict.fromkeys([metrics["metric"], "macro_f1", "accuracy", "log_loss"]):
        if scores.get(name) is not None:
            low, high = scores["intervals"].get(name, (None, None))
            between = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            rows.append(f"| {name} | {scores[name]:.3f} | {between} |")
    chosen = (
        " The epoch was chosen on these same images, so that the scores are optimistic."
        if facts.recipe.epoch == "best"
        else ""
    )
    return [
        "## Scores",
        "",
        f"On the {scores['images']:,} images of its own fold, whose groups it never saw, without calibration; the mean "
        f"of the views {views}. Intervals: 95 %, from a bootstrap over groups.{chosen}",
        "",
        "| score | value | interval |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _use_lines(facts: MemberFacts, name: str) -> list[str]:
    given, recipe = facts.config["pretrained_cfg"], facts.recipe
    answer = (
        ["probabilities = model(transform(image)[None]).softmax(-1)  # (1, classes)"]
        if facts.config["num_classes"]
        else ["features = model(transform(image)[None])  # (1, features)"]
    )
    roi = (
        "The whole image is used (roi `none`)."
        if recipe.roi == "none"
        else f"**Crop first**: the network was trained on the region `{recipe.roi}` of its images (the recipe's `roi`)."
    )
    height, width = parse_size(recipe.size)
    return [
        "## Use",
        "",
        "```python",
        "import timm",
        "from PIL import Image, ImageOps",
        "",
        f'model = timm.create_model("local-dir:{name}", pretrained=True).eval()',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")',
        *answer,
        "```",
        "",
        f"{roi} It is then resized to {height} x {width} pixels (height x width) {_FITS[recipe.packed.fit]}, by "
        "area averaging (images smaller than that: bicubic), divided by 255, and normalised with mean "
        f"{given['mean']} and standard deviation {given['std']}. timm resizes with Pillow's box filter, while the "
        "network was trained on OpenCV's INTER_AREA: their pixels differ a little. For the very same pixels:",
        "",
        "```python",
        "import cv2, numpy, torch",
        "",
        *pixel_lines(recipe.packed, (height, width)),
        f"mean, std = torch.tensor({given['mean']}), torch.tensor({given['std']})",
        "batch = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(2, 0, 1)[None]",
        "```",
        "",
    ]


def pixel_lines(framing: Framing, seen: tuple[int, int]) -> list[str]:
    """Python from `image`, a picture of Pillow, to `pixels`, as `foldvote.data.cropping.cut` makes them.

    Args:
        framing: how the images are packed.
        seen: height and width of what the network takes.
    """
    if framing.shape != seen:
        again = f"pixels = cv2.resize(pixels, ({seen[1]}, {seen[0]}), interpolation=cv2.INTER_AREA)  # packed larger"
        return [*pixel_lines(framing, framing.shape), again]
    height, width = framing.shape
    if framing.fit == "pad":
        return [
            f"scale = min({height} / image.height, {width} / image.width)",
            "rows, columns = (max(round(scale * side), 1) for side in (image.height, image.width))",
            f"top, left = ({height} - rows) // 2, ({width} - columns) // 2",
            f"pixels = numpy.full(({height}, {width}, 3), 128, numpy.uint8)",
            "resized = cv2.resize(numpy.asarray(image), (columns, rows), interpolation=cv2.INTER_AREA)",
            "pixels[top : top + rows, left : left + columns] = resized",
        ]
    if framing.fit == "crop":
        return [
            f"scale = min(image.height / {height}, image.width / {width})",
            f"rows, columns = max(round(scale * {height}), 1), max(round(scale * {width}), 1)",
            "top, left = round((image.height - rows) / 2), round((image.width - columns) / 2)",
            "part = numpy.asarray(image)[top : top + rows, left : left + columns]",
            f"pixels = cv2.resize(part, ({width}, {height}), interpolation=cv2.INTER_AREA)",
        ]
    return [f"pixels = cv2.resize(numpy.asarray(image), ({width}, {height}), interpolation=cv2.INTER_AREA)"]
