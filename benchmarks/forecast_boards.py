"""Do the ranges and probabilities of `foldvote forecast` come true?

    .venv/bin/python benchmarks/forecast_boards.py

Simulated: 6,000 persons of seven photographs each, in six classes; five rows that differ by 0.02 to 0.15 in
skill and share most of their errors. In each trial 60, 160 or 360 of the persons are known, and a public and a
private board of 60 others each are drawn. The forecast from the known persons is compared with these boards and with
the scores over all persons.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np

from foldvote.evaluation.bootstrap import GroupSums, group_sums, scores
from foldvote.evaluation.forecast import forecast, lead_probability, simulate_boards
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

PERSONS, SHOTS, CLASSES, BOARD, TRIALS = 6_000, 7, 6, 60, 200
BINS = ((0.0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01))


def population(skills: tuple[float, ...]) -> dict[str, GroupSums]:
    """The sums of one row for each skill; rows share the noise of a person and most of that of a photograph."""
    draws = generator(0, "forecast boards")
    person = np.repeat(np.arange(PERSONS), SHOTS)
    labels = draws.integers(0, CLASSES, PERSONS)[person]
    shared = draws.normal(0, 1, (PERSONS, CLASSES))[person] + draws.normal(0, 1, (len(person), CLASSES))
    rows = {}
    for number, skill in enumerate(skills):
        logits = shared + draws.normal(0, 0.5, shared.shape) + skill * np.eye(CLASSES)[labels]
        rows[f"row {number}"] = group_sums(labels, softmax(logits), person, CLASSES)
    return rows


def trial(
    rows: dict[str, GroupSums], score: str, known: int, number: int
) -> tuple[list[bool], list[float], list[bool]]:
    """Whether private scores are in their ranges; the probability of each lead on public; whether it is true."""
    order = generator(1, "forecast boards", number).permutation(PERSONS)
    parts = order[:known], order[known : known + BOARD], order[known + BOARD : known + 2 * BOARD]
    of_known, of_public, of_private = (
        {name: GroupSums(sums.values[part], CLASSES) for name, sums in rows.items()} for part in parts
    )
    boards = simulate_boards(of_known, score, (BOARD, BOARD), draws=300, seed=number)
    public, private, true = (
        {name: scores(sums)[score] for name, sums in some.items()} for some in (of_public, of_private, rows)
    )
    inside = [
        row["private"]["low"] <= private[row["row"]] <= row["private"]["high"]
        for row in forecast(boards, score)["rows"]
    ]
    told, happened = [], []
    for a, one in enumerate(boards.names):
        for b, other in enumerate(boards.names):
            if public[one] > public[other]:
                lead = public[one] - public[other]
                told.append(
                    lead_probability(boards.truth[a] - boards.truth[b], boards.public[a] - boards.public[b], lead)
                )
                happened.append(true[one] > true[other])
    return inside, told, happened


def main() -> None:
    """Print one row per score and number of known persons."""
    rows = population((1.50, 1.52, 1.55, 1.60, 1.65))
    print("score, known persons, private scores in range; leads told at 0-30, 30-50, 50-70, 70-90, 90-100 %: told/true")
    for score in ("macro_f1", "accuracy"):
        for known in (60, 160, 360):
            found = [trial(rows, score, known, number) for number in range(TRIALS)]
            inside = np.concatenate([one[0] for one in found])
            told, happened = (np.concatenate([one[part] for one in found]) for part in (1, 2))
            cells = []
            for low, high in BINS:
                within = (told >= low) & (told < high)
                cells.append(f"{told[within].mean():.2f}/{happened[within].mean():.2f} ({within.sum()})")
            print(score, known, f"{inside.mean():.3f}", *cells, flush=True)


if __name__ == "__main__":
    main()
