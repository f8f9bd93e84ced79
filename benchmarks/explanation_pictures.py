"""Write the pictures and figures of explanations.md: trains on Adult, explains rows of adult-test.

Example: python -m benchmarks.explanation_pictures
"""

import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from attfm import AFMClassifier, load_dataset
from attfm.data.datasets import adult_split
from attfm.plots import effects as plots
from benchmarks.pages import write_section

HERE = Path(__file__).parents[1] / "docs"
PAGE = HERE / "explanations.md"
ROW = 7
REFITS = 5


def save(ax: Axes, name: str) -> None:
    """Write a picture beside the text."""
    ax.figure.savefig(HERE / "pictures" / f"{name}.png", dpi=80, metadata={"Software": None})
    plt.close("all")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, the last column flushed right."""
    lines = [header, ["---"] * (len(header) - 1) + ["---:"], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Train, explain, write."""
    matplotlib.use("Agg")
    (HERE / "pictures").mkdir(exist_ok=True)
    adult, test = load_dataset("adult"), load_dataset("adult-test").drop_columns(["income"])
    X, y = adult.drop_columns(["income"]), adult["income"].to_numpy()
    train, valid, _ = adult_split(y)
    model = AFMClassifier(n_bags=REFITS, random_state=0, verbose=False).fit(
        X.take(train), y[train], eval_set=(X.take(valid), y[valid])
    )
    e = model.explain(test, rows=[ROW])
    raw = model.explain(test, rows=[ROW], view="raw")
    overview = model.explain_global()
    check = model.check_explanations(
        test, seeds=REFITS, refit_on=(X.take(train), y[train]), eval_set=(X.take(valid), y[valid])
    )

    first = e[0]
    effects = [[one.name, one.value, f"{one.effect:+.3f}"] for one in first.top(6)[0]]
    account = table(["effect", "value", "logit"], effects)
    rest = first.logits[0, 0] - first.base[0] - sum(one.effect for one in first.top(6)[0])
    account += (
        f"\n\nBase {first.base[0]:+.3f}, these six {sum(one.effect for one in first.top(6)[0]):+.3f}, the "
        f"{len(first.names) - 6} others {rest:+.3f}: logit {first.logits[0, 0]:+.3f}, probability "
        f"{model.predict_proba(test.slice(ROW, 1))[0, 1]:.3f}. In the raw view the same row starts from the "
        f"intercept {raw.base[0]:+.3f}, and its largest effects are "
        + ", ".join(f"{one.name} {one.effect:+.3f}" for one in raw[0].top(3)[0])
        + "."
    )
    importance = table(
        ["field or pair", "mean \\|effect\\|", "± over refits", "share"],
        [
            [one.name, f"{one.importance:.3f}", f"{one.spread:.3f}", f"{100 * one.share:.1f} %"]
            for one in overview.field_importance()[:6] + overview.pair_importance()[:4]
        ],
    )
    pairs = sum(one.share for one in overview.pair_importance())
    importance += f"\n\nAll {len(overview.pairs)} pairs together have {100 * pairs:.1f} % of the importance."
    curve, stable, seeds = check.deletion, check.stability, check.seeds
    measured = "\n".join(
        [
            f"- On {check.rows:,} rows of adult-test the account is off from the model's own logit, scored in float64, "
            f"by at most {check.sum_error:.0e} of the effects' size.",
            f"- Cutting the 1, 3 and 10 largest effects out of the forward pass changes the logit by their sum, to "
            f"{check.removal_error:.0e}.",
            f"- Setting the three largest effects to their average moves the logit by {curve.largest_first[3]:.2f} in "
            f"the mean, three random ones by {curve.random[3]:.2f}.",
            f"- {stable.refits} refits on bootstrap samples: rank correlation of importance {stable.fields:.2f} for "
            f"fields, {stable.pairs:.2f} for pairs; {100 * stable.top:.0f} % of the ten largest in common.",
            f"- The model and {seeds.refits} refits on the same rows with other seeds: {seeds.fields:.2f} for fields, "
            f"{seeds.pairs:.2f} for pairs; {100 * seeds.top:.0f} % of the ten largest in common.",
        ]
    )
    share = model.predict_proba(test)[:, 1]
    doubtful = int(np.flatnonzero(np.abs(share - 0.5) < 0.1)[0])
    changes = f"Row {doubtful}, probability {share[doubtful]:.3f}:\n\n" + table(
        ["field", "from", "to", "decision after", "distance"],
        [
            [one.field, one.before, one.after, one.decision_after, f"{one.distance:.2f}"]
            for one in model.what_if(test, row=doubtful, immutable=["race", "sex", "native-country", "fnlwgt"])[:5]
        ],
    )
    blocks = {"account": account, "importance": importance, "measured": measured, "changes": changes}
    for block, content in blocks.items():
        write_section(block, content, PAGE)

    save(e.plot(0), "waterfall")
    save(plots.importance(overview, n=18), "importance")
    save(plots.shape(overview, "age"), "shape")
    save(plots.pair_map(overview, *overview.surfaces()[0].fields), "pair")
    save(plots.attention_matrix(overview), "attention")


if __name__ == "__main__":
    sys.exit(main())
