"""A preview of the first training batch: what augmentation and mixing do to the images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from foldvote.config.recipe import Recipe
from foldvote.config.treatment import Treatment
from foldvote.io.files import whole_file
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import SplitFiles
from foldvote.training.dataloader import Batch
from foldvote.training.device_augmentation import augmented
from foldvote.training.mixup import as_probabilities, groups_in, mix_batch
from foldvote.training.state import MemberSpec
from foldvote.training.training_set import MemberInputs, build_training_set

_PAIRS_PER_ROW = 4
# All sizes are in pixels.
_MARGIN = 14  # around the sheet, and between two pairs
_TEXT = 13
_LINE = 18
_TITLE_LINE = 22
_LEAST_HEIGHT, _MOST_HEIGHT = 112, 256  # of a drawn image
_MOST_CAPTION_WIDTH = 420
_INK, _FAINT, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


def write_preview(
    recipe: Recipe, packed_path: Path, split: SplitFiles, seeds: MemberSeeds, path: Path, images: int = 32
) -> None:
    """Draw the first training batch of a member: each image as it was packed, and beside it as the network sees it.

    Below each pair is the training label: one class, or the two classes of a mixed image with their shares. Labels are
    the true ones, without label smoothing and the recipe's `labels`; pseudo-labelled test images are left out.

    Args:
        recipe: for its augmentation, mixes, sampler and batch size.
        packed_path: training images, packed as the recipe says.
        split: classes and folds.
        seeds: the member's seeds.
        path: the PNG file to write.
        images: the largest number of images that are drawn.

    Raises:
        UserError: if the inputs are missing or do not belong together.
    """
    before, after, shares, classes = first_batch(recipe, packed_path, split, seeds)
    title = f"{seeds.model}, fold {seeds.fold}: {len(before)} images of the first batch"
    captions = [_caption(row, classes) for row in shares[:images]]
    shown = f", of which the first {images} are shown" if len(before) > images else ""
    note = "left: as packed; right: as the network sees it, with its training label"
    sheet = draw_sheet([f"{title}{shown}", note], before[:images], after[:images], captions)
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def first_batch(
    recipe: Recipe, packed_path: Path, split: SplitFiles, seeds: MemberSeeds
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """The first batch of epoch 0 of a member.

    Args:
        recipe: for its augmentation, mixes, sampler and batch size.
        packed_path: training images, packed as the recipe says.
        split: classes and folds.
        seeds: the member's seeds.

    Returns:
        The images as packed and as the network sees them (both uint8, batch x height x width x 3), the training labels
        as shares of the classes (float32, batch x classes), and the names of the classes.

    Raises:
        UserError: if the inputs are missing or do not belong together.
    """
    true_labels = recipe.model_copy(update={"labels": Treatment(), "pseudo": None, "distill": None, "metadata": None})
    inputs = MemberInputs(packed_path, split)
    training_set = build_training_set(true_labels, seeds.fold, inputs)
    spec = MemberSpec(seeds, recipe, inputs, training_set)
    label_space, packed = training_set.label_space, training_set.images
    positions = spec.order.batches(0)[0]
    loaded = spec.augmented_images[Batch(0, 0, positions)]
    changed, targets = next(augmented([loaded], torch.device("cpu")))
    mixed, shares = mix_batch(
        recipe.mix,
        changed.permute(0, 3, 1, 2).float(),
        as_probabilities(targets, len(label_space.classes)),
        seeds.key("mix", 0),
        groups_in(targets, recipe.tells_groups),
    )
    shares = shares[:, : len(label_space.classes)]
    if training_set.weights is not None:  # to which the rows of the targets sum
        shares = shares / shares.sum(dim=1, keepdim=True)
    before = np.stack([packed[row] for row in spec.augmented_images.rows[positions]])
    after = mixed.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return before, after.numpy(), shares.numpy(), label_space.classes


def draw_sheet(
    title: Sequence[str], before: np.ndarray, after: np.ndarray, captions: Sequence[Sequence[str]]
) -> Image.Image:
    """Draw pairs of images with captions below them, four pairs per row.

    Args:
        title: lines above all pairs, the first of them larger.
        before: uint8 array of shape (images, height, width, 3): the left image of each pair.
        after: the right image of each pair, of the same shape.
        captions: for each pair the lines below it.

    Returns:
        An RGB image that is large enough for all text.
    """
    height, width = _shown_size(*before.shape[1:3])
    text, heading = ImageFont.load_default(_TEXT), ImageFont.load_default(_TEXT + 4)
    captions = [[_shortened(line, text) for line in lines] for lines in captions]
    columns = min(_PAIRS_PER_ROW, len(before))
    widest = max((text.getlength(line) for lines in captions for line in lines), default=0)
    cell_width = max(2 * width + 2, int(widest) + 1) + _MARGIN
    cell_height = height + _LINE * max(map(len, captions), default=0) + _MARGIN
    top = _MARGIN + _TITLE_LINE * len(title) + _MARGIN // 2
    fonts = [heading, *[text] * (len(title) - 1)]
    across = max(columns * cell_width, *(int(f.getlength(t)) + 1 + _MARGIN for f, t in zip(fonts, title, strict=True)))
    sheet = Image.new("RGB", (_MARGIN + across, top + -(-len(before) // columns) * cell_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (font, line) in enumerate(zip(fonts, title, strict=True)):
        draw.text((_MARGIN, _MARGIN + number * _TITLE_LINE), line, _FAINT if number else _INK, font)
    for place, lines in enumerate(captions):
        down, right = divmod(place, columns)
        x, y = _MARGIN + right * cell_width, top + down * cell_height
        for image, left in ((before[place], x), (after[place], x + width + 2)):
            sheet.paste(Image.fromarray(image).resize((width, height), _resampling(image, height)), (left, y))
        for number, line in enumerate(lines):
            draw.text((x, y + height + 2 + number * _LINE), line, _INK, text)
    return sheet


def _caption(shares: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes of one image, the largest share first; a single class without its share."""
    order = [int(code) for code in np.argsort(-shares, kind="stable") if shares[code] >= 0.005]
    if len(order) == 1:
        return [classes[order[0]]]
    return [f"{shares[code]:.0%} {classes[code]}" for code in order]


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a drawn image: small images are enlarged by a whole factor, large ones shrunk."""
    if height > _MOST_HEIGHT:
        return _MOST_HEIGHT, max(round(width * _MOST_HEIGHT / height), 1)
    times = -(-_LEAST_HEIGHT // height)
    return height * times, width * times


def _resampling(image: np.ndarray, height: int) -> Image.Resampling:
    return Image.Resampling.NEAREST if height >= len(image) else Image.Resampling.BOX


def _shortened(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The line, cut to _MOST_CAPTION_WIDTH."""
    if font.getlength(line) <= _MOST_CAPTION_WIDTH:
        return line
    kept = len(line)
    while font.getlength(f"{line[:kept]}...") > _MOST_CAPTION_WIDTH:
        kept -= 1
    return f"{line[:kept]}..."
