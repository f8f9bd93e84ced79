"""Write the comparison with EBM and SHAP of explanations.md: trains all three on Adult, explains the same rows.

Needs `pip install -e ".[docs]"`, and about 20 minutes on one core. Examples:
    python -m benchmarks.compare_explanations
    python -m benchmarks.compare_explanations --only exact,pictures
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before any of the libraries starts its threads

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import combinations
from typing import Any, TypeVar

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import shap
import torch
from sklearn.metrics import log_loss, roc_auc_score

from attfm import load_dataset
from attfm.data.datasets import adult_split
from attfm.explain.explanation import Explanation
from attfm.plots.style import GRID, NEUTRAL, label, limits_around
from benchmarks.agreement import (
    curve,
    importance,
    in_common,
    mean_over_pairs,
    per_field,
    rank_correlation,
    touching,
    way_over_range,
    weighted_correlation,
)
from benchmarks.compared import EBM, Attfm, Compared, Floats, Part, Trees
from benchmarks.explanation_pictures import HERE, PAGE, save, table
from benchmarks.machine import processor
from benchmarks.pages import write_section

CURVES = ("age", "education-num", "hours-per-week")
# Okabe & Ito's blue, orange and green, told apart by shape and line as well.
STYLES = (("#0072B2", "o", "-"), ("#E69F00", "s", "--"), ("#009E73", "^", ":"))
ROW = 7  # of adult-test, the row of the waterfall above
PARTS = ("models", "exact", "agreement", "character", "sampled", "stability", "pictures")
Done = TypeVar("Done")


def timed(action: Callable[[], Done]) -> tuple[Done, float]:
    """Return what the action returns and the processor seconds it took; all models run on one thread."""
    start = time.process_time()
    done = action()
    return done, time.process_time() - start


def tables() -> tuple[Part, Part, Part, pd.DataFrame]:
    """Return training, validation and test part of Adult, and the rows of adult-test."""
    adult = load_dataset("adult")
    income = adult["income"].to_numpy()
    whole = Part(adult.drop_columns(["income"]).to_pandas(), (income == ">50K").astype(np.int64))
    train, valid, test = (whole.take(rows) for rows in adult_split(income))
    return train, valid, test, load_dataset("adult-test").drop_columns(["income"]).to_pandas()


def sum_error(model: Compared, account: Explanation, X: pd.DataFrame) -> float:
    """Return the largest |base + Σ effects − logit|, relative to the row's |base| + Σ |effect|."""
    size = np.abs(account.base[0]) + np.abs(account.values).sum(1)
    return float((np.abs(account.logits[:, 0] - model.logits(X)) / size).max())


def replaced(model: Compared, X: pd.DataFrame, fields: Any, donors: pd.DataFrame) -> Floats:
    """Return how far each row's mean logit falls when its `fields` (rows, n) take the values of all donors' rows."""
    fallen = model.logits(X)
    for row, chosen in enumerate(fields):
        copies = pd.concat([X.iloc[[row]]] * len(donors), ignore_index=True)
        for f in chosen:
            copies[X.columns[f]] = donors.iloc[:, f].to_numpy()
        fallen[row] -= model.logits(copies).mean()
    return fallen


def models_block(
    models: Sequence[Any], seconds: Sequence[float], train: Part, valid: Part, test: Part, others: pd.DataFrame
) -> str:
    """Return the table of how good and how fast the three are, and what it was measured with."""
    rows = [["AUC"], ["log loss"], ["training, s"], ["account of 1,000 rows, s"], ["account of 10,000 rows, s"]]
    for model, trained in zip(models, seconds, strict=True):
        probability = 1 / (1 + np.exp(-model.logits(test.X)))
        rows[0].append(f"{roc_auc_score(test.y, probability):.4f}")
        rows[1].append(f"{log_loss(test.y, probability):.4f}")
        rows[2].append(f"{trained:.1f}")
        for row, n in ((rows[3], 1_000), (rows[4], 10_000)):
            part = others.iloc[:n]
            row.append(f"{timed(lambda part=part, model=model: model.account(part))[1]:.2f}")
            if isinstance(model, Trees):
                values = timed(lambda part=part, model=model: model.values(part))[1]
                row[-1] = f"{values:.2f}; with pairs {row[-1]}"
    categorical = Trees(train, valid, 0, categorical=True).logits(test.X)
    return (
        table(["on the test part", *(model.name for model in models)], rows)
        + "\n\nWith its own category splits, which SHAP's interaction values don't take, LightGBM reaches an AUC of "
        f"{roc_auc_score(test.y, categorical):.4f}, log loss {log_loss(test.y, 1 / (1 + np.exp(-categorical))):.4f}."
        f"\n\n{machine()}"
    )


def exact_block(models: Sequence[Any], accounts: Sequence[Explanation], train: Part, test: Part) -> str:
    """Return the table of what each account promises and keeps."""
    ours, ebm, trees = models
    few, donors = test.X.iloc[:200], train.X.sample(1000, random_state=0)
    removal = ours.model.check_explanations(test.X).removal_error
    cut, said = ebm.without_largest(few.iloc[:50], 3)
    size = np.abs(accounts[1].base[0]) + np.abs(accounts[1].values[:50]).sum(1)
    removals = [f"{removal:.0e}", f"{(np.abs(cut - said) / size).max():.0e}", "no such terms"]
    misses, alone = [], ""
    for model, account in zip(models, accounts, strict=True):
        first = account[:200]
        fields = np.argsort(-np.abs(per_field(first)), axis=1)[:, :3]
        fallen = replaced(model, few, fields, donors)
        misses.append(f"{np.abs(fallen - touching(first, fields)).mean():.2f} of {np.abs(fallen).mean():.2f}")
        if model is trees:
            sides = [np.take_along_axis(per_field(first), fields, axis=1).sum(1)]
            values = trees.values(few, donors)
            sides.append(np.take_along_axis(values, fields, axis=1).sum(1))
            alone = " and ".join(f"{np.abs(fallen - side).mean():.2f}" for side in sides)
    rows = [
        ["effects of a row that can differ from 0", *(f"{(a.values != 0).any(0).sum()}" for a in accounts)],
        ["base + effects = logit: error, relative", *(
            f"{sum_error(m, a, test.X):.0e}" for m, a in zip(models, accounts, strict=True)
        )],
        ["largest three effects taken out of the model: error, relative", *removals],
        ["largest three fields replaced: mean error, of a mean change of", *misses],
    ]  # fmt: skip
    text = table(["", *(model.name for model in models)], rows)
    return (
        f"{text}\n\nSHAP values without interactions miss the last by {alone} (along the trees' paths, and "
        "interventional with the same donors)."
    )


def agreement_block(names: Sequence[str], accounts: Sequence[Explanation], X: pd.DataFrame) -> str:
    """Return the tables of how far the three accounts agree on the same rows."""
    found = [importance(account) for account in accounts]
    shared = [per_field(account) for account in accounts]
    rows = [["importance of the 14 fields, rank correlation"], ["a row's 14 effects, rank correlation, mean of rows"],
            ["a row's largest field is the same"]]  # fmt: skip
    rows += [[f"curve of {field}, correlation"] for field in CURVES]
    rows += [["importance of the 91 pairs, rank correlation"], ["ten most important pairs in common"]]
    for a, b in combinations(range(len(accounts)), 2):
        same = np.abs(shared[a]).argmax(1) == np.abs(shared[b]).argmax(1)
        cells = [f"{rank_correlation(found[a][0], found[b][0]):.2f}", f"{rank_correlation(shared[a], shared[b]):.2f}",
                 f"{100 * same.mean():.0f} %"]  # fmt: skip
        for field in CURVES:
            one, other = (curve(accounts[side], field, X[field].to_numpy()) for side in (a, b))
            cells.append(f"{weighted_correlation(one[1], other[1], one[2]):.3f}")
        cells += [f"{rank_correlation(found[a][1], found[b][1]):.2f}", f"{in_common(found[a][1], found[b][1], 10)}"]
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    text = table(["", *(f"{names[a]}, {names[b]}" for a, b in combinations(range(len(names)), 2))], rows)

    shares = [100 * both[0] / both[0].sum() for both in found]
    order = np.argsort(-np.mean(shares, axis=0))
    lines = [[accounts[0].fields[f], *(f"{share[f]:.1f} %" for share in shares)] for f in order]
    text += "\n\nShare of each field in the importance of all:\n\n" + table(["field", *names], lines)
    pairs = [np.argsort(-both[1], kind="stable")[:5] for both in found]
    lines = [
        [str(place + 1), *(f"{accounts[0].pair_names[p[place]]} {both[1][p[place]]:.3f}" for p, both in zip(
            pairs, found, strict=True
        ))] for place in range(5)
    ]  # fmt: skip
    return text + "\n\nThe five most important pairs, mean \\|effect\\| in logits:\n\n" + table(["", *names], lines)


def character_block(names: Sequence[str], accounts: Sequence[Explanation], X: pd.DataFrame) -> str:
    """Return the table of how each account is spread, and how attfm's attention goes with its effects."""
    rows = [["pairs with an effect"], ["share of the pairs in all importance"],
            ["share of the ten largest pairs in that of the pairs"]]  # fmt: skip
    rows += [[f"curve of {field}: way up and down over its range"] for field in CURVES]
    for account in accounts:
        main, pair = (np.abs(side[:, :, 0]).mean(0) for side in (account.main, account.pair))
        cells = [f"{(pair > 0).sum()}", f"{100 * pair.sum() / (main.sum() + pair.sum()):.1f} %"]
        cells.append(f"{100 * np.sort(pair)[-10:].sum() / pair.sum():.0f} %")
        cells += [f"{way_over_range(curve(account, field, X[field].to_numpy())[1]):.1f}" for field in CURVES]
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    ours = accounts[0]
    if ours.attention is None:
        raise TypeError("the default model has attention")
    attention = rank_correlation(ours.attention.mean(0).astype(np.float64), importance(ours)[1])
    return table(["", *names], rows) + (
        f"\n\nThe mean attention of attfm's {len(ours.pairs)} pairs has a rank correlation of {attention:.2f} with the "
        "importance of their effects."
    )


def stability_block(kinds: Sequence[Any], train: Part, valid: Part, X: pd.DataFrame, seeds: int) -> str:
    """Return the table of how far refits of each model agree with each other."""
    rows = [["importance of fields"], ["importance of pairs"], ["a row's 14 effects"]]
    for kind in kinds:
        refits = []
        for seed in range(seeds):
            drawn = np.random.default_rng(seed).choice(len(train.y), int(0.8 * len(train.y)), replace=False)
            refits.append(kind(train.take(np.sort(drawn)), valid, seed + 1).account(X))
        for row, value in zip(rows, mean_over_pairs(refits).values(), strict=True):
            row.append(f"{value:.2f}")
    return table(["rank correlation between refits", *(kind.name for kind in kinds)], rows)


def sampled_block(model: Attfm, train: Part, X: pd.DataFrame) -> str:
    """Return how attfm's account compares with SHAP values of the same model, sampled by PermutationExplainer."""
    vocabulary = {name: pd.Index(pd.concat([train.X[name], X[name]]).unique()) for name in X.columns}

    def codes(part: pd.DataFrame) -> Floats:
        return np.stack([vocabulary[name].get_indexer(part[name]) for name in X.columns], 1).astype(np.float64)

    def score(coded: Floats) -> Floats:
        columns = {name: vocabulary[name][coded[:, f].astype(int)] for f, name in enumerate(X.columns)}
        return model.logits(pd.DataFrame(columns))

    masker = shap.maskers.Independent(codes(train.X.sample(100, random_state=0)), max_samples=100)
    explainer = shap.PermutationExplainer(score, masker, seed=0)
    explainer(codes(X.iloc[:1]), silent=True)  # numba compiles
    sampled, seconds = timed(lambda: explainer(codes(X), silent=True))
    account, exact_seconds = timed(lambda: model.account(X))
    exact = per_field(account)
    spread = [np.abs(side).mean() for side in (exact - sampled.values, exact)]
    return (
        f"Of {len(X)} rows, PermutationExplainer with 100 training rows took {seconds:.1f} s, attfm's own account "
        f"{exact_seconds:.3f} s. A row's 14 effects have a rank correlation of "
        f"{rank_correlation(exact, sampled.values):.2f}, and differ by {spread[0]:.3f} in the mean, where their mean "
        f"size is {spread[1]:.3f}."
    )


def draw_row(names: Sequence[str], accounts: Sequence[Explanation]) -> None:
    """Draw one row's effects, field by field, by all three."""
    shared = np.stack([per_field(account)[0] for account in accounts])
    order = np.argsort(-np.abs(shared).mean(0))
    _, ax = plt.subplots(figsize=(8.6, 5.6), layout="constrained")
    places = np.arange(len(order))
    ax.axvline(0, color=NEUTRAL, linewidth=0.9)
    ax.barh(places, np.ptp(shared[:, order], axis=0), 0.62, shared[:, order].min(0), color=GRID, alpha=0.7)
    for shift, name, account, effects, (colour, marker, _) in zip(
        (-0.2, 0, 0.2), names, accounts, shared, STYLES, strict=True
    ):
        text = f"{name}: base {account.base[0]:+.2f}, logit {account.logits[0, 0]:+.2f}"
        ax.plot(effects[order], places + shift, marker, color=colour, markersize=7, markeredgecolor="white", label=text)
    values = accounts[0].labels[0]
    ax.set_yticks(places, [f"{accounts[0].fields[f]} = {label(values[f], 22)}" for f in order])
    ax.invert_yaxis()
    limits_around(ax, float(shared.min()), float(shared.max()), share=0.06)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("effect on the logit of >50K: main effect and half of each pair effect")
    ax.set_title(f"row {ROW} of adult-test, explained by three models", loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(axis="x", color=GRID, linewidth=0.7)
    ax.legend(frameon=False, loc="lower right")
    save(ax, "three-accounts")


def draw_curves(names: Sequence[str], accounts: Sequence[Explanation], ages: Floats) -> None:
    """Draw the main effect of age by all three, with the rows below."""
    _, (ax, below) = plt.subplots(
        2, 1, figsize=(7.6, 4.8), layout="constrained", sharex=True, height_ratios=(5, 1), gridspec_kw={"hspace": 0.02}
    )
    ax.axhline(0, color=NEUTRAL, linewidth=0.9)
    for name, account, (colour, marker, line) in zip(names, accounts, STYLES, strict=True):
        grid, effect, _ = curve(account, "age", ages)
        ax.plot(grid, effect, line, color=colour, linewidth=1.9, marker=marker, markevery=6, markersize=5, label=name)
    grid, _, rows = curve(accounts[0], "age", ages)
    below.bar(grid, rows, width=1, color=NEUTRAL, alpha=0.55)
    below.set_yticks([])
    below.set_ylabel("rows", fontsize=8)
    below.set_xlabel("age")
    ax.set_ylabel("main effect on the logit of >50K")
    ax.legend(frameon=False, loc="lower center")
    for one in (ax, below):
        one.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GRID, linewidth=0.7)
    save(ax, "three-curves")


def machine() -> str:
    """Return what the figures were measured with."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ("interpret-core", "lightgbm", "shap", "torch", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"Processor seconds of one thread on {processor()}; Python {sys.version.split()[0]}, {versions}; "
        f"attfm at commit {commit or '?'}."
    )


def main() -> int:
    """Train, explain, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refits", type=int, default=3, help="of each model, for the stability")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated parts to write anew")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    matplotlib.use("Agg")
    torch.set_num_threads(1)
    train, valid, test, others = tables()
    kinds = (Attfm, EBM, Trees)
    names = [kind.name for kind in kinds]
    models, seconds = zip(*(timed(lambda kind=kind: kind(train, valid, 0)) for kind in kinds), strict=True)
    accounts = [model.account(test.X) for model in models]
    parts: dict[str, Callable[[], str]] = {
        "models": lambda: models_block(models, seconds, train, valid, test, others),
        "exact": lambda: exact_block(models, accounts, train, test),
        "agreement": lambda: agreement_block(names, accounts, test.X),
        "character": lambda: character_block(names, accounts, test.X),
        "sampled": lambda: sampled_block(models[0], train, test.X.iloc[:20]),
        "stability": lambda: stability_block(kinds, train, valid, test.X.iloc[:1000], options.refits),
    }
    for name in wanted:
        if name in parts:
            content = parts[name]()
            write_section(name, content, PAGE)
            print("written:", name, flush=True)
    if "pictures" in wanted:
        draw_row(names, [model.account(others.iloc[[ROW]]) for model in models])
        draw_curves(names, accounts, test.X["age"].to_numpy())
    return 0


if __name__ == "__main__":
    sys.exit(main())
