"""Scoring in chunks against the formula."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attfm.errors import ConfigError, DataError
from attfm.ops import reference, score, use_backend
from tests.ops.pool_cases import arguments, needs_native

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


def single(m: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.float() for name, t in m.items()}


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert torch.allclose(actual.double(), expected, rtol=2e-5, atol=2e-5), (actual.double() - expected).abs().max()


@pytest.mark.isa
@needs_native
@pytest.mark.parametrize("path", [None, False, True], ids=["chosen", "by row", "distinct pairs"])
@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_chunks_follow_the_formula(chunk: int, path: bool | None) -> None:
    m = model()
    assert_close(score(ids(50), **single(m), scale=2.0, distinct=path, chunk=chunk), formula(ids(50), m))


def test_the_comparison_can_fail() -> None:
    expected = formula(ids(50), model())
    broken = expected.clone()
    broken[7, 1] += 1e-3
    with pytest.raises(AssertionError):
        assert_close(broken, expected)


@pytest.mark.isa
@needs_native
def test_values_multiply_vectors_and_weights() -> None:
    m = model()
    x = torch.rand(50, FIELDS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert_close(score(ids(50), **single(m), scale=2.0, values=x.float(), chunk=20), formula(ids(50), m, x))


@pytest.mark.isa
@needs_native
def test_without_pairs_it_is_the_linear_model() -> None:
    m = model()
    linear = m["intercept"].float(), m["linear"].float()
    assert_close(score(ids(50), *linear), m["intercept"] + m["linear"][ids(50)].sum(1))
    assert score(ids(0), *linear).shape == (0, OUTPUTS)
    no_pairs = torch.empty(2, 0, dtype=torch.int64)
    pooled = {"table": m["table"].float(), "projection": m["projection"].float()}
    assert torch.equal(score(ids(50), *linear, **pooled, pairs=no_pairs), score(ids(50), *linear))


@needs_native
def test_where_the_kernels_cannot_serve_it_says_so() -> None:
    with pytest.raises(ConfigError, match="score runs on the compiled kernels only: intercept is float64"):
        score(ids(5), **model())
    with use_backend("reference"), pytest.raises(ConfigError, match="only: the backend is 'reference'"):
        score(ids(5), **single(model()))


def test_bad_arguments() -> None:
    m = single(model())
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


@pytest.mark.isa
@needs_native
@pytest.mark.parametrize("form", ["attention", "gates", "plain", "linear"])
@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize(("dim", "hidden", "outputs"), [(1, 1, 3), (9, 7, 1), (16, 16, 1), (33, 150, 1)])
def test_a_row_has_the_same_bits_in_any_company(
    dim: int, hidden: int, outputs: int, with_values: bool, form: str, set_threads: Callable[[int], None]
) -> None:
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

    def part(start: int, stop: int, path: bool = False) -> Tensor:
        values = None if x is None else x[start:stop]
        return score(rows[start:stop], intercept, linear, **pooled, **network, scale=3.0, values=values, distinct=path)

    set_threads(1)
    whole = part(0, 201)
    for start, stop in [(0, 1), (1, 3), (7, 40), (40, 201), (200, 201)]:
        for path in (False, True):  # which way is chosen depends on the company too
            assert torch.equal(part(start, stop, path), whole[start:stop])
    set_threads(2)
    assert torch.equal(part(0, 201), whole)
    assert torch.equal(part(3, 104, True), whole[3:104])
    assert not torch.equal(whole[:100], whole[100:200])
