"""Scores for sets of classes, compared: coverage of new groups and size of the sets, quoted in docs/voting.md.

    PYTHONPATH=workflow/scripts:tests python benchmarks/conformal_scores.py

On simulated persons of the home task (18 classes, seven photographs each, whose errors are alike): sets by the
probability of a class, as foldvote makes them, and by the sum of the probabilities of all likelier classes (APS:
Romano, Sesia and Candes, NeurIPS 2020) without and with a penalty on large sets (RAPS: Angelopoulos, Bates, Jordan and
Malik, ICLR 2021: lambda 0.01, from the third class on). All three always contain the prediction, draw nothing at
random, and are calibrated with groups as the unit.
"""

import numpy as np
import numpy.typing as npt

from foldvote.evaluation.conformal import least_probability
from support.simulated_persons import simulated

Array = npt.NDArray[np.float64]
SETS, KNOWN, NEW = 100, 120, 200
FROM, PENALTY = 2, 0.01


def conformities(probabilities: Array, kind: str) -> Array:
    """How well each class fits each image, the higher the better: float64 (images, classes); 1.0 for the likeliest."""
    if kind == "probability":
        return probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    likelier = np.take_along_axis(probabilities, order, 1).cumsum(axis=1)
    if kind == "RAPS":
        likelier += PENALTY * np.clip(np.arange(1, likelier.shape[1] + 1) - FROM, 0, None)
    fits = np.empty_like(probabilities)
    np.put_along_axis(fits, order, -likelier + 2, 1)  # above 0, so that the threshold 0.0 means all classes
    return fits


def main() -> None:
    """Print a table: one row per score and difficulty."""
    print("| accuracy | score | coverage | mean size | one class | ten hardest % of persons: coverage |")
    print("|---|---|---|---|---|---|")
    for sure in (1.0, 1.5, 2.5):
        for kind in ("probability", "APS", "RAPS"):
            found = []
            for seed in range(SETS):
                rows, probabilities, _ = simulated(seed, persons=KNOWN + NEW, sure=sure)
                labels, person = rows["label"].to_numpy(), np.arange(len(rows)) // 7
                right, fits = probabilities.argmax(axis=1) == labels, conformities(probabilities, kind)
                own, known = fits[np.arange(len(fits)), labels], person < KNOWN
                least = least_probability(
                    np.where(right, 3.0, own)[known], np.zeros(known.sum(), bool), person[known], 0.9
                )
                sets = fits[~known] >= least
                sets[np.arange(len(sets)), probabilities[~known].argmax(axis=1)] = True
                covered = sets[np.arange(len(sets)), labels[~known]].reshape(NEW, 7)
                doubt = 1 - probabilities[~known].max(axis=1).reshape(NEW, 7).mean(axis=1)
                hard = np.argsort(-doubt)[: NEW // 10]
                size = sets.sum(axis=1)
                found.append([right.mean(), covered.mean(), size.mean(), (size == 1).mean(), covered[hard].mean()])
            accuracy, *rest = np.mean(found, axis=0)
            print(f"| {accuracy:.2f} | {kind} | " + " | ".join(f"{value:.2f}" for value in rest) + " |", flush=True)


if __name__ == "__main__":
    main()
