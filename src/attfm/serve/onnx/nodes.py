"""An ONNX graph while it is written: nodes, constants, inputs and outputs, each value with a name of its own."""

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.errors import MissingExtraError

ML = "ai.onnx.ml"
OPSETS = {"": 20, ML: 4}  # StringSplit, RegexFullMatch; LabelEncoder from and to any type
IR_VERSION = 9
Shape = Sequence[int | str]


def require_onnx() -> ModuleType:
    """Return the package onnx; raise MissingExtraError where it is not installed."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx is not installed: run 'pip install \"attfm[onnx]\"'.") from None
    package: ModuleType = onnx
    return package


class Nodes:
    """Nodes of a graph in the order in which they are computed; methods return the names of values.

    Parameters
    ----------
    reserved : names that no inner value may have: those of the inputs and outputs
    """

    def __init__(self, reserved: Iterable[str]) -> None:
        self._onnx = require_onnx()
        self._reserved = set(reserved)
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._named = 0

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.add_many(operator, *inputs, outputs=1, domain=domain, **attributes)[0]

    def add_many(
        self, operator: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node with several outputs and return their names."""
        names = tuple(self._name(operator) for _ in range(outputs))
        node = self._onnx.helper.make_node(operator, list(inputs), list(names), domain=domain, **attributes)
        self._nodes.append(node)
        return names

    def constant(self, values: NDArray[Any] | Sequence[Any] | float | int, dtype: Any = None) -> str:
        """Return the name of a constant array, which equal ones share; of strings where these are objects."""
        array = np.ascontiguousarray(np.asarray(values, dtype))
        array = array.reshape(np.shape(values))
        content = "\0".join(array.ravel()).encode() if array.dtype == object else array.tobytes()
        key = (array.dtype.str, array.shape, content)
        if key not in self._constants:
            self._constants[key] = self._name("constant")
            self._initializers.append(self.tensor(array, self._constants[key]))
        return self._constants[key]

    def tensor(self, array: NDArray[Any], name: str = "") -> Any:
        """Return an array as ONNX holds it, in a file or in an attribute."""
        if array.dtype == object:
            texts = [text.encode() for text in array.ravel()]
            return self._onnx.helper.make_tensor(name, self._onnx.TensorProto.STRING, array.shape, texts)
        return self._onnx.numpy_helper.from_array(array, name)

    def input(self, name: str, kind: str, shape: Shape) -> str:
        """Declare an input; kind : "double", "float", "int64", "string" or "bool"."""
        self._inputs.append(self._info(name, kind, shape))
        return name

    def output(self, value: str, name: str, kind: str, shape: Shape) -> None:
        """Declare a value to be the output of that name."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._info(name, kind, shape))

    def graph(self, name: str) -> Any:
        """Return the finished graph, an onnx.GraphProto."""
        return self._onnx.helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)

    def lookup(self, values: str, keys: NDArray[Any], found: NDArray[np.int64], default: int) -> str:
        """Return, for each value, what its key stands for, int64; the default of values that are no key."""
        if not len(keys):  # the operator wants one key at least
            return self.filled_like(values, default)
        return self.add(
            "LabelEncoder", values, domain=ML, keys_tensor=self.tensor(keys), values_tensor=self.tensor(found),
            default_tensor=self.tensor(np.array([default])),
        )  # fmt: skip

    def trimmed(self, texts: str) -> str:
        """Return texts of any shape without the spaces around them.

        Split on spaces, and never: what is left is the text from its first to its last one that is none. (onnxruntime
        knows no other blank, so a tab or a line break stays.)
        """
        # Where all texts are empty there is no piece at all: a last text that is none keeps the axis of pieces at one.
        flat = self.add("Reshape", texts, self.constant([-1], np.int64))
        some = self.concat([flat, self.constant(np.array(["-"], object))], 0)
        pieces, _ = self.add_many("StringSplit", some, outputs=2, delimiter="", maxsplit=0)
        first, last = self.constant([0, 0], np.int64), self.constant([-1, 1], np.int64)
        return self.add("Reshape", self.add("Slice", pieces, first, last), self.add("Shape", texts), allowzero=1)

    def filled_like(self, values: str, fill: int) -> str:
        """Return int64 of one value in the shape of others."""
        return self.add("ConstantOfShape", self.add("Shape", values), value=self.tensor(np.array([fill])))

    def cast(self, value: str, kind: str) -> str:
        """Return values as another type."""
        return self.add("Cast", value, to=self._type(kind))

    def column(self, value: str) -> str:
        """Return (batch,) values as (batch, 1)."""
        return self.add("Unsqueeze", value, self.constant([1], np.int64))

    def concat(self, parts: Sequence[str], axis: int) -> str:
        """Return values side by side; one alone as it is."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=axis)

    def pick(self, values: str, places: NDArray[np.int64] | int, axis: int) -> str:
        """Return values at some places of an axis; at one place without the axis."""
        return self.add("Gather", values, self.constant(places, np.int64), axis=axis)

    def total(self, values: str, axis: int, *, keep: bool = False) -> str:
        """Return sums over an axis."""
        return self.add("ReduceSum", values, self.constant([axis], np.int64), keepdims=int(keep))

    def _name(self, operator: str) -> str:
        while True:
            self._named += 1
            name = f"{operator}_{self._named}"
            if name not in self._reserved:
                return name

    def _info(self, name: str, kind: str, shape: Shape) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._type(kind), list(shape))

    def _type(self, kind: str) -> int:
        return int(getattr(self._onnx.TensorProto, kind.upper()))
