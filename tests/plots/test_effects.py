"""Pictures of effects: what they say, that nothing overlaps, and what they ask of the caller."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from attfm.errors import ConfigError
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Explanation
from attfm.explain.global_explanation import GlobalExplanation
from attfm.model.calibration import Calibration, Curve
from attfm.plots import effects as plots
from tests.explain.account import clashing, mixed, model, source
from tests.plots.pictures import assert_readable, overlaps

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return Explainer(model()).of_rows(source(), range(4))


@pytest.fixture(scope="module")
def overview() -> GlobalExplanation:
    return explain_global(model(refits=2))


def wide(fields: int, *, numeric: str = "quantile") -> tuple[Explanation, GlobalExplanation]:
    rng = np.random.default_rng(0)
    values = ["$x$ alpha", "<script>alert(1)</script>", "gamma delta epsilon zeta eta theta iota kappa"]
    table = pa.table(
        {
            f"a column with a rather long name, number {f}": rng.normal(size=150) if f % 2 else rng.choice(values, 150)
            for f in range(fields)
        }
    )
    made = model(table=table, numeric=numeric)
    return Explainer(made).of_rows(source(table), [0]), explain_global(made)


def test_overlaps_are_seen() -> None:
    _, ax = plt.subplots(figsize=(3, 1))
    ax.set_yticks(np.arange(30), [f"name {n}" for n in range(30)])
    assert overlaps(ax.get_yticklabels())


def test_where_curves_make_the_probability_the_picture_has_none_and_says_what_it_is_of() -> None:
    made = model()
    rising = Curve(logits=(-1.0, 1.0), probabilities=(0.2, 0.7))
    bent = replace(made, calibration=Calibration(kind="isotonic", rows=9, curves=(rising,)))
    of_row = Explainer(bent).of_rows(source(), [0])
    ax = of_row.plot()
    assert ax.get_title("left") == f"row 0: uncalibrated logit {of_row.logits[0, 0]:.3g}"
    assert ax.get_xlabel() == "uncalibrated logit of yes"
    whole = plots.importance(explain_global(bent))
    assert whole.get_xlabel() == "mean |effect| over 150 rows, uncalibrated logits"


def test_a_waterfall_goes_from_base_to_logit(explanation: Explanation) -> None:
    ax = explanation.plot(2, n=4)
    bars = ax.patches
    top = explanation.top(4)[2]
    assert [bar.get_width() for bar in bars[:4]] == pytest.approx([effect.effect for effect in top])
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    assert bars[0].get_x() == pytest.approx(explanation.base[0])
    assert ends[-1] == pytest.approx(explanation.logits[2, 0])
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names[0] == "mean of training rows"
    assert names[1] == f"{top[0].name} = {top[0].value}"
    assert names[-2:] == ["11 others", "logit of this row"]
    share = 1 / (1 + np.exp(-explanation.logits[2, 0]))
    assert f"row 2: logit {explanation.logits[2, 0]:.3g}, probability of yes {share:.3f}" == ax.get_title("left")
    colours = {tuple(bar.get_facecolor()) for bar in bars}
    assert len(colours) == 2
    assert_readable(ax)


@pytest.mark.parametrize("fields", [14, 40])
@pytest.mark.parametrize("picture", ["waterfall", "importance", "attention", "map"])
def test_nothing_overlaps_with_many_fields(fields: int, picture: str) -> None:
    explanation, overview = wide(fields)
    if picture == "waterfall":
        ax = explanation.plot(0, n=25)
    elif picture == "importance":
        ax = plots.importance(overview, n=40)
    elif picture == "attention":
        ax = plots.attention_matrix(overview)
    else:
        ax = plots.pair_map(overview, *overview.surfaces()[0].fields)
    assert_readable(ax)


def test_importance_has_bars_and_whiskers(overview: GlobalExplanation) -> None:
    ax = plots.importance(overview, kind="pairs", n=4)
    assert [text.get_text() for text in ax.get_yticklabels()] == [one.name for one in overview.pair_importance()[:4]]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([one.importance for one in overview.pair_importance()[:4]])
    assert "2 refits" in ax.get_title("left")
    assert plots.importance(overview).get_legend() is not None


def test_a_field_called_like_a_pair_is_drawn_as_the_field_it_is() -> None:
    overview = explain_global(model(table=clashing()))
    bars = plots.importance(overview).patches[: len(overview.importance())]
    colours = {one.fields: bar.get_facecolor() for one, bar in zip(overview.importance(), bars, strict=True)}
    assert colours["a × b",] == colours["a",] != colours["a", "b"] == colours["a", "a × b"]
    # A field's name and value are shortened as a whole, a pair's each for itself.
    long = pa.table({"a long name × of a field": ["a long value × of it", "other"] * 75, "b": ["x", "y", "z"] * 50})
    made = model(table=long)
    names = [text.get_text() for text in Explainer(made).of_rows(source(long), [0]).plot(0).get_yticklabels()]
    assert "a long name × of a field = a long value × of it" in names
    assert "a long name ×… field × b = a long value × of it × x" in names


def test_a_shape_is_a_curve_over_its_density_or_bars(overview: GlobalExplanation) -> None:
    shape = overview.shape("age")
    ax = plots.shape(overview, "age")
    assert "missing" in ax.get_title("left")
    assert f"{shape.rows[1]:,} rows" in ax.get_title("left")
    density = ax.child_axes[0]
    assert density.patches[0].get_data().values.sum() == pytest.approx(shape.rows[2:].sum())
    assert density.get_xlabel() == "age"
    assert_readable(ax)
    bars = plots.shape(overview, "job")
    jobs = overview.shape("job")
    by_rows = [n for n in np.argsort(-jobs.rows) if jobs.rows[n]]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(jobs.effect[by_rows, 0].tolist())
    assert bars.get_yticklabels()[0].get_text() == f"{jobs.labels[by_rows[0]]}  ({jobs.rows[by_rows[0]]:,})"


def test_the_shape_of_a_skewed_field_is_no_vertical_line() -> None:
    income = np.exp(np.random.default_rng(0).normal(3, 2, 150))
    ax = plots.shape(explain_global(model(table=pa.table({"income": income, "z": income[::-1]}))), "income")
    left, right = ax.get_xlim()
    middle = ax.transData.transform([[np.median(income), 0]])[0, 0]
    box = ax.get_window_extent()
    assert 0.2 < (middle - box.x0) / box.width < 0.8
    assert (np.median(income) - left) / (right - left) < 0.1
    assert "logarithmic" in ax.child_axes[0].get_xlabel()
    assert_readable(ax)
    ax.figure.canvas.draw()
    assert overlaps(ax.child_axes[0].get_xticklabels()) == []


def test_a_pair_map_averages_neighbouring_bins_and_shows_where_rows_are_few(overview: GlobalExplanation) -> None:
    ax = plots.pair_map(overview, "age", "job")
    image = ax.images[0].get_array()
    assert image.shape[1] == 14 + 1  # age in groups of bins, and missing
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names[0] == "missing"
    surface = overview.surface("job", "age")
    missing = (surface.second == 1) & (surface.first == np.array(surface.labels[0]).tolist().index("cook"))
    row = [text.get_text() for text in ax.get_yticklabels()].index("cook")
    assert image[row, 0] == pytest.approx(surface.effect[missing, 0][0])
    assert len(ax.lines[0].get_xdata()) > 0


def test_the_attention_matrix_is_relative_to_equal_attention(overview: GlobalExplanation) -> None:
    image = plots.attention_matrix(overview).images[0].get_array()
    assert image.mask.diagonal().all() if np.ma.is_masked(image) else np.isnan(np.diag(image)).all()
    assert np.nanmean(np.ma.filled(image, np.nan)) == pytest.approx(1)
    with pytest.raises(ConfigError, match="has no attention"):
        plots.attention_matrix(explain_global(model(preset="fm")))


def test_outputs_must_be_named_where_there_are_several() -> None:
    made = model("multiclass")
    with pytest.raises(ConfigError, match="give output="):
        Explainer(made).of_rows(source(), [0]).plot(0)
    with pytest.raises(ConfigError, match="give output="):
        plots.shape(explain_global(made), "age")
    assert "logit of c" in Explainer(made).of_rows(source(), [0]).plot(0, output="c").get_xlabel()


def test_axes_are_taken_from_the_caller(explanation: Explanation, overview: GlobalExplanation) -> None:
    for draw in (
        lambda ax: explanation.plot(0, ax=ax), lambda ax: plots.importance(overview, ax=ax),
        lambda ax: plots.shape(overview, "age", ax=ax), lambda ax: plots.pair_map(overview, "job", "age", ax=ax),
        lambda ax: plots.attention_matrix(overview, ax=ax), lambda ax: plots.roc([0, 1], [0.2, 0.7], ax=ax),
    ):  # fmt: skip
        _, ax = plt.subplots()
        assert draw(ax) is ax


def test_the_raw_view_starts_at_the_intercept() -> None:
    made = model("regression", background=False)
    raw = Explainer(made, view="raw").of_rows(source(mixed()), [0])
    ax = raw.plot(0)
    assert ax.get_yticklabels()[0].get_text() == "intercept"
    assert ax.get_title("left").startswith("row 0: y ")
    assert ax.get_xlabel() == "y"
