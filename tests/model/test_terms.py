"""The terms of the formula: they add up to the logit, whatever the preset, the task and the encoding."""

import numpy as np
import pytest
import torch

from attfm.config import PRESETS
from attfm.model import terms as terms_module
from attfm.model.terms import chunks, logits_without, terms_of
from attfm.ops import all_pairs
from tests.explain.account import ENCODINGS, assert_adds_up, encoded, mixed, model, source


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_effects_add_up_to_the_logit(task: str, preset: str, encoding: str) -> None:
    made = model(task, preset=preset, background=False, **ENCODINGS[encoding])
    logits = made.logits(mixed())
    terms = terms_of(made.module, encoded(made, source()))
    assert terms.main.shape[2] == (3 if task == "multiclass" else 1)
    assert_adds_up(terms.total(), logits)
    with pytest.raises(AssertionError, match="off by"):  # the comparison can fail
        assert_adds_up(terms.total() + 1e-4 * np.abs(logits).max(), logits)


def test_each_effect_is_its_term_of_the_formula() -> None:
    made = model("regression", background=False)
    module = made.module
    terms = terms_of(module, encoded(made, source(mixed(7))))
    rows = encoded(made, source(mixed(7)))
    with torch.no_grad():
        v = module.embedding(rows).double()
        i, j = all_pairs(v.shape[1])
        q = v[:, i] * v[:, j]
        network = module.attention
        e = torch.relu(q @ network.W.double() + network.b.double()) @ network.h.double() + network.pair_bias.double()
        a = torch.softmax(e, 1)
        applied = len(i) * a * network.pair_gate.double()
        pair = 25 * applied * (q @ module.projection.double())[..., 0]
    assert terms.attention is not None
    np.testing.assert_allclose(terms.attention, a.numpy(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(terms.attention.sum(1), 1, rtol=1e-5)
    assert terms.attention.std() > 0.01
    np.testing.assert_allclose(terms.applied, applied.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(terms.pair[..., 0], pair.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(terms.main, 25 * module.linear(rows).detach().numpy(), rtol=1e-5)
    assert terms.intercept == pytest.approx(1000 + 25 * module.intercept.item())


@pytest.mark.parametrize("preset", ["fm", "fwfm", "linear"])
def test_without_attention_there_is_none(preset: str) -> None:
    made = model(preset=preset, background=False)
    terms = terms_of(made.module, encoded(made, source()))
    assert terms.attention is None
    assert terms.applied.shape == terms.pair.shape[:2]
    if preset == "fm":
        assert (terms.applied == 1).all()
    assert terms.pair.shape[1] == (0 if preset == "linear" else 10)


def test_a_gate_of_zero_leaves_the_attention_as_it_is() -> None:
    made = model(background=False)
    with torch.no_grad():
        made.module.attention.pair_gate.zero_()
    terms = terms_of(made.module, encoded(made, source()))
    assert (terms.applied == 0).all()
    assert terms.attention is not None
    np.testing.assert_allclose(terms.attention.sum(1), 1, rtol=1e-5)


def test_chunks_give_the_same_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(background=False)
    rows = encoded(made, source())
    whole = terms_of(made.module, rows)
    monkeypatch.setattr(terms_module, "_CHUNK_NUMBERS", 1)
    parts = list(chunks(made.module, rows))
    assert [len(part) for part in parts] == [16] * 9 + [6]
    gathered = [terms_of(made.module, part) for part in parts]
    pair, main = (np.concatenate([getattr(terms, name) for terms in gathered]) for name in ("pair", "main"))
    np.testing.assert_allclose(pair, whole.pair, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(main, whole.main, rtol=1e-6)
    np.testing.assert_array_equal(whole.slice(20, 40).main, whole.main[20:40])


def test_cutting_terms_out_of_the_forward_pass_takes_their_sum_away() -> None:
    made = model("multiclass", background=False)
    rows = encoded(made, source())
    terms = terms_of(made.module, rows)
    rng = np.random.default_rng(0)
    fields, pairs = rng.random(terms.main.shape[:2]) < 0.5, rng.random(terms.pair.shape[:2]) < 0.5
    removed = (terms.main * fields[..., None]).sum(1) + (terms.pair * pairs[..., None]).sum(1)
    assert_adds_up(logits_without(made.module, rows, fields, pairs), terms.total() - removed)
