"""The metrics that a configuration can name; what they compute is in foldvote.evaluation.metric_registry.

A name may have a parameter after a dash, such as `f_beta-2`. A path that ends in `.py` is a metric of the user's own.
"""

import re
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator

from foldvote.errors import did_you_mean
from foldvote.io.paths import one_path

# By name: what follows the dash, where something may.
PARAMETERS = {
    "macro_f1": "",
    "accuracy": "",
    "log_loss": "",
    "brier": "",
    "ece": "",
    "balanced_accuracy": "",
    "macro_precision": "",
    "macro_recall": "",
    "mcc": "",
    "f_beta": "beta",
    "top_k": "k",
    "quadratic_kappa": "factor",
    "roc_auc": "",
    "roc_auc_weighted": "",
    "roc_auc_partial": "share",
    "average_precision": "",
}
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece"})
LOSS = "loss"  # an older name of log_loss in recipes
OWN_FILE = ".py"
# Columns and keys that scores stand beside in history.parquet (val_loss), metrics.json, leaderboard.csv and
# slices.csv, so that no metric of the user's own can have their names. Compared without regard to case, because DuckDB
# and others read columns so.
_OF_SCORES = ("images", "classes", "absent_classes", "factors", "confusion", "intervals", "temperature", "calibrated")
_OF_METHODS = ("optimistic", "against_chosen", "factors_learnt", "params", "members", "groups", "persons")
_OF_TABLES = ("slice", "value", "kind", "model", "fold", "fit_seconds", "predict_seconds", "megabytes", "plan")
_OF_KNOWN = ("accuracy_low", "accuracy_high", "macro_f1_low", "macro_f1_high", "macro_f1_over_folds", "suspicion")
OUR_SCORES = frozenset([*PARAMETERS, LOSS, *_OF_SCORES, *_OF_METHODS, *_OF_TABLES, *_OF_KNOWN])
_FORMS = {
    "beta": (r"\d+(\.\d+)?", "f_beta-2"),
    "k": (r"[1-9]\d*", "top_k-3"),
    "share": (r"0\.\d+", "roc_auc_partial-0.1"),
}


def metric_key(name: str) -> str:
    """The name of a metric in tables: for a file of the user's own, the file's name without its ending."""
    return PurePath(name).stem if is_own(name) else name


def is_own(name: str) -> bool:
    """Whether a metric is a file of the user's own."""
    return name.endswith(OWN_FILE)


def higher_is_better(name: str) -> bool:
    """Whether a higher value is better, as it always is for a metric of the user's own."""
    return name not in LOWER_IS_BETTER and name != LOSS


def parts_of_metric(name: str) -> tuple[str, str]:
    """`"f_beta-2"` -> ("f_beta", "2"); without a parameter its text is empty."""
    base, _, parameter = name.partition("-")
    return base, parameter


def metric_fault(name: str) -> str:
    """What is wrong with the name of a metric; empty if nothing is."""
    if is_own(name):
        key = metric_key(name)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key):
            return f"the file {name} must be named with letters, digits and _, a letter first"
        if key.casefold() in OUR_SCORES:
            return f"the file {name}: the results have a {key.casefold()} of their own; name it my_{key}.py, say"
        return ""
    base, parameter = parts_of_metric(name)
    if base not in PARAMETERS:
        return f"no metric {name!r}{did_you_mean(base, PARAMETERS)}; known: {', '.join(PARAMETERS)}, or a file NAME.py"
    kind = PARAMETERS[base]
    if kind == "factor":
        return "" if parameter or name == base else f"{name}: after the dash comes the name of a factor"
    if not kind:
        return f"{name}: {base} has no parameter" if name != base else ""
    pattern, example = _FORMS[kind]
    fits = re.fullmatch(pattern, parameter) is not None and float(parameter) > 0
    return "" if fits else f"{name}: {base} needs a {kind} after a dash, such as {example}"


def shown_metric(name: str) -> str:
    """The name of a metric for people: `macro_f1` gives `macro-F1`, `roc_auc_weighted` gives `ROC AUC weighted`."""
    known = {"macro_f1": "macro-F1", "log_loss": "log-loss", "ece": "ECE", "mcc": "MCC", "brier": "Brier score"}
    return known.get(name, name.replace("roc_auc", "ROC AUC").replace("_", " "))


def _known_metric(name: str) -> str:
    if fault := metric_fault(name):
        raise ValueError(fault)
    return one_path(name) if is_own(name) else name


MetricName = Annotated[str, AfterValidator(_known_metric)]
