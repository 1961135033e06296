"""The tables and figures of the report, and the files that they are kept in beside the page."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from foldvote.ensemble.leaderboard import COST_COLUMNS
from foldvote.ensemble.methods import simplest_first
from foldvote.evaluation.metrics import SMALLEST
from foldvote.evaluation.slices import border_table
from foldvote.io.csv_files import write_csv
from foldvote.report.html import Table, table
from foldvote.report.results import figures
from foldvote.report.results.gallery import JOINT, ReportGallery, confused_pairs
from foldvote.report.results.inputs import RunResults
from foldvote.report.svg import Drawing, inline_svg, save_drawing

MOST_PAIRS = 200  # rows of a table of what is taken for what
MOST_SLICES = 24  # of the figure
_SCORES = dict.fromkeys(("macro_f1", "accuracy", "log_loss", "ece", "brier"), ".4f")
_BOARD = _SCORES | dict.fromkeys(("macro_f1_low", "macro_f1_high"), ".3f")
_BOARD |= dict.fromkeys(("optimistic_macro_f1", "test_macro_f1", "test_accuracy"), ".4f")
_BOARD |= {"macro_f1_over_folds": ".3f", "temperature": ".2f"}
_BOARD |= dict.fromkeys(COST_COLUMNS, ",.1f")
_HEADS = {
    "macro_f1": "macro-F1",
    "macro_f1_low": "from",
    "macro_f1_high": "to",
    "macro_f1_over_folds": "± folds",
    "optimistic_macro_f1": "optimistic",
    "log_loss": "log-loss",
    "ece": "ECE",
    "brier": "Brier score",
    "fit_seconds": "fit s",
    "predict_seconds": "predict s",
    "megabytes": "MB",
    "val_macro_f1": "validation macro-F1",
    "val_loss": "validation loss",
    "accuracy_low": "from",
    "accuracy_high": "to",
    "test_macro_f1": "test F1",
    "test_accuracy": "test acc.",
}
_AGREEMENT = {
    "image_accuracy": "accuracy of single shots",
    "vote_accuracy": "with the person's vote",
    "unanimous": "persons whose shots all agree",
    "agreement": "mean share of shots that agree",
}
_BORDER = {
    "given_older": "labelled as of the last band",
    "predicted_older": "predicted so",
    "probability_older": "mean probability of it",
}
_CALIBRATION = {
    "log_loss_before": "log-loss before",
    "log_loss_after": "after",
    "brier_before": "Brier score before",
    "brier_after": "after",
    "ece_before": "ECE before",
    "ece_after": "after",
}
_HINTS = {
    "macro_f1": "Mean F1 over all classes, out of fold; of a vote nested",
    "macro_f1_low": "Lower end of the 95 % interval over persons",
    "macro_f1_high": "Upper end of the 95 % interval over persons",
    "macro_f1_over_folds": "Standard deviation over the members of a model",
    "temperature": "Which would calibrate it; above 1: surer than right",
    "optimistic_macro_f1": "On the images that the vote was fitted on",
    "log_loss": "In nats; the ensemble's after calibration",
    "ece": "Expected calibration error, 15 bins",
    "test_macro_f1": "Macro-F1 on the test images; chose nothing",
    "test_accuracy": "Accuracy on the test images; chose nothing",
}


def class_scores(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Precision, recall, F1 and support of each class of the vote, in the order of the codes; with those of the test
    images where their answers are known.

    Args:
        metrics: the content of ensemble/metrics.json.
    """
    own = metrics["oof"]["ensemble"]["classes"]
    rows = [{"code": code, "class": name, **own[name]} for code, name in enumerate(metrics["classes"])]
    frame = pd.DataFrame(rows)[["code", "class", "f1", "precision", "recall", "support"]]
    if "test" in metrics:
        test = metrics["test"]["ensemble"]["classes"]
        frame["test_f1"] = [test[name]["f1"] for name in metrics["classes"]]
        frame["test_support"] = [test[name]["support"] for name in metrics["classes"]]
    return frame


def vote_scores(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Each kind of vote, nested and optimistic, and against the one that is used, the simplest first."""
    rows, used = [], metrics["chosen"]
    for kind in simplest_first(metrics["oof"]["votes"]):
        own = metrics["oof"]["votes"][kind]
        against = own["against_chosen"]
        row = {"vote": kind, "macro_f1": own["macro_f1"], "optimistic": own["optimistic"]["macro_f1"]}
        row |= {"gap": own["optimistic"]["macro_f1"] - own["macro_f1"], "difference": against["difference"]}
        rows.append(row | {name: against[name] for name in ("low", "high", "better")})
    scores = pd.DataFrame(rows)
    scores.loc[scores["vote"] == used, ["difference", "low", "high", "better"]] = np.nan  # against itself
    return scores


def factor_scores(metrics: Mapping[str, Any], factors: Iterable[str]) -> pd.DataFrame:
    """Accuracy and macro-F1 of each factor: of the vote, of each model, and of the vote on the test images."""
    named = {"vote": metrics["oof"]["ensemble"], **metrics["oof"]["models"]}
    if "test" in metrics:
        named["vote, test images"] = metrics["test"]["ensemble"]
    rows = [
        {"factor": factor, "of": name, **own["factors"][factor]}
        for factor in factors
        for name, own in named.items()
        if factor in own["factors"]
    ]
    return pd.DataFrame(rows, columns=["factor", "of", "accuracy", "macro_f1"])


def calibration_scores(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Log-loss, Brier score and calibration error of the vote and of each model before and after calibration."""
    known = {"vote": (metrics["calibration"]["before"], metrics["calibration"]["after"])}
    known |= {name: (own, own["calibrated"]) for name, own in metrics["oof"]["models"].items() if "calibrated" in own}
    rows = []
    for name, pair in known.items():
        said = dict(zip(("before", "after"), pair, strict=True))
        scores = {f"{metric}_{when}": said[when][metric] for metric in ("log_loss", "brier", "ece") for when in said}
        rows.append({"of": name, **scores})
    return pd.DataFrame(rows)


def page_tables(outcome: RunResults) -> dict[str, Any]:
    """Tables by name; None where there is nothing."""
    metrics = outcome.metrics
    rounded = dict.fromkeys(("f1", "precision", "recall", "test_f1"), ".3f")
    slices = _telling(outcome.slices).dropna(axis="columns", how="all")
    return {
        "board": _board(outcome.board),
        "votes": table(
            vote_scores(metrics),
            "Kinds of votes: nested and optimistic, and against the vote that is used",
            formats=dict.fromkeys(("macro_f1", "optimistic"), ".4f")
            | dict.fromkeys(("gap", "difference", "low", "high"), "+.4f")
            | {"better": ".0%"},
            labels={"macro_f1": "nested macro-F1", "difference": "against the used", "low": "from", "high": "to"},
            hints={"better": "How often it is better than the vote that is used, over draws of persons"},
        ),
        "classes": table(class_scores(metrics), "Classes", formats=rounded, labels={"f1": "F1", "test_f1": "test F1"}),
        "factors": _or_none(
            factor_scores(metrics, outcome.scheme.factors), "Factors, each on its own", formats=_SCORES, labels=_HEADS
        ),
        "slices": [
            (name, table(rows.drop(columns="slice"), f"Slices by {_blank(name)}", formats=_slices(rows), labels=_HEADS))
            for name, rows in slices.groupby("slice", sort=False)
        ],
        "border": _or_none(
            border_table(outcome.rows, outcome.probabilities, outcome.scheme, outcome.numeric),
            "Ages around the last border",
            formats=dict.fromkeys(("given_older", "predicted_older", "probability_older"), ".1%"),
            labels=_BORDER | ({outcome.numeric.column: outcome.numeric.name} if outcome.numeric else {}),
        ),
        "calibration": table(
            calibration_scores(metrics),
            f"Before and after calibration on other persons; of the vote: {metrics['calibration']['method']}, of a "
            "model: temperature",
            formats=dict.fromkeys(_CALIBRATION, ".4f"),
            labels=_CALIBRATION,
        ),
        "consistency": _or_none(
            _consistency(metrics["consistency"]["fields"]),
            "Levels that belong to the person",
            formats=dict.fromkeys(_AGREEMENT, ".1%"),
            labels=_AGREEMENT,
        ),
        "members": table(
            pd.DataFrame(_members(outcome)),
            "Members",
            formats={"seconds": ",.1f", "val_macro_f1": ".4f", "val_loss": ".4f"},
            labels=_HEADS,
        ),
        "weights": _or_none(
            pd.DataFrame(outcome.vote.get("weights", {}).items(), columns=["candidate", "weight"]),
            "Weights of the vote that is used",
            formats={"weight": ".4f"},
        ),
    }


def draw_figures(outcome: RunResults, exhibits: ReportGallery) -> dict[str, Figure]:
    """The figures that are kept as files, by name."""
    votes = outcome.board[outcome.board["kind"] == "vote"]
    return {
        "votes": figures.plot_votes(votes),
        "curves": figures.plot_curves(_by_model(outcome)),
        "confusion": _confusion(exhibits.confusions[0]),
        "reliability": figures.plot_reliability(outcome.reliability),
        "slices": figures.plot_slices(_telling(outcome.slices).head(MOST_SLICES)),
        "classes": figures.plot_classes(class_scores(outcome.metrics).head(figures.MOST_BARS)),
    }


def page_figures(outcome: RunResults, kept: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures of the page by name; `curves` holds pairs of a model and its figure, for tabs."""
    described = {
        "votes": "Points: nested and optimistic macro-F1 of each kind of vote.",
        "reliability": "Lines: share of right answers against confidence, before and after calibration.",
        "slices": "Points with bars: accuracy of the worst slices and its interval.",
        "classes": "Bars: F1 of each class.",
    }
    shown: dict[str, Any] = {name: inline_svg(kept[name], alt) for name, alt in described.items()}
    if len(outcome.scheme.classes) > figures.MOST_BARS:
        shown["classes"] = None
    shown["curves"] = [(model, _curve(model, own)) for model, own in _by_model(outcome).items()]
    return shown


def save_beside(outcome: RunResults, exhibits: ReportGallery, kept: Mapping[str, Figure], folder: Path) -> None:
    """Write the figures as SVG and the tables that no other file has as CSV.

    Raises:
        UserError: if a file cannot be written.
    """
    for name, figure in kept.items():
        save_drawing(figure, folder / f"{name}.svg")
    write_csv(class_scores(outcome.metrics).round(6), folder / "classes.csv")
    pairs = [confused_pairs(outcome, each).assign(confusion=each.name) for each in exhibits.confusions]
    write_csv(pd.concat(pairs, ignore_index=True).drop(columns=["true", "said"]).round(6), folder / "pairs.csv")
    write_csv(exhibits.disagreeing.round(6), folder / "persons.csv")
    write_csv(loss_rows(outcome, np.argsort(outcome.chance_of(outcome.labels), kind="stable")), folder / "losses.csv")


def loss_rows(outcome: RunResults, places: Iterable[int]) -> pd.DataFrame:
    """One row per position: class, what the vote says, its probability of both, and the loss in nats."""
    names = np.asarray(outcome.scheme.classes, dtype=object)
    frame = pd.DataFrame(
        {
            "image_id": outcome.rows["image_id"],
            "path": outcome.rows["path"],
            "class": names[outcome.labels],
            "prediction": names[outcome.predicted],
            "p_class": outcome.chance_of(outcome.labels),
            "p_prediction": outcome.chance_of(outcome.predicted),
            "loss": -np.log(np.clip(outcome.chance_of(outcome.labels), SMALLEST, 1.0)),
        }
    )
    return frame.iloc[list(places)].round(6).reset_index(drop=True)


def _consistency(fields: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    return pd.DataFrame([{"field": name, **{key: own[key] for key in _AGREEMENT}} for name, own in fields.items()])


def _board(board: pd.DataFrame) -> Table:
    """The leaderboard, without the columns that are empty throughout."""
    shown = board.loc[:, (board.notna() & (board != "")).any()]
    return table(shown, "Leaderboard, out of fold", formats=_BOARD, labels=_HEADS, hints=_HINTS)


def _members(outcome: RunResults) -> Iterable[dict[str, Any]]:
    for (model, fold), history in outcome.histories.items():
        about = outcome.sidecars[model, fold]
        yield {
            "model": model,
            "fold": fold,
            "epochs": len(history),
            "predicts_with": ", ".join(map(str, about["epochs"])),
            "val_macro_f1": about["val_macro_f1"],
            "val_loss": about["val_loss"],
            "seconds": history["seconds"].sum(),
            "weights": about["sha256"][:12],
        }


def _by_model(outcome: RunResults) -> dict[str, dict[int, pd.DataFrame]]:
    by_model: dict[str, dict[int, pd.DataFrame]] = {}
    for (model, fold), history in outcome.histories.items():
        by_model.setdefault(model, {})[fold] = history
    return by_model


def _curve(model: str, folds: Mapping[int, pd.DataFrame]) -> Drawing:
    return inline_svg(
        figures.plot_curves({model: folds}),
        f"Learning curves of {model}: loss and validation macro-F1 of each fold.",
        "A ring is the epoch with the best score. Training loss is smoothed and augmented: compare its course, not its "
        "height, with the validation loss.",
    )


def _confusion(confusion: Any) -> Figure:
    what = "classes" if confusion.name == JOINT else confusion.name
    return figures.plot_confusion(confusion.counts, confusion.levels, what)


def _telling(slices: pd.DataFrame) -> pd.DataFrame:
    """Without slicings of one value, which repeat the score of all images; all of them if there are no others."""
    several = slices.groupby("slice")["value"].transform("size") > 1
    return slices[several] if several.any() else slices


def _slices(rows: pd.DataFrame) -> dict[str, str]:
    return {name: ".3f" for name in rows.columns if name.startswith(("accuracy", "macro_f1", "log_loss"))}


def _blank(name: str) -> str:
    return name.replace("_", " ")


def _or_none(rows: pd.DataFrame, caption: str, **more: Any) -> Table | None:
    return table(rows, caption, **more) if len(rows) else None
