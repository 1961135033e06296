"""Names of the leaderboard's rows as parts of paths: `vote=greedy`, `model=lite0`, `model=lite0/fold=2`."""

from collections.abc import Collection, Iterable, Sequence

from foldvote.errors import UserError


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
    if fold is not None and fold >= folds:
        raise UserError(f"{row}: there is no fold {fold}; the last one is {folds - 1}")
    every: Sequence[int] = range(folds) if fold is None else [fold]
    return [(name, number) for name in ([model] if model else known) for number in every]


def entry_model(row: str) -> tuple[str | None, int | None]:
    """The model and the fold that a row names; None for what it does not name."""
    parts = dict(part.split("=", 1) for part in row.split("/"))
    return parts.get("model"), int(parts["fold"]) if "fold" in parts else None


def entry_guests(row: str, guests: Iterable[str]) -> list[str]:
    """The guests whose test predictions a row needs, sorted: those of a vote are all of them."""
    model, _ = entry_model(row)
    return sorted(name for name in guests if model in (None, name))
