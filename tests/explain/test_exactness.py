"""base + Σ effects = logit: in every view, for every preset, task and encoding, to 1e-5 relative in float32."""

import numpy as np
import pyarrow as pa
import pytest

from attfm.config import PRESETS
from attfm.explain.explainer import Explainer
from attfm.explain.explanation import Explanation
from tests.explain.account import ROWS, TARGETS, model, source


def columns(seed: int = 0) -> dict[str, pa.Array]:
    """Return two columns for each encoding, with gaps where the kind can have them."""
    rng = np.random.default_rng(seed)

    def gaps(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=rng.random(ROWS) < 0.1)

    tags = ["de", "en", "fr", "it", "pl"]
    bags = [list(rng.choice(tags, rng.integers(0, 4), replace=False)) for _ in range(ROWS)]
    dates = np.datetime64("2019-03-01T05:00:00") + rng.integers(0, 10**8, (2, ROWS))
    return {
        "job": gaps(rng.choice(["cook", "clerk", "pilot"], ROWS)),
        "town": gaps(rng.choice([f"town {n}" for n in range(30)], ROWS)),
        "age": gaps(np.round(rng.normal(40, 9, ROWS), 1)),
        "pay": gaps(np.exp(rng.normal(7, 2, ROWS))),
        "langs": pa.array([bag or None for bag in bags], pa.list_(pa.string())),
        "likes": pa.array(
            [[(tag, float(rng.normal(1, 2))) for tag in bag[:2]] for bag in bags[::-1]],
            pa.map_(pa.string(), pa.float64()),
        ),
        "words": gaps(np.array(["|".join(bag) for bag in bags[::-1]])),
        "born": gaps(dates[0]),
        "seen": gaps(dates[1]),
    }


# The columns of each encoding, and the settings that bring it about.
ENCODINGS = {
    "categorical": (["job", "town"], {}),
    "quantile bins": (["age", "pay"], {"numeric": "quantile", "max_bins": 12}),
    "uniform bins": (["age", "pay"], {"numeric": "uniform", "max_bins": 7}),
    "scaled value": (["age", "pay", "job"], {"numeric": "scaled"}),
    "multi-valued": (
        ["langs", "likes", "words"], {"columns": {"words": {"kind": "multi-valued", "separator": "|"}}}
    ),
    "hashed": (["town", "langs"], {"columns": {"town": {"hash_buckets": 7}, "langs": {"hash_buckets": 3}}}),
    "datetime": (["born", "seen"], {}),
    "all together": (["job", "age", "pay", "langs", "likes", "born"], {
        "columns": {"pay": {"bins": "scaled"}, "job": {"hash_buckets": 4}},
    }),
}  # fmt: skip


def worst(explanation: Explanation, logits: np.ndarray) -> float:
    """Return the largest |base + Σ effects − logit|, as a share of the size of that row's terms."""
    size = np.abs(explanation.base) + np.abs(explanation.main).sum(1) + np.abs(explanation.pair).sum(1)
    return float((np.abs(explanation.logits - logits) / size).max())


@pytest.mark.parametrize("task", list(TARGETS))
@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_effects_add_up_in_every_view(task: str, preset: str, encoding: str) -> None:
    names, settings = ENCODINGS[encoding]
    table = pa.table({name: columns()[name] for name in names})
    made = model(task, preset=preset, table=table, target_mean=-3.0, **settings)  # a large one would hide an error
    rows = source(table)
    logits = made.logits(table)
    kinds = {field.kind for field in made.encoder.fields}
    assert ("multi-valued" in kinds) == bool({"langs", "likes"} & set(names))
    assert logits.shape == (ROWS, 3 if task == "multiclass" else 1)
    assert logits.std() > 0.1
    for view in ("raw", "centred"):
        explanation = Explainer(made, view=view).of_rows(rows, None)
        assert worst(explanation, logits) < 1e-5
        assert np.abs(explanation.logits - logits).max() < 1e-5 * np.abs(logits).max()
        whole = explanation.grouped({"group": list(explanation.fields[:2])})
        assert worst(whole, logits) < 1e-5
        some = Explainer(made, view=view).of_rows(rows, [149, 2])
        assert worst(some, logits[[149, 2]]) < 1e-5
        off = explanation.main.copy()
        off[:, 0] += 1e-4 * np.abs(logits).max()  # the comparison can fail
        assert np.abs(explanation.base + off.sum(1) + explanation.pair.sum(1) - logits).max() > 1e-5


def test_rows_unlike_those_of_training_add_up_too() -> None:
    names, settings = ENCODINGS["all together"]
    table = pa.table({name: columns()[name] for name in names})
    made = model(table=table, **settings)
    other = pa.table(
        {
            "job": ["astronaut", None], "age": pa.array([-1e6, None], pa.float64()), "pay": [9e9, None],
            "langs": pa.array([["xx", "de", "de"], None], pa.list_(pa.string())),
            "likes": pa.array([[("xx", -7.0)], []], pa.map_(pa.string(), pa.float64())),
            "born": pa.array([None, None], pa.timestamp("s")),
        }
    )  # fmt: skip
    for view in ("raw", "centred"):
        explanation = Explainer(made, view=view).of_rows(source(other), None)
        assert worst(explanation, made.logits(other)) < 1e-5
