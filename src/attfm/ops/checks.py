"""What the front doors check before they compute."""

import torch
from torch import Tensor

from attfm.errors import ConfigError, DataError
from attfm.ops import cpu

Parameters = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def check_dropout(**chances: float) -> None:
    """Raise ConfigError where a chance to drop, given by its name, is not in [0, 1)."""
    for name, value in chances.items():
        if not 0 <= value < 1:
            raise ConfigError(f"{name} is {value}: a chance to drop must be at least 0 and below 1.")


def check_embeddings(embeddings: Tensor) -> None:
    """Raise DataError where embeddings are not (batch, fields, dim)."""
    if embeddings.ndim != 3:
        raise DataError(f"embeddings must be (batch, fields, dim); its shape is {tuple(embeddings.shape)}.")


def check_parameters(parameters: Parameters, pairs: Tensor | None, *, fields: int, dim: int) -> None:
    """Raise DataError, naming each of W, b, h, pair_bias and pair_gate whose shape does not fit."""
    W, b, h, pair_bias, pair_gate = parameters
    if pairs is not None and (pairs.ndim != 2 or pairs.shape[0] != 2):
        raise DataError(f"pairs must be an integer tensor (2, pairs); its shape is {tuple(pairs.shape)}.")
    count = fields * (fields - 1) // 2 if pairs is None else pairs.shape[-1]
    given = [t is not None for t in (W, b, h)]
    if any(given) and not all(given):
        raise DataError("W, b and h come together: all tensors, or all None for no attention.")
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "pair_bias": (pair_bias, (count,)),
        "pair_gate": (pair_gate, (count,)),
    }
    if W is not None:
        hidden = W.shape[-1]
        wanted |= {"W": (W, (dim, hidden)), "b": (b, (hidden,)), "h": (h, (hidden,))}
    wrong = [
        f"{name} must be {shape}, and is {tuple(tensor.shape)}"
        for name, (tensor, shape) in wanted.items()
        if tensor is not None and tuple(tensor.shape) != shape
    ]
    if wrong:
        raise DataError(f"With {fields} fields of dim {dim} and {count} pairs: {'; '.join(wrong)}.")


def check_ids(ids: Tensor, table: Tensor, values: Tensor | None, offsets: Tensor | None = None) -> None:
    """Raise DataError where ids are not rows of the table, or values and offsets don't match them."""
    wanted = "(batch, fields)" if offsets is None else "(entries,) beside offsets"
    if table.ndim != 2 or ids.ndim != (2 if offsets is None else 1) or ids.dtype not in (torch.int32, torch.int64):
        raise DataError(
            f"ids must be an integer tensor {wanted} and table (features, dim); ids is "
            f"{str(ids.dtype).removeprefix('torch.')} {tuple(ids.shape)}, table is {tuple(table.shape)}."
        )
    if ids.device != table.device:
        raise DataError(f"ids is on {ids.device} and table on {table.device}: move one of them.")
    if values is not None and values.shape != ids.shape:
        raise DataError(f"values must be {tuple(ids.shape)} as ids is, and is {tuple(values.shape)}.")
    if values is not None and values.requires_grad:
        raise DataError("values asks for a gradient: they are data here. Pool gathered embeddings instead.")
    if offsets is not None:
        _check_offsets(offsets, len(ids))
    # On a GPU reading the ids would wait for it; torch checks them there.
    if ids.numel() and ids.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = cpu.id_range(ids)
        if low < 0 or high >= len(table):
            worst = low if low < 0 else high
            at = (ids == worst).nonzero()[0].tolist()
            where = f"row {at[0]}, field {at[1]}" if offsets is None else f"entry {at[0]}"
            raise DataError(f"ids holds {worst} ({where}), and the table has {len(table)} rows.")


def _check_offsets(offsets: Tensor, entries: int) -> None:
    if offsets.ndim != 2 or offsets.dtype not in (torch.int32, torch.int64):
        raise DataError(
            f"offsets must be an integer tensor (batch, fields), and is {str(offsets.dtype).removeprefix('torch.')} "
            f"{tuple(offsets.shape)}."
        )
    starts = offsets.flatten()
    if torch.compiler.is_compiling() or offsets.device.type != "cpu":  # reading them there would wait for the GPU
        return
    if not len(starts):
        fits = entries == 0
    else:
        fits = int(starts[0]) == 0 and int(starts[-1]) <= entries and bool((starts[1:] >= starts[:-1]).all())
    if not fits:
        raise DataError(f"offsets must start at 0, never fall, and end at most at the {entries} entries of ids.")
