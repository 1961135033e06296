"""A sheet of images as a network sees them: what an augmentation and a mix of batches really do."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from foldvote.config.recipe import Recipe, Treatment
from foldvote.io.files import whole_file
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import SplitFiles
from foldvote.training.dataloader import Batch
from foldvote.training.mixup import mix_batch
from foldvote.training.state import MemberSpec
from foldvote.training.training_set import MemberInputs, build_training_set

_PAIRS_A_ROW = 4
_MARGIN = 14  # around everything, and between two pairs; pixels, as all below
_TEXT = 13
_LINE = 18
_TITLE_LINE = 22
_SHORTEST, _TALLEST = 112, 256  # height of a shown image
_WIDEST_CAPTION = 420
_INK, _FAINT, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


def write_preview(
    recipe: Recipe, pixels_path: Path, split: SplitFiles, draws: MemberSeeds, path: Path, images: int = 32
) -> None:
    """Draw the first training batch of a member: each image as packed, and beside it as the net learns from it.

    Below each pair stand the classes that the changed image is learned as: one, or with their shares the two that a
    mix made it of. Classes are the true ones, without label smoothing and the treatments of `labels`; test images with
    pseudo-labels are not among them.

    Args:
        recipe: its augmentation, mixes, sampler and batch size.
        pixels_path: packed training images of the recipe's size and region.
        split: classes and folds.
        draws: the member's.
        path: the PNG file to write.
        images: how many of the batch at most.

    Raises:
        UserError: if the inputs are missing or do not belong together.
    """
    before, after, shares, classes = first_batch(recipe, pixels_path, split, draws)
    title = f"{draws.model}, fold {draws.fold}: {len(before)} images of the first batch"
    captions = [_caption(row, classes) for row in shares[:images]]
    shown = f", the first {images} of them shown" if len(before) > images else ""
    note = "left: as packed; right: as the net sees it, with the classes that it is learned as"
    sheet = draw_sheet([f"{title}{shown}", note], before[:images], after[:images], captions)
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def first_batch(
    recipe: Recipe, pixels_path: Path, split: SplitFiles, draws: MemberSeeds
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """The first batch of epoch 0 of a member.

    Args:
        recipe: as for `write_preview`, and so the others.

    Returns:
        The images as packed and as changed (both uint8, batch x height x width x 3), shares of the classes of the
        changed ones (float32, batch x classes), and the classes' names.

    Raises:
        UserError: if the inputs are missing or do not belong together.
    """
    true_labels = recipe.model_copy(update={"labels": Treatment(), "pseudo": None})
    inputs = MemberInputs(pixels_path, split)
    training_set = build_training_set(true_labels, draws.fold, inputs)
    spec = MemberSpec(draws, recipe, inputs, training_set)
    label_space, images = training_set.label_space, training_set.images
    positions = spec.order.batches(0)[0]
    changed, targets = spec.augmented_images[Batch(0, 0, positions)]
    mixed, shares = mix_batch(
        recipe.mix,
        changed.permute(0, 3, 1, 2).float(),
        F.one_hot(targets, len(label_space.classes)).float(),
        draws.key("mix", 0),
    )
    before = np.stack([images[row] for row in spec.augmented_images.rows[positions]])
    after = mixed.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return before, after.numpy(), shares.numpy(), label_space.classes


def draw_sheet(
    title: Sequence[str], before: np.ndarray, after: np.ndarray, captions: Sequence[Sequence[str]]
) -> Image.Image:
    """Pairs of images with captions below them, four in a row.

    Args:
        title: lines above all pairs, the first of them larger.
        before: uint8 array of shape (images, height, width, 3).
        after: of the same shape.
        captions: lines for each pair.

    Returns:
        An RGB image, large enough that nothing overlaps.
    """
    height, width = _shown_size(*before.shape[1:3])
    text, heading = ImageFont.load_default(_TEXT), ImageFont.load_default(_TEXT + 4)
    captions = [[_shortened(line, text) for line in lines] for lines in captions]
    columns = min(_PAIRS_A_ROW, len(before))
    widest = max((text.getlength(line) for lines in captions for line in lines), default=0)
    cell_width = max(2 * width + 2, int(widest) + 1) + _MARGIN
    cell_height = height + _LINE * max(map(len, captions), default=0) + _MARGIN
    top = _MARGIN + _TITLE_LINE * len(title) + _MARGIN // 2
    fonts = [heading, *[text] * (len(title) - 1)]
    across = max(columns * cell_width, *(int(f.getlength(t)) + 1 + _MARGIN for f, t in zip(fonts, title, strict=True)))
    sheet = Image.new("RGB", (_MARGIN + across, top + -(-len(before) // columns) * cell_height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (font, line) in enumerate(zip(fonts, title, strict=True)):
        pen.text((_MARGIN, _MARGIN + number * _TITLE_LINE), line, _FAINT if number else _INK, font)
    for place, lines in enumerate(captions):
        down, right = divmod(place, columns)
        x, y = _MARGIN + right * cell_width, top + down * cell_height
        for image, left in ((before[place], x), (after[place], x + width + 2)):
            sheet.paste(Image.fromarray(image).resize((width, height), _resampling(image, height)), (left, y))
        for number, line in enumerate(lines):
            pen.text((x, y + height + 2 + number * _LINE), line, _INK, text)
    return sheet


def _caption(shares: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes of one image, the largest share first; a single one without its share."""
    order = [int(code) for code in np.argsort(-shares, kind="stable") if shares[code] >= 0.005]
    if len(order) == 1:
        return [classes[order[0]]]
    return [f"{shares[code]:.0%} {classes[code]}" for code in order]


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Small images whole times larger, so that their pixels show; large ones smaller."""
    if height > _TALLEST:
        return _TALLEST, max(round(width * _TALLEST / height), 1)
    times = -(-_SHORTEST // height)
    return height * times, width * times


def _resampling(image: np.ndarray, height: int) -> Image.Resampling:
    return Image.Resampling.NEAREST if height >= len(image) else Image.Resampling.BOX


def _shortened(line: str, font: ImageFont.FreeTypeFont) -> str:
    """The line, or as much of it as may be drawn."""
    if font.getlength(line) <= _WIDEST_CAPTION:
        return line
    kept = len(line)
    while font.getlength(f"{line[:kept]}...") > _WIDEST_CAPTION:
        kept -= 1
    return f"{line[:kept]}..."
