"""Signs that a guest has seen what it predicts: it does better out of fold than anything else explains.

Nothing is certain here: a guest may simply be good. So each sign is named with its numbers, and nobody is left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.ensemble.candidates import Candidates, candidates_of, model_mean
from foldvote.ensemble.guests import facts_of
from foldvote.ensemble.inputs import EnsembleData
from foldvote.ensemble.selection import EvaluationRows
from foldvote.evaluation.bootstrap import bootstrap, group_sums, scores
from foldvote.evaluation.intervals import interval
from foldvote.io.files import read_json
from foldvote.runtime.job_log import log

FEWEST_GROUPS = 10  # on each side of a comparison, for its interval to mean anything
LEVEL = 0.99  # of the interval of what near-duplicates add
SURER = 0.1  # mean confidence that a guest may lose on test images beyond what the models of this run lose
Metrics = Mapping[str, Any]


def examine_guests(
    data: EnsembleData, candidates: Candidates, metrics: Mapping[str, Any], certificate: Path, draws: int, seed: int
) -> dict[str, Any]:
    """What is known of each guest, and the signs that it has seen what it predicts, which are told to the user.

    Args:
        data: the predictions of models and guests.
        candidates: their out-of-fold probabilities.
        metrics: the content of ensemble/metrics.json so far: the out-of-fold scores and those on the reserve.
        certificate: of the split, which lists near-duplicates across groups.
        draws: number of bootstrap draws.
        seed: the run's seed.

    Returns:
        By guest, as plain JSON: `folds`, `normalised` and `sha256` of its files; `confidence`, the mean probability of
        its answers on `oof` and `test` images; `near_duplicates` from `near_duplicate_gain`; `suspicions`, a text each.
    """
    own = sorted({name for name in candidates.models if name not in data.guests})
    tests = None if data.test is None else candidates_of(data.test, data.label_space)
    confidences: dict[str, dict[str, float]] = {}
    for name in (*own, *data.guests):
        confidences[name] = {"oof": _mean_confidence(model_mean(candidates, name))}
        if tests is not None:
            confidences[name]["test"] = _mean_confidence(model_mean(tests, name))
    pairs = read_json(certificate).get("near_duplicates", {}).get("nearest", [])
    images = {pair[end] for pair in pairs for end in ("a", "b")}
    listed = data.table["image_id"].isin(images).to_numpy()
    near = np.isin(data.rows.groups, np.unique(data.rows.groups[listed]))
    reserve = metrics["reserve"]["models"] if "reserve" in metrics else None
    found = {}
    for name, guest in data.guests.items():
        gain = near_duplicate_gain(name, own, candidates, data.rows, near, draws, seed)
        suspicions = _suspicions(name, own, metrics["oof"]["models"], reserve, confidences)
        suspicions += _near_duplicate_suspicions(gain)
        for text in suspicions:
            log(f"warning: guests.{name}: {text}: it may have seen the images that it predicts")
        found[name] = facts_of(guest) | {"confidence": confidences[name], "suspicions": suspicions}
        found[name] |= {"near_duplicates": gain} if gain else {}
    return found


def _suspicions(
    name: str, own: list[str], oof: Metrics, reserve: Metrics | None, confidences: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """What in the scores of a guest looks as if it had seen the images that it predicts out of fold.

    Args:
        name: the guest.
        own: models of this run that learn whole classes, at least one.
        oof: by model its out-of-fold scores with `intervals`.
        reserve: the same on the reserve; None where there is none.
        confidences: by model the mean probability of its answers, on `oof` and, where there are any, on `test` images.

    Returns:
        One text for each sign.
    """
    found = []
    for metric, called, sign in (("accuracy", "accuracy", 1), ("log_loss", "log-loss", -1)):
        fair = {model: _comparable(oof[model], metric) for model in (*own, name)}
        best = max(own, key=lambda model: sign * fair[model][0])
        if _apart(fair[name], fair[best], sign):
            found.append(
                f"its out-of-fold {called} {_told(fair[name])} is far better than {_told(fair[best])} of {best}, the "
                "best model of this run"
            )
        if reserve is None:
            continue
        before, after = (_plain(scored, metric) for scored in (oof[name], reserve[name]))
        if _apart(before, after, sign):
            found.append(f"its out-of-fold {called} {_told(before)} is far better than {_told(after)} on the reserve")
    its, others = confidences[name], [confidences[model] for model in own]
    if "test" in its:
        lost = its["oof"] - its["test"]
        usual = max([0.0, *(one["oof"] - one["test"] for one in others)])
        if lost > usual + SURER:
            found.append(
                f"it is much surer out of fold than on the test images: {its['oof']:.3f} against {its['test']:.3f} "
                f"(mean probability of its answers; the models of this run lose {usual:.3f} at most)"
            )
    return found


def near_duplicate_gain(
    name: str,
    own: list[str],
    candidates: Candidates,
    rows: EvaluationRows,
    near: npt.NDArray[np.bool_],
    draws: int,
    seed: int,
) -> dict[str, Any] | None:
    """How much more a guest gains over the models of this run where a group has near-duplicates in other groups.

    The models of this run may profit from near-duplicates as well, so that only the surplus is a sign.

    Args:
        name: the guest.
        own: models of this run that learn whole classes, at least one.
        candidates: out-of-fold probabilities of all models.
        rows: labels and groups of the images.
        near: whether each image's group has near-duplicates in another one, bool (images,).
        draws: number of bootstrap draws.
        seed: the run's seed.

    Returns:
        `images` and `groups` with near-duplicates; by score (accuracy, log_loss) its values `near` and `other` of the
        guest, the `surplus` of the guest's gain and its 99 % interval, `low` and `high`. None with too few groups.
    """
    sides = {"near": near, "other": ~near}
    counts = {side: len(np.unique(rows.groups[mask])) for side, mask in sides.items()}
    if min(counts.values()) < FEWEST_GROUPS:
        return None
    predicted = {"guest": model_mean(candidates, name)}
    predicted["own"] = np.mean([model_mean(candidates, model) for model in own], axis=0)
    sums = {
        f"{who} {side}": group_sums(rows.labels[mask], probabilities[mask], rows.groups[mask], candidates.classes)
        for who, probabilities in predicted.items()
        for side, mask in sides.items()
    }
    drawn, points = bootstrap(sums, draws, seed), {row: scores(own_sums) for row, own_sums in sums.items()}
    found: dict[str, Any] = {"images": int(near.sum()), "groups": counts["near"]}
    for metric in ("accuracy", "log_loss"):
        low, high = interval(_surplus({row: values[metric] for row, values in drawn.items()}), LEVEL)
        found[metric] = {
            "near": points["guest near"][metric],
            "other": points["guest other"][metric],
            "surplus": float(_surplus({row: np.float64(values[metric]) for row, values in points.items()})),
            "low": low,
            "high": high,
        }
    return found


def _near_duplicate_suspicions(gain: Mapping[str, Any] | None) -> list[str]:
    """One text for each score in which near-duplicates help the guest for certain, from `near_duplicate_gain`."""
    if gain is None:
        return []
    return [
        f"on {gain['images']:,} images of people with near-duplicates its {called} is {found['near']:.3f}, elsewhere "
        f"{found['other']:.3f}: its lead over the models of this run is larger there by {abs(found['surplus']):.3f} "
        f"({abs(ends[0]):.3f} to {abs(ends[1]):.3f})"
        for metric, called, sign in (("accuracy", "accuracy", 1), ("log_loss", "log-loss", -1))
        for found in [gain[metric]]
        for ends in [(found["low"], found["high"])[::sign]]
        if sign * ends[0] > 0
    ]


def _mean_confidence(probabilities: npt.NDArray[np.floating]) -> float:
    """The mean probability of the answers: probabilities of shape (images, classes)."""
    return float(np.asarray(probabilities, np.float64).max(axis=1).mean())


def _surplus(of: Mapping[str, Any]) -> Any:
    return (of["guest near"] - of["own near"]) - (of["guest other"] - of["own other"])


def _plain(scored: Metrics, metric: str) -> tuple[float, float, float]:
    """A score and the ends of its 95 % interval."""
    low, high = scored["intervals"][metric]
    return scored[metric], low, high


def _comparable(scored: Metrics, metric: str) -> tuple[float, float, float]:
    """The same, moved to the score after temperature scaling: a calibrated guest has seen no more than another one."""
    shift = scored.get("calibrated", {}).get(metric, scored[metric]) - scored[metric]
    value, low, high = _plain(scored, metric)
    return value + shift, low + shift, high + shift


def _apart(better: tuple[float, float, float], worse: tuple[float, float, float], sign: int) -> bool:
    """Whether the interval of one score lies wholly on the better side of that of another."""
    return better[1] > worse[2] if sign > 0 else better[2] < worse[1]


def _told(scored: tuple[float, float, float]) -> str:
    value, low, high = scored
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
