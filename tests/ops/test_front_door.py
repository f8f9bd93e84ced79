"""Which backend runs, and what happens to input that it can't take."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attfm.errors import ConfigError, DataError
from attfm.ops import native_info, pair_attention_pool, pair_attention_pool_ids, set_backend, use_backend
from tests.ops.pool_cases import arguments, needs_native


def values(*shape: int) -> list[Tensor]:
    return [t.float() for t in arguments(*(shape or (6, 4, 5, 3))) if t is not None]


class Ran(TorchDispatchMode):
    """Collects the names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


def backend_of(call: Callable[[], Any]) -> str:
    """Return what computes a call: the kernels' operator, or torch's softmax."""
    with Ran() as ran:
        call()
    native, reference = "attfm::pool" in ran.names, "aten::_softmax" in ran.names
    assert native != reference, ran.names
    return "native" if native else "reference"


@needs_native
def test_auto_is_native_for_float32_on_the_cpu() -> None:
    for options in ({}, {"weight_dropout": 0.2}, {"pair_dropout": 0.2}, {"backend": "native"}):
        assert backend_of(lambda o=options: pair_attention_pool(*values(), scale=1.0, **o)) == "native"


def test_auto_is_the_reference_elsewhere() -> None:
    assert backend_of(lambda: pair_attention_pool(*[t.double() for t in values()], scale=1.0)) == "reference"
    assert backend_of(lambda: pair_attention_pool(*[t.to("meta") for t in values()], scale=1.0)) == "reference"
    assert backend_of(lambda: pair_attention_pool(*values(), scale=1.0, backend="reference")) == "reference"


@needs_native
def test_the_backend_of_the_process_serves_calls_that_name_none() -> None:
    _, *network = values(1, 2, 5, 3)
    ids, table = torch.tensor([[0, 1], [2, 0]]), torch.rand(3, 5)

    def computed() -> set[str]:
        return {
            backend_of(lambda: pair_attention_pool(*values(), scale=1.0)),
            backend_of(lambda: pair_attention_pool_ids(ids, table, *network, scale=1.0)),
        }

    assert computed() == {"native"}
    with use_backend("reference"):
        assert computed() == {"reference"}
        assert backend_of(lambda: pair_attention_pool(*values(), scale=1.0, backend="auto")) == "native"
        with use_backend("auto"):
            assert computed() == {"native"}
        assert computed() == {"reference"}
    with use_backend("native"), pytest.raises(ConfigError, match="embeddings is float64"):
        pair_attention_pool(*[t.double() for t in values()], scale=1.0)
    assert computed() == {"native"}  # an error inside leaves the choice as it was
    with pytest.raises(ConfigError, match="Unknown backend 'fast'"):
        set_backend("fast")  # type: ignore[arg-type]


def test_weights_only_on_request() -> None:
    pooled = pair_attention_pool(*values(), scale=1.0)
    both = pair_attention_pool(*values(), scale=1.0, return_weights=True)
    assert pooled.weights is None
    assert torch.equal(pooled.vector, both.vector)
    i, j = torch.combinations(torch.arange(4)).T
    v = values()[0]
    expected = (both.weights[..., None] * v[:, i] * v[:, j]).sum(1)
    assert torch.allclose(both.vector, expected, rtol=1e-4, atol=1e-6)


@needs_native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[0].double(), "embeddings is float64, and the kernels take float32"),
        (lambda a: a[0].to("meta"), "embeddings is on meta, and the kernels run on the CPU"),
        (lambda a: a[0].transpose(0, 1).contiguous().transpose(0, 1), "contiguous tensors, and embeddings is not"),
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
    pooled = pair_attention_pool(*scattered, scale=1.0).vector
    expected = pair_attention_pool(plain[0].requires_grad_(), *plain[1:], scale=1.0).vector
    assert torch.equal(pooled, expected)
    pooled.sum().backward()
    expected.sum().backward()
    assert torch.equal(torch.as_tensor(leaf.grad), torch.as_tensor(plain[0].grad))


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


WITHOUT = """
import sys, warnings
import torch
sys.modules["attfm.ops._native"] = None  # as if it were not installed
from attfm.errors import ConfigError
from attfm.ops import native_info, pair_attention_pool

assert native_info()["available"] is False
small, large = torch.ones(6, 4, 5), torch.ones(1000, 10, 40)
with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert float(pair_attention_pool(small, *[None] * 5, scale=1.0).vector[0, 0]) == 6.0  # too small to matter
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):  # said once
        pair_attention_pool(large, torch.ones(40, 16), torch.ones(16), torch.ones(16), None, None, scale=1.0)
print(*(f"{w.category.__name__} at {w.filename}: {w.message}" for w in said))
try:
    pair_attention_pool(small, *[None] * 5, scale=1.0, backend="native")
except ConfigError as error:
    print(error)
"""


def test_without_the_library() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    warning, refusal = done.stdout.splitlines()
    assert warning.startswith("RuntimeWarning at <string>: attfm runs without its compiled kernels")
    assert warning.count("Install a compiler") == 1
    assert refusal.startswith("backend='native' can't serve: the compiled kernels are not installed")


@needs_native
def test_native_info() -> None:
    info = native_info()
    assert info["available"] is True
    assert info["isa"] in {"avx512", "avx2", "portable"}
    assert info["lanes"] in {4, 8, 16}
    assert info["threads"] == torch.get_num_threads()
