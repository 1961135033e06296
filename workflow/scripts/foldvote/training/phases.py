"""What differs between the epochs of a training: which layers learn, and how many of a net's paths are left out."""

from torch import nn

from foldvote.config.recipe import Recipe
from foldvote.models.factory import head_modules, head_parameters


def drop_path_share(recipe: Recipe, epoch: int) -> float:
    """The share of the recipe's `drop_path` that an epoch, from 0, has."""
    done = epoch / max(recipe.epochs - 1, 1)
    return {"constant": 1.0, "rising": done, "falling": 1 - done}[recipe.drop_path_schedule]


def freeze_backbone(model: nn.Module, head_only: bool) -> None:
    """Set the whole network to training mode, or its head alone.

    The backbone of a network whose head alone learns keeps its batch-normalisation statistics as well: they are part
    of the features.
    """
    head = head_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not head_only or name in head)
    model.train(not head_only)
    if head_only:
        for part in head_modules(model):
            part.train()
