"""Scoring in chunks against the formula."""

import pytest
import torch
from pool_cases import arguments
from torch import Tensor

from attfm.errors import DataError
from attfm.ops import distinct, native, reference, score

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


@pytest.mark.skipif(native.compiled is None, reason="attfm was installed without its compiled kernels")
@pytest.mark.parametrize("form", ["attention", "gates", "plain", "linear"])
@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize(("dim", "hidden", "outputs"), [(1, 1, 3), (9, 7, 1), (16, 16, 1), (33, 150, 1)])
def test_a_row_has_the_same_bits_in_any_company(
    dim: int, hidden: int, outputs: int, with_values: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_WORK_PER_THREAD", 1)
    g = torch.Generator().manual_seed(0)
    _, W, b, h, bias, gate = (t.float() for t in arguments(1, FIELDS, dim, hidden))
    network = {"W": W, "b": b, "h": h, "pair_bias": bias, "pair_gate": gate}
    if form != "attention":
        network = {"pair_gate": gate} if form == "gates" else {}
    table = torch.randn(FIELDS * EACH, dim, generator=g)
    projection = torch.randn(dim, outputs, generator=g)
    pooled = {} if form == "linear" else {"table": table, "projection": projection}
    intercept, linear = torch.randn(outputs, generator=g), torch.randn(FIELDS * EACH, outputs, generator=g)
    rows, x = ids(201), torch.rand(201, FIELDS, generator=g) if with_values else None
    threads = torch.get_num_threads()

    def part(start: int, stop: int, path: bool = False) -> Tensor:
        monkeypatch.setattr(distinct, "distinct_is_faster", lambda *a, **k: path)
        values = None if x is None else x[start:stop]
        return score(rows[start:stop], intercept, linear, **pooled, **network, scale=3.0, values=values)

    try:
        torch.set_num_threads(1)
        whole = part(0, 201)
        for start, stop in [(0, 1), (1, 3), (7, 40), (40, 201), (200, 201)]:
            for path in (False, True):  # which way is chosen depends on the company too
                assert torch.equal(part(start, stop, path), whole[start:stop])
        torch.set_num_threads(2)
        assert torch.equal(part(0, 201), whole)
        assert torch.equal(part(3, 104, True), whole[3:104])
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(whole[:100], whole[100:200])
