"""The summary of many rows: chunks of them give what all at once do, and hardly more than pair effects are held."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import torch

from attfm.explain import background as background_module
from attfm.explain.background import Background
from attfm.explain.levels import Levels
from attfm.explain.summary import Tally, averaged
from attfm.model import terms as terms_module
from attfm.model.terms import all_field_pairs, field_pairs, terms_of
from tests.explain.account import encoded, mixed, model, source


def columns(rows: int, count: int = 16) -> pa.Table:
    """Return a table of single-valued columns."""
    rng = np.random.default_rng(0)
    return pa.table({f"c{number}": rng.choice(["u", "v", "w"], rows) for number in range(count)})


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_summary_by_chunks_is_that_of_all_rows_at_once(
    task: str, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model(task, background=False, members=members)
    rows = encoded(made, source(mixed()))
    levels = Levels.of_rows(made.encoder, rows)
    terms = terms_of(made.module, rows)
    whole = Background.of_sample(terms, levels, levels.of(rows))
    tally = Tally(whole, [0])
    tally.add(levels.of(rows), terms)
    expected = tally.summary()
    monkeypatch.setattr(terms_module, "_CHUNK_NUMBERS", 1)
    monkeypatch.setattr(background_module, "_PAIRS_AT_ONCE", 3)
    background, summary = averaged(made.module, made.encoder, rows, surfaces=2)
    np.testing.assert_allclose(background.moved, whole.moved, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(background.centred, whole.centred)
    assert summary.rows == expected.rows == len(rows)
    for name in ("field_importance", "pair_importance", "attention_mean", "attention_std", "applied_mean", "shape"):
        np.testing.assert_allclose(getattr(summary, name), getattr(expected, name), rtol=1e-4, atol=1e-5, err_msg=name)
    assert len(summary.surfaces) == 2


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_pairs_that_vary_most_are_chosen_however_many_are_looked_at_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_module, "_MOST_PAIRS", 30)
    monkeypatch.setattr(background_module, "_PAIRS_AT_ONCE", at_once)
    rng, pairs = np.random.default_rng(0), all_field_pairs(12)
    effect = (rng.normal(size=(200, len(pairs), 2)) * rng.uniform(0.9, 1.1, (len(pairs), 1))).astype(np.float32)
    chosen = background_module._affordable(effect, pairs, np.full(12, 3))
    most = np.argsort(-effect.var(0).sum(1), kind="stable")[:30]
    np.testing.assert_array_equal(np.flatnonzero(chosen), np.sort(most))


def test_of_each_row_a_summary_holds_its_pair_effects_once() -> None:
    made = model(background=False, table=columns(150))
    torch.manual_seed(0)

    def peak(rows: int) -> int:
        batch = encoded(made, source(columns(rows)))
        tracemalloc.start()
        averaged(made.module, made.encoder, batch)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    peak(1_000)  # what is imported and kept once is not of the rows
    of_row = (peak(60_000) - peak(30_000)) / 30_000
    pairs, fields = len(field_pairs(made.module)), made.module.fields
    # A float of each pair; of each field its effect, its level twice, and the entry that means are made by.
    assert of_row < 1.5 * 4 * pairs + (8 + 8 + 24) * fields
