"""Which backend runs, and what happens to input that it can't take."""

import warnings
from typing import Any

import pytest
import torch
from pool_cases import arguments
from torch import Tensor

import attfm.ops as ops
from attfm.errors import ConfigError, DataError
from attfm.ops import native, native_info, pair_attention_pool, reference

needs_native = pytest.mark.skipif(native.compiled is None, reason="attfm was installed without its compiled kernels")


def values(*shape: int) -> list[Tensor]:
    return [t.float() for t in arguments(*(shape or (6, 4, 5, 3))) if t is not None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the backends that ran, in order."""
    ran: list[str] = []
    for name, module in (("native", native), ("reference", reference)):

        def spy(*args: Any, _name: str = name, _real: Any = module.pair_attention_pool, **options: Any) -> Any:
            ran.append(_name)
            return _real(*args, **options)

        monkeypatch.setattr(module, "pair_attention_pool", spy)
    return ran


@needs_native
def test_auto_is_native_for_float32_on_the_cpu(calls: list[str]) -> None:
    pair_attention_pool(*values(), scale=1.0)
    pair_attention_pool(*values(), scale=1.0, weight_dropout=0.2)
    pair_attention_pool(*values(), scale=1.0, pair_dropout=0.2)
    pair_attention_pool(*values(), scale=1.0, backend="native")
    assert calls == ["native"] * 4


def test_auto_is_the_reference_elsewhere(calls: list[str]) -> None:
    pair_attention_pool(*[t.double() for t in values()], scale=1.0)
    pair_attention_pool(*values(), scale=1.0, backend="reference")
    pair_attention_pool(*[t.to("meta") for t in values()], scale=1.0)
    assert calls == ["reference"] * 3


def test_weights_only_on_request() -> None:
    pooled = pair_attention_pool(*values(), scale=1.0)
    both = pair_attention_pool(*values(), scale=1.0, return_weights=True)
    assert isinstance(pooled, Tensor)
    assert torch.equal(pooled, both[0])
    assert both[1].shape == (6, 6)


@needs_native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[0].double(), "embeddings is float64, and the kernels take float32"),
        (lambda a: a[0].to("meta"), "embeddings is on meta, and the kernels run on the CPU"),
        (
            lambda a: a[0].transpose(0, 1).contiguous().transpose(0, 1),
            "contiguous tensors, and embeddings is not",
        ),
    ],
)
def test_native_refuses_by_name(change: Any, message: str) -> None:
    arguments_ = values()
    arguments_[0] = change(arguments_)
    with pytest.raises(ConfigError, match=message):
        pair_attention_pool(*arguments_, scale=1.0, backend="native")


@needs_native
def test_auto_copies_what_is_not_contiguous() -> None:
    plain = values()
    scattered = [plain[0].transpose(0, 1).contiguous().transpose(0, 1), plain[1].T.contiguous().T, *plain[2:]]
    leaf = scattered[0].requires_grad_()
    pooled = pair_attention_pool(*scattered, scale=1.0)
    assert torch.equal(torch.as_tensor(pooled), torch.as_tensor(pair_attention_pool(*plain, scale=1.0)))
    torch.as_tensor(pooled).sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize(
    ("position", "name", "wanted"),
    [
        (1, "W", r"\(5, 3\)"),
        (2, "b", r"\(3,\)"),
        (3, "h", r"\(3,\)"),
        (4, "pair_bias", r"\(6,\)"),
        (5, "pair_gate", "6"),
    ],
)
def test_a_wrong_shape_is_named(position: int, name: str, wanted: str) -> None:
    arguments_ = values()
    arguments_[position] = torch.zeros(7, 3) if position == 1 else torch.zeros(8)
    with pytest.raises(DataError, match=f"{name} must be .*{wanted}"):
        pair_attention_pool(*arguments_, scale=1.0)


def test_all_wrong_shapes_at_once() -> None:
    v, W, b, h, _, gate = values()
    with pytest.raises(DataError, match=r"6 pairs: pair_bias must be \(6,\), and is \(5,\); b must be \(3,\)"):
        pair_attention_pool(v, W, b[:2], h, torch.zeros(5), gate, scale=1.0)


def test_parts_of_the_network_come_together() -> None:
    v, W, b, *_ = values()
    with pytest.raises(DataError, match="W, b and h come together"):
        pair_attention_pool(v, W, b, None, None, None, scale=1.0)


def test_a_matrix_is_no_embeddings() -> None:
    with pytest.raises(DataError, match=r"\(batch, fields, dim\); its shape is \(2, 3\)"):
        pair_attention_pool(torch.zeros(2, 3), None, None, None, None, None, scale=1.0)


@needs_native
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (torch.tensor([[0], [4]]), "names field 4, and the fields are 0 to 3"),
        (torch.tensor([[-1], [1]]), "names field -1"),
        (torch.tensor([[0.0], [1.0]]), "integer tensor"),
        (torch.tensor([0, 1]), "integer tensor"),
    ],
)
def test_pairs_outside_the_fields(pairs: Tensor, message: str) -> None:
    v, *network, _, _ = values()
    with pytest.raises(DataError, match=message):
        pair_attention_pool(v, *network, None, None, scale=1.0, pairs=pairs)


def test_unknown_backend() -> None:
    with pytest.raises(ConfigError, match="Unknown backend 'fast': it is one of auto, native, reference"):
        pair_attention_pool(*values(), scale=1.0, backend="fast")


@pytest.mark.parametrize("name", ["weight_dropout", "pair_dropout"])
def test_dropout_of_everything(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 1.0"):
        pair_attention_pool(*values(), scale=1.0, **{name: 1.0})


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    monkeypatch.setattr(native, "compiled", None)
    monkeypatch.setattr(ops, "_warned", False)
    assert native_info()["available"] is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair_attention_pool(*values(), scale=1.0)  # too small to matter
    large = values(1000, 10, 16, 16)
    with pytest.warns(RuntimeWarning, match="without its compiled kernels.*Install a compiler"):
        pair_attention_pool(*large, scale=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair_attention_pool(*large, scale=1.0)  # said once
    with pytest.raises(ConfigError, match="not installed"):
        pair_attention_pool(*values(), scale=1.0, backend="native")
    assert calls == ["reference"] * 3


@needs_native
def test_native_info() -> None:
    info = native_info()
    assert info["available"] is True
    assert info["isa"] in {"avx512", "avx2", "portable"}
    assert info["lanes"] in {4, 8, 16}
    assert info["threads"] == torch.get_num_threads()
