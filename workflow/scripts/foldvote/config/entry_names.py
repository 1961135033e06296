"""Names of the leaderboard's rows as parts of paths: `vote=greedy`, `model=lite0`, `model=lite0/fold=2`."""

from collections.abc import Collection, Iterable, Sequence

from foldvote.config.ensemble import METHOD_NAMES, split_end
from foldvote.errors import UserError, did_you_mean


def entry_members(row: str, models: Iterable[str], folds: int, guests: Collection[str] = ()) -> list[tuple[str, int]]:
    """The members (model, fold) that a row is made of, sorted.

    Args:
        row: its name.
        models: all models.
        folds: number of folds of each.
        guests: names of predictions from elsewhere. They have no members: where a row is a guest, one member of a model
            says which the test images are.

    Raises:
        UserError: if there is no such model or fold.
    """
    model, fold = entry_model(row)
    known = sorted(models)
    if model in guests:
        if fold is not None:
            raise UserError(f"{row}: {model} is a guest and has no folds; take model={model}")
        return [(known[0], 0)]
    if model is not None and model not in known:
        raise UserError(f"{row}: there is no model {model!r}; known: {', '.join([*known, *guests])}")
    if fold is not None:
        check_fold(row, fold, folds)
    every: Sequence[int] = range(folds) if fold is None else [fold]
    return [(name, number) for name in ([model] if model else known) for number in every]


def check_method(row: str, methods: Collection[str]) -> None:
    """Nothing, if a row is no vote or a vote by one of the methods that are compared.

    Args:
        row: its name.
        methods: those that are compared.

    Raises:
        UserError: if it is a vote by another method.
    """
    kind = row.removeprefix("vote=")
    if kind != row and kind not in methods:
        known = split_end(kind)[0] in METHOD_NAMES
        meant = did_you_mean(kind, methods) or f"; there are {', '.join(methods)}"
        raise UserError(f"{row}: no such method in vote.kinds{'; add it' if known else meant}")


def check_fold(member: str, fold: int, folds: int) -> None:
    """Nothing, if there is a fold.

    Args:
        member: what names it.
        fold: its number.
        folds: number of folds of each model.

    Raises:
        UserError: if there is none.
    """
    if fold >= folds:
        raise UserError(f"{member}: there is no fold {fold}; the last one is {folds - 1}")


def entry_model(row: str) -> tuple[str | None, int | None]:
    """The model and the fold that a row names; None for what it does not name."""
    parts = dict(part.split("=", 1) for part in row.split("/"))
    return parts.get("model"), int(parts["fold"]) if "fold" in parts else None


def entry_guests(row: str, guests: Iterable[str]) -> list[str]:
    """The guests whose test predictions a row needs, sorted: those of a vote are all of them."""
    model, _ = entry_model(row)
    return sorted(name for name in guests if model in (None, name))
