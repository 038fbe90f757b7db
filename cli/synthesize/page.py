"""The page beside synthetic users: how they resemble real ones, and what they give away."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from cli.progress import readable
from cli.report.charts import Figure, Series, line_chart
from cli.report.roc import roc_figure
from cli.report.sections import Page, Section
from cli.synthesize.replay import Planting
from client_app.synthesis.attacks import FALSE_ALARMS
from client_app.synthesis.measured import Counts, Measured
from client_app.synthesis.similarity import BINS
from common.counting import counted

TENTHS = [f"{k / BINS:g}–{(k + 1) / BINS:g}" for k in range(BINS)]

ATTACKS = {
    "nearest-jaccard": "Nearest synthetic user (Jaccard)",
    "nearest-cosine": "Nearest synthetic user (cosine)",
    "nearer-than-strangers": "Nearer than to strangers",
    "likelihood": "Likelihood under a model of them",
}
SHORT = {
    "nearest-jaccard": "Jaccard",
    "nearest-cosine": "cosine",
    "nearer-than-strangers": "strangers",
    "likelihood": "likelihood",
}


def page(
    summary: dict[str, Any],
    measured: Measured,
    plantings: Sequence[Planting],
    made: str,
) -> str:
    """The page as one HTML file that loads nothing.

    Parameters
    ----------
    summary : dict[str, Any]
        As ``summary.json`` holds it.
    measured : Measured
    plantings : Sequence[Planting]
        Of the replay test; empty where it was not made.
    made : str
        Today's date, as shown.
    """
    items = " and items.csv" if summary["with_items"] else ""
    origin = (
        "Made from generated data: those whom this page calls real users are no people either."
        if summary["generated_data"]
        else "Made from the interactions of real users."
    )
    around = Page(
        kind="synthetic users",
        title="Synthetic users of",
        data=summary["data"],
        badge="No real person did any of this",
        lede=f"{origin} interactions.csv{items} can be passed on "
        "as far as what stands below allows. Keep this page and summary.json: their numbers were "
        "computed from the real users themselves.",
        made=made,
        command="snowdrop synthesize",
        facts=_facts(summary),
        settings=[(name, str(value)) for name, value in summary["settings"].items()],
    )
    return around.render(
        [
            _likeness(measured),
            _nearness(measured),
            _membership(measured),
            *([_replay(plantings)] if plantings else []),
            _guarantee(summary),
        ]
    )


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    real, cost = summary["real"], summary["cost"]
    seconds = readable(cost["train_seconds"] + cost["sample_seconds"])
    return [
        ("Method", summary["title"]),
        ("Synthetic users", f"{summary['users']:,}"),
        ("Their interactions", f"{summary['interactions']:,}"),
        ("Items", f"{summary['items']:,}{' warm' if summary['warm_only'] else ''}"),
        ("Real users trained on", f"{real['trained']:,}"),
        ("Real users held out", f"{real['held_out']:,}"),
        ("ε", _epsilon(summary)),
        ("Seed", str(summary["seed"])),
        ("Training and sampling", f"{seconds} on {cost['device']}"),
    ]


def _epsilon(summary: dict[str, Any]) -> str:
    return "none" if summary["epsilon"] is None else f"{summary['epsilon']:.3g}"


def _likeness(measured: Measured) -> Section:
    told = measured.fidelity
    correlation = told.popularity_correlation
    same_order = "–" if np.isnan(correlation) else f"{correlation:.3f}"
    return Section(
        "Are they like real users?",
        headline=[
            (same_order, "rank correlation of items' popularity with that among real users",
             "1: the same order; 0: unrelated, so that little of people's taste is left"),
        ],
        head=("Measure", "Value", "0 means"),
        rows=[
            ("Distance between items per user", f"{told.users_distance:.3f}", "the same"),
            ("Distance between users per item", f"{told.items_distance:.3f}", "the same"),
            ("Distance between popularities", f"{told.popularity_distance:.3f}", "the same"),
            ("Items that no synthetic user has", f"{told.items_unused:,}", "every item is used"),
            ("Synthetic users that repeat another", f"{told.repeated:,}", "all are different"),
        ],
        words=[
            "The first two are Kolmogorov–Smirnov distances, the third is the share of "
            "interactions that would have to move to other items. They compare with the users that "
            "were trained on, and say nothing of which items go together, nor of how well a "
            "recommender learns from them."
        ],
        figures=[
            _counts("Items per user", measured.items_per_user, "items", "users"),
            _counts("Users per item", measured.users_per_item, "users", "items"),
        ],
    )  # fmt: skip


def _counts(title: str, counts: Counts, what: str, of: str) -> Figure:
    names = [f"{low}" if low == high else f"{low}–{high}" for low, high in counts.bins]
    lines = [
        Series("synthetic", list(enumerate(counts.synthetic)), 1),
        Series("real", list(enumerate(counts.real)), 0),
    ]
    few = [name.partition("–")[0] for name in names]
    return Figure(
        title,
        line_chart(f"{title}, real and synthetic", lines, f"{what}, from", f"share of {of}",
                   x_names=few),
        f"Share of {of} by their number of {what}; each group is twice as wide as the one before.",
        (what.capitalize(), "Synthetic", "Real"),
        [
            (name, f"{100 * made:.2f} %", f"{100 * real:.2f} %")
            for name, made, real in zip(names, counts.synthetic, counts.real, strict=True)
        ],
    )  # fmt: skip


def _control(measured: Measured) -> str:
    return "held-out users" if measured.control_held_out else "real users, among themselves"


def _nearness(measured: Measured) -> Section:
    own, control = measured.synthetic, measured.control
    shares = [told.table / max(1, told.table.sum()) for told in (own, control)]
    rows = [
        (name, f"{own.table[k]:,}", _small(shares[0][k]), f"{control.table[k]:,}",
         _small(shares[1][k]))
        for k, name in enumerate(TENTHS)
    ]  # fmt: skip
    who = _control(measured)
    copies = [int((told.nearest == 1).sum()) for told in (own, control)]
    edges = np.arange(BINS + 1) / BINS
    lines = []
    for label, told, colour in (("synthetic", own, 1), ("real", control, 0)):
        places = np.clip(np.searchsorted(edges, told.nearest, side="right") - 1, 0, BINS - 1)
        share = np.bincount(places, minlength=BINS) / len(told.nearest)
        lines.append(Series(label, [(float(k), float(v)) for k, v in enumerate(share)], colour))
    figure = Figure(
        "The most similar real user",
        line_chart("Similarity to the most similar user that was trained on", lines,
                   "Jaccard similarity, from", "share of users",
                   x_names=[f"{edge:g}" for edge in edges[:-1]]),
        f"Of each synthetic user, and of {who}, to the most similar user that was trained on. "
        "Where synthetic users lie further to the right than real people do, the generator copies.",
        ("Similarity", "Synthetic", "Real"),
        [(name, *(f"{100 * line.points[k][1]:.2f} %" for line in lines))
         for k, name in enumerate(TENTHS)],
    )  # fmt: skip
    apart = [_small(share[0]) for share in shares]
    return Section(
        "Are they copies?",
        headline=[
            (f"{np.median(own.nearest):.2f}", "similarity to the nearest real user",
             f"median of the synthetic users; {np.median(control.nearest):.2f} for {who}"),
            (f"{copies[0]:,}", f"of {len(own.nearest):,} synthetic users are exact copies",
             f"{copies[1]:,} of {len(control.nearest):,} {who} are, too"),
        ],
        head=("Jaccard similarity", "Pairs, synthetic × real", "Share", "Pairs, real × real",
              "Share"),
        rows=rows,
        words=[
            f"Of all pairs of a synthetic and a real user, {apart[0]} are below 0.1. That is no "
            f"evidence of privacy: of all pairs of two real people here, {apart[1]} are, and an "
            "exact copy of a person is as unlike the others as that person is. The nearest user "
            "of each, below, tells more.",
            f"The last two columns are {who} against the users that were trained on.",
        ],
        figures=[figure],
    )  # fmt: skip


def _small(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= 1e-4 or not share else "< 0.01 %"


def _membership(measured: Measured) -> Section:
    title = "Does it show who was trained on?"
    if not measured.attacks:
        return Section(title, words=["Not measured: no users were held out (--hold-out 0)."])
    ordered = sorted(measured.attacks.items(), key=lambda pair: -pair[1].auc)
    best = ordered[0][1]
    rows = [
        (ATTACKS.get(name, name), f"{roc.auc:.3f}", f"{roc.low:.3f} to {roc.high:.3f}",
         f"{100 * roc.caught:.1f} %",
         f"{100 * roc.caught_low:.1f} to {100 * roc.caught_high:.1f} %")
        for name, roc in ordered
    ]  # fmt: skip
    verdict = (
        "It does better than guessing: these synthetic users give members away."
        if best.low > 0.5
        else "None does surely better than guessing. That is no proof: a stronger attack may, "
        f"and with {best.others:,} held-out users a small leak cannot be told from chance."
    )
    return Section(
        title,
        headline=[
            (f"{best.auc:.2f}", "AUC of the best attack", "0.5 is guessing, 1 is certainty"),
            (f"{100 * best.caught:.1f} %", "of the members are found",
             f"at {100 * FALSE_ALARMS:g} % false alarms, by the same attack"),
        ],
        head=("Attack", "AUC", "95 % interval", f"Found at {100 * FALSE_ALARMS:g} % false alarms",
              "95 % interval"),
        rows=rows,
        words=[
            f"Who holds the synthetic users and one real user's items guesses whether that user "
            f"was among those that were trained on: {best.members:,} who were, against "
            f"{best.others:,} who were not. {verdict}",
            "'Nearer than to strangers' also knows the held-out users. The best of several "
            "attacks is above 0.5 a little more often than its interval says.",
        ],
        figures=[
            roc_figure(
                [(SHORT.get(name, name), roc) for name, roc in ordered],
                "Members found against false alarms", "members found",
                "What matters most is the left end: attacks that are sure of a few people.",
            )
        ],
    )  # fmt: skip


def _replay(plantings: Sequence[Planting]) -> Section:
    copies = sorted({one.copies for one in plantings})
    groups = [[one for one in plantings if one.copies == k] for k in copies]
    users = max(len(group) for group in groups)
    rows = [
        (f"{k} times" if k else "not planted", f"{fmean(one.nearest for one in group):.3f}",
         f"{fmean(one.control for one in group):.3f}",
         f"{100 * fmean(one.as_near for one in group):.1f} %",
         f"{fmean(one.repeats for one in group):.1f}")
        for k, group in zip(copies, groups, strict=True)
    ]  # fmt: skip
    return Section(
        "Is a user that was planted many times repeated?",
        head=("Planted", "Nearest synthetic user", "Of other people",
              "Other people with one as near", "Exact repeats"),
        rows=rows,
        words=[
            f"Means over {counted(users, 'held-out user')}, each planted in "
            "trainings of its own. The first row is these synthetic users, which were made "
            "without them. 'Of other people' is the mean over held-out users that were not "
            "planted.",
            "A person who appears once is the first case that counts; the others tell what happens "
            "to accounts that were copied, such as bots or shared accounts.",
        ],
    )  # fmt: skip


def _guarantee(summary: dict[str, Any]) -> Section:
    title = "Is anything guaranteed?"
    if summary["epsilon"] is None:
        return Section(
            title,
            words=[
                "No. The training had no differential privacy (--epsilon), so nothing bounds what "
                "these synthetic users tell of a real one. The measurements above are of some "
                "attacks, on these data."
            ],
        )
    epsilon, delta = summary["epsilon"], summary["delta"]
    small = "" if delta is None else f" and δ = {delta:.2g}"
    return Section(
        title,
        words=[
            f"The training had differential privacy with ε = {epsilon:.3g}{small} for each user: "
            "whatever is computed from interactions.csv, with whatever knowledge, is at most "
            f"e^ε = {np.exp(epsilon):,.4g} times as likely as without any one user (but for a "
            "chance of δ). That holds for attacks that nobody has thought of. It does not cover "
            "this page and summary.json, or choices of settings that looked at the data. The "
            "number of users and the items file count as public."
        ],
    )
