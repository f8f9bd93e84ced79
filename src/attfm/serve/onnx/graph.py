"""A model as one ONNX file, from raw columns to probabilities, which needs nothing of attfm to run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import types

from attfm.errors import AttfmError, ConfigError, RunFolderError
from attfm.model.bundle import Model, model_given
from attfm.model.ensemble import members_of
from attfm.model.terms import field_pairs
from attfm.output_file import OutputFile
from attfm.serve.onnx.check import Agreement, compare
from attfm.serve.onnx.columns import FieldIds, encode
from attfm.serve.onnx.formula import Rows, rows_of, scores_of, sums_of
from attfm.serve.onnx.nodes import IR_VERSION, OPSETS, Nodes, require_onnx
from attfm.serve.raw_inputs import RawInput, raw_inputs

MODEL_FILE = OutputFile("model", "an ONNX file", (".onnx",))
FORMAT = 1
CARD = "attfm"  # the key of the card among the metadata
_MOST_BYTES = 2**31 - 2**20  # one protobuf message holds less than 2 GiB


@dataclass(frozen=True)
class Asked:
    """What an export is to have besides the prediction.

    effects : whether main and pair effects are outputs too; ids : whether it takes encoded rows instead of columns
    """

    effects: bool = False
    ids: bool = False


def export_onnx(
    model: Model, path: str | Path, *, effects: bool = False, ids: bool = False, check: bool = True
) -> tuple[Path, Agreement | None]:
    """Write a model as an ONNX file, checked by onnx's checker; a failed write or check leaves nothing behind.

    Parameters
    ----------
    effects : bool
        Whether the terms of the formula are outputs too: intercept + Σ main_effects + Σ pair_effects = logits.
    ids : bool, whether the inputs are feature ids, as `Encoder.transform` gives them, instead of raw columns
    check : bool, whether it is compared with the model on 10,000 made-up rows by onnxruntime

    Returns
    -------
    path : pathlib.Path, of the file
    agreement : Agreement or None, how far it is from the model, where it was compared

    Raises
    ------
    AttfmError : it is farther from the model than 1e-5
    ConfigError : a column can't be expressed, the model is larger than a protobuf file may be, or it can't be written
    MissingExtraError : onnx is not installed
    """
    model, file = model_given(model), MODEL_FILE.checked(path)
    proto = onnx_model(model, Asked(effects, ids))
    require_onnx().checker.check_model(proto, full_check=True)
    agreement = None
    with MODEL_FILE.written(file) as part:
        part.write_bytes(proto.SerializeToString(deterministic=True))
        if check:
            agreement = compare(model, part, _card_of(proto))
            if not agreement.good:
                raise AttfmError(
                    f"The export differs from the model by {agreement.difference:.2g} in {agreement.rows:,} "
                    "made-up rows, so it was not written: report this as a fault of attfm."
                )
    return file, agreement


def onnx_model(model: Model, asked: Asked) -> Any:
    """Return a model as an onnx.ModelProto, with its card; see `export_onnx`."""
    onnx = require_onnx()
    _check_size(model)
    taken = [] if asked.ids else raw_inputs(model)
    inputs = [raw.name for raw in taken] + [raw.weights_name for raw in taken if raw.form == "weighted"]
    if len(set(inputs)) < len(inputs):
        name = max(inputs, key=inputs.count)
        raise ConfigError(f"Two inputs would be called '{name}': a column and another one's weights. Rename one.")
    names = {name: _free(name, inputs) for name in _outputs_of(model, asked)}
    nodes = Nodes([*inputs, *names.values(), "ids", "values"])
    rows = _id_rows(nodes, model) if asked.ids else rows_of(nodes, encode(nodes, taken, model.encoder.fields))
    _add_outputs(nodes, model, asked, rows, names)
    graph = nodes.graph("attfm")
    opsets = [onnx.helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
    proto = onnx.helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="attfm", producer_version=version("attfm"),
        doc_string=f"{model.task.name} of '{model.target.name}'",
    )  # fmt: skip
    card = _card(model, asked, taken, names, _checksum(graph))
    onnx.helper.set_model_props(proto, {CARD: json.dumps(card, ensure_ascii=False)})
    return proto


def read_card(path: str | Path) -> dict[str, Any]:
    """Return the card of an exported file: schema, inputs, outputs, version, checksum.

    Raises
    ------
    RunFolderError : there is no such file, it is no export of attfm, or its graph is not the one that was written
    """
    onnx = require_onnx()
    try:
        proto = onnx.load_model_from_string(Path(path).read_bytes())
        card = _card_of(proto)
    except OSError as error:
        raise RunFolderError(f"Can't read '{path}': {error.strerror}.") from None
    except Exception:  # whatever protobuf makes of other files
        raise RunFolderError(f"'{path}' is not an ONNX file that attfm wrote.") from None
    if card.get("checksum") != _checksum(proto.graph):
        raise RunFolderError(f"The graph of '{path}' is not the one that was written: export the model again.")
    return card


def _card_of(proto: Any) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == CARD))
    return card


def _checksum(graph: Any) -> str:
    """Return the SHA-256 of a graph, as hexadecimal digits."""
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()


def _check_size(model: Model) -> None:
    width = members_of(model.module)[0]
    tables = sum(
        4 * len(machine.linear.weight) * (machine.outputs + (machine.config.dim if machine.has_pairs else 0))
        + (0 if machine.memory is None else machine.memory.size * (16 + 4 * machine.outputs))
        for machine in members_of(model.module)
    )
    if tables > _MOST_BYTES:
        raise ConfigError(
            f"The model's tables take {tables / 1e9:.1f} GB ({len(width.linear.weight):,} features, "
            f"{len(members_of(model.module))} models), and an ONNX file holds 2.1 GB: train with a higher 'min_count' "
            "or a smaller 'dim', or serve the run folder."
        )


def _outputs_of(model: Model, asked: Asked) -> list[str]:
    names = ["prediction", *(["logits", "probabilities"] if model.task.is_classification else [])]
    if asked.effects:
        names += ["intercept", "main_effects", *(["pair_effects"] if model.module.has_pairs else [])]
    return names


def _free(name: str, taken: list[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _id_rows(nodes: Nodes, model: Model) -> Rows:
    """Return rows whose features are the inputs: "ids", of fields with one; and for others an input with their name."""
    encoder, fields = model.encoder, []
    single = [field for field in encoder.fields if field.kind != "multi-valued"]
    weighted = {raw.name for raw in raw_inputs(model) if raw.form == "weighted"}
    if single:
        nodes.input("ids", "int64", ["batch", len(single)])
        if any(field.kind == "scaled" for field in single):
            nodes.input("values", "float", ["batch", len(single)])
    for field in encoder.fields:
        if field.kind == "multi-valued":
            name = f"ids of {field.name}"
            nodes.input(name, "int64", ["batch", f"members of {field.name}"])
            x = None
            if field.column in weighted:
                x = nodes.input(f"values of {field.name}", "float", ["batch", f"members of {field.name}"])
            fields.append(FieldIds(field, name, x, has_members=True))
            continue
        place = single.index(field)
        x = nodes.pick("values", place, 1) if any(other.kind == "scaled" for other in single) else None
        fields.append(FieldIds(field, nodes.pick("ids", place, 1), x))
    return rows_of(nodes, fields)


def _add_outputs(nodes: Nodes, model: Model, asked: Asked, rows: Rows, names: Mapping[str, str]) -> None:
    task, outputs = model.task, model.module.outputs
    sums = sums_of(nodes, model.module, rows, effects=asked.effects)
    if task.is_classification:
        scores = scores_of(nodes, sums.logit, model.calibration, outputs)
        labels, kind = _labels(model)
        code = _decision(nodes, model, sums.logit, scores)
        nodes.output(nodes.add("Gather", nodes.constant(labels), code, axis=0), names["prediction"], kind, ["batch"])
        nodes.output(sums.logit, names["logits"], "float", ["batch", outputs])
        nodes.output(nodes.cast(scores, "float"), names["probabilities"], "float", ["batch", len(task.classes)])
    else:
        value = nodes.add("Squeeze", sums.logit, nodes.constant([1], np.int64))
        nodes.output(value, names["prediction"], "float", ["batch"])
    if sums.main is not None:
        nodes.output(nodes.constant(sums.intercept, np.float32), names["intercept"], "float", [outputs])
        nodes.output(sums.main, names["main_effects"], "float", ["batch", model.module.fields, outputs])
    if sums.pair is not None:
        shape: list[int | str] = ["batch", len(field_pairs(model.module)), outputs]
        nodes.output(sums.pair, names["pair_effects"], "float", shape)


def _decision(nodes: Nodes, model: Model, logit: str, scores: str) -> str:
    """Return the decided class codes, int64 (batch,)."""
    if len(model.task.classes) == 2:
        above = nodes.add("Greater", nodes.pick(scores, 1, 1), nodes.constant(model.threshold, np.float64))
        return nodes.cast(above, "int64")
    return nodes.add("ArgMax", scores if model.calibration.curves else logit, axis=1, keepdims=0)


def _labels(model: Model) -> tuple[NDArray[Any], str]:
    """Return the classes as `Model.predict` names them, and their type in ONNX."""
    labels = model.task.labels(np.arange(len(model.task.classes)))
    for test, kind, dtype in (
        (types.is_boolean, "bool", np.bool_), (types.is_integer, "int64", np.int64),
        (types.is_floating, "double", np.float64),
    ):  # fmt: skip
        if test(labels.type):
            return np.array(labels.to_pylist(), dtype), kind
    texts = np.empty(len(labels), object)
    texts[:] = [str(label) for label in labels.to_pylist()]
    return texts, "string"


def _card(model: Model, asked: Asked, taken: list[RawInput], names: Mapping[str, str], checksum: str) -> dict[str, Any]:
    fields = [field.name for field in model.encoder.fields]
    card: dict[str, Any] = {
        "format": FORMAT,
        "attfm": version("attfm"),
        "checksum": checksum,
        "task": model.task.name,
        "target": model.target.name,
        "classes": list(model.task.class_names),
        "preset": model.config.model.preset,
        "models": len(members_of(model.module)),
        "calibration": model.calibration.kind,
        "inputs": [raw.card() for raw in taken],
        "outputs": dict(names),
        "schema": json.loads(model.schema.to_json()),
    }
    if len(model.task.classes) == 2:
        card["threshold"] = model.threshold
    if asked.ids:
        card["fields"] = [
            {"name": field.name, "start": field.start, "size": field.size} for field in model.encoder.fields
        ]
    if asked.effects:
        card["effects"] = {
            "unit": model.task.unit,
            "outputs": list(model.task.outputs),
            "main": fields,
            "pair": [[fields[i], fields[j]] for i, j in field_pairs(model.module).tolist()],
        }
    return card
