"""Scoring in chunks against the formula."""

import pytest
import torch
from pool_cases import arguments
from torch import Tensor

from attfm.errors import DataError
from attfm.ops import distinct, reference, score

FIELDS, EACH, DIM, OUTPUTS = 5, 6, 9, 3


def model(seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    _, W, b, h, bias, gate = arguments(1, FIELDS, DIM, 7, seed=seed)
    table, linear, projection, intercept = (
        torch.randn(*s, generator=g, dtype=torch.float64)
        for s in ((FIELDS * EACH, DIM), (FIELDS * EACH, OUTPUTS), (DIM, OUTPUTS), (OUTPUTS,))
    )
    network = {"W": W, "b": b, "h": h, "pair_bias": bias, "pair_gate": gate}
    return {"intercept": intercept, "linear": linear, "table": table, "projection": projection, **network}


def ids(rows: int) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(EACH, (rows, FIELDS), generator=g) + EACH * torch.arange(FIELDS)


def formula(rows: Tensor, m: dict[str, Tensor], values: Tensor | None = None) -> Tensor:
    x = torch.ones(rows.shape, dtype=torch.float64) if values is None else values
    network = [m[name] for name in ("W", "b", "h", "pair_bias", "pair_gate")]
    pooled, _ = reference.pair_attention_pool(m["table"][rows] * x[..., None], *network, scale=2.0)
    return m["intercept"] + (m["linear"][rows] * x[..., None]).sum(1) + pooled @ m["projection"]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert torch.allclose(actual.double(), expected, rtol=2e-5, atol=2e-5), (actual.double() - expected).abs().max()


@pytest.mark.parametrize("path", [False, True], ids=["by row", "distinct pairs"])
@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_chunks_follow_the_formula(chunk: int, path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "distinct_is_faster", lambda *a, **k: path)
    m = model()
    single = {name: t.float() for name, t in m.items()}
    assert_close(score(ids(50), **single, scale=2.0, chunk=chunk), formula(ids(50), m))


def test_the_comparison_can_fail() -> None:
    expected = formula(ids(50), model())
    broken = expected.clone()
    broken[7, 1] += 1e-3
    with pytest.raises(AssertionError):
        assert_close(broken, expected)


def test_double_precision_and_values() -> None:
    m = model()
    x = torch.rand(50, FIELDS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(score(ids(50), **m, scale=2.0, values=x, chunk=20), formula(ids(50), m, x), rtol=1e-12)


def test_without_pairs_it_is_the_linear_model() -> None:
    m = model()
    expected = m["intercept"] + m["linear"][ids(50)].sum(1)
    assert torch.allclose(score(ids(50), m["intercept"], m["linear"]), expected, rtol=1e-12)
    assert score(ids(0), m["intercept"], m["linear"]).shape == (0, OUTPUTS)


def test_bad_arguments() -> None:
    m = {name: t.float() for name, t in model().items()}
    with pytest.raises(DataError, match=r"projection must be \(9, 3\), and is \(9, 2\)"):
        score(ids(5), **{**m, "projection": torch.zeros(DIM, 2)})
    with pytest.raises(DataError, match=r"they are \(30, 3\) and \(2,\)"):
        score(ids(5), **{**m, "intercept": torch.zeros(2)})
    with pytest.raises(DataError, match="chunk is 0"):
        score(ids(5), **m, chunk=0)
    rows = ids(5)
    rows[3, 2] = 900
    with pytest.raises(DataError, match=r"ids holds 900 \(row 3, field 2\), and the table has 30 rows"):
        score(rows, m["intercept"], m["linear"])
