"""What was meant by a key that does not exist: other names of keys, keys of other sections, and near spellings."""

from collections.abc import Iterable, Iterator
from typing import get_args, get_origin

from pydantic import BaseModel

from foldvote.config.field_types import is_section, plain_type, tagged_members
from foldvote.errors import did_you_mean

_NEAR = 0.66  # below it a guess is too often another key, which changes a run silently
_SHORT_SECTION = 12  # keys that are listed
_GPUS = (
    "; how many GPUs a run may use is said on the command line (--resources gpu=2), and how many train one network in "
    "runtime.gpus_per_member"
)
_ADVICE = dict.fromkeys(("gpu", "gpus", "n_gpus", "num_gpus", "device", "devices", "multi_gpu"), _GPUS)
_MEANINGS = {  # our key: what it is called elsewhere
    "accumulate": "accum accum_iter accumulation accumulation_steps grad_accum gradient_accumulation_steps",
    "augment": "aug augs augmentation augmentations transform transforms",
    "augment_on": "augment_device gpu_augment",
    "batch_size": "bs batch batchsize train_batch_size",
    "clip_norm": "clip_grad clip_grad_norm grad_clip gradient_clip_val max_grad_norm max_norm",
    "compile": "torch_compile torchcompile",
    "data_root": "data_dir data_path data_folder input_dir root root_dir",
    "drop_path": "drop_path_rate stochastic_depth",
    "drop_rate": "dropout dropout_rate p_dropout",
    "ema": "ema_decay model_ema model_ema_decay",
    "epochs": "num_epochs n_epochs max_epochs nepochs total_epochs",
    "fraction": "test_size val_fraction val_ratio val_size val_split valid_size validation_split",
    "grad_checkpointing": "gradient_checkpointing",
    "group": "groups group_col group_column group_id patient patient_id",
    "k": "n_splits n_folds num_folds nfolds folds splits",
    "label": "target target_col target_column label_col label_column",
    "label_smoothing": "smoothing",
    "layer_decay": "llrd layer_lr_decay layerwise_lr_decay",
    "loss": "criterion loss_fn objective",
    "lr": "learning_rate base_lr init_lr initial_lr max_lr peak_lr",
    "mix": "mixup cutmix",
    "net": "arch architecture backbone encoder model model_name network",
    "optimizer": "opt optim optimiser",
    "path": "filename image image_col image_column image_path",
    "patience": "early_stop early_stopping early_stopping_patience",
    "precision": "amp dtype fp16 mixed_precision use_amp",
    "pretrained": "checkpoint weights initial_checkpoint",
    "repeats": "n_repeats num_repeats",
    "results": "output output_dir output_folder out_dir results_dir save_dir",
    "sampler": "balanced oversample oversampling weighted_sampler",
    "sam": "rho",
    "schedule": "scheduler lr_schedule lr_scheduler sched",
    "score": "metric",
    "seed": "random_seed random_state",
    "size": "image_size img_size imgsz input_size resize resolution",
    "table": "csv train_csv",
    "use": "method ensemble",
    "views": "tta tta_views",
    "vote": "ensemble ensembling",
    "warmup_epochs": "warmup warm_up warmup_epoch",
    "weight_decay": "wd l2",
    "workers": "num_workers n_workers nworkers",
}


def meant_key(key: str, known: Iterable[str], root: type[BaseModel] | None = None) -> str:
    """What to do about a key that a section does not have: `"; did you mean 'lr'?"`, or what else helps; or nothing.

    Args:
        key: as it was written.
        known: the keys of the section.
        root: the model of the whole file, in whose other sections the key is looked for; None: in no other.
    """
    own, name = list(known), key.lower().replace("-", "_")
    synonyms = [ours for ours, others in _MEANINGS.items() if name in others.split()]
    if here := [ours for ours in synonyms if ours in own]:
        return f"; did you mean {here[0]!r}?"
    if name in _ADVICE:
        return _ADVICE[name]
    if near := did_you_mean(key, own, _NEAR):
        return near
    elsewhere = _places(root) if root else {}
    if there := [elsewhere[ours] for ours in (name, *synonyms) if ours in elsewhere]:
        return f"; did you mean {there[0]}?"
    if len(own) <= _SHORT_SECTION:
        return f"; the keys here: {', '.join(own)}"
    return "; docs/config.md has all keys" if root else ""


def _places(root: type[BaseModel]) -> dict[str, str]:
    """Where each key of a file stands, those nearest to the top first: `data.group` of `group`."""
    found: dict[str, str] = {}
    for path, note in sorted(_paths(root, "", ""), key=lambda one: one[0].count(".")):
        place = f"{path}{note}" if "." in path else f"{path} at the top of the file, in no section"
        found.setdefault(path.rpartition(".")[2], place)
    return found


def _paths(section: type[BaseModel], above: str, note: str) -> Iterator[tuple[str, str]]:
    """The dotted path of every key at or below a section, and what it needs, such as ` (layout: table)`."""
    for key, field in section.model_fields.items():
        path = f"{above}{key}"
        yield path, note
        kind = plain_type(field.annotation)
        if get_origin(kind) is dict:
            kind, path = plain_type(get_args(kind)[-1]), f"{path}.NAME"
        if is_section(kind):
            yield from _paths(kind, f"{path}.", note)
        for tag, member in tagged_members(kind).items():
            yield from _paths(member, f"{path}.", f" ({field.discriminator or 'layout'}: {tag})")
