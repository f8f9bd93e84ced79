"""Multi-valued columns: bags of features, with weights or without."""

import pyarrow as pa
import torch

from tests.data.encoding import fit, ids_of, table


def test_lists_become_bags() -> None:
    data = table(s=["p", "q", "p", "p", "q"], x=[["a", "b"], [], None, ["a", None], ["c", "a"]])
    encoder = fit(data)
    assert encoder.fields[1].kind == "multi-valued"
    assert encoder.feature_names(1) == ["unknown", "missing", "a", "b", "c"]
    batch = encoder.transform(table(s=["p"] * 6, x=[["b", "a"], [], None, [None], ["z", "a", "z"], ["a", "a"]]))
    assert ids_of(encoder, batch, 0) == [2] * 6
    assert ids_of(encoder, batch, 1) == [3, 2, 1, 1, 1, 0, 2, 0, 2, 2]
    bag = batch.field(1)
    assert bag.counts is not None
    assert bag.counts.tolist() == [2, 1, 1, 1, 3, 2]
    assert batch.values is None  # no member has a weight
    assert batch.offsets is not None
    assert batch.offsets.tolist() == [[0, 1], [3, 4], [5, 6], [7, 8], [9, 10], [13, 14]]
    assert (batch.ids.dtype, batch.offsets.dtype) == (torch.int32, torch.int64)


def test_maps_become_bags_with_weights() -> None:
    kind = pa.map_(pa.string(), pa.float32())
    column = pa.array([[("zero", 9.0)], [("a", 0.5), ("b", -2.0)], None, [], [("z", 3.0), ("a", None)]], kind)
    encoder = fit(table(x=column.slice(1, 2)))
    bag = encoder.transform(table(x=column.slice(1))).field(0)
    assert bag.ids.tolist() == [2, 3, 1, 1, 0, 2]
    assert bag.values is not None
    assert bag.counts is not None
    assert bag.values.tolist() == [0.5, -2, 1, 1, 3, 1]
    assert bag.counts.tolist() == [2, 1, 1, 2]


def test_strings_with_a_separator_become_bags() -> None:
    settings = {"x": {"kind": "multi-valued", "separator": "|"}}
    encoder = fit(table(x=["a|b", "b", None, ""]), columns=settings)
    assert encoder.feature_names(0) == ["unknown", "missing", "b", "a"]
    column = pa.array(["b|a", None, "", "|a| z |", "b|a"])
    for spelling in (column, column.dictionary_encode(), column.cast(pa.string_view())):
        bag = encoder.transform(table(x=spelling)).field(0)
        assert bag.ids.tolist() == [2, 3, 1, 1, 3, 0, 2, 3]
        assert bag.counts is not None
        assert bag.counts.tolist() == [2, 1, 1, 2, 2]
    assert encoder.transform(table(x=[["b"], ["a"]])).ids.tolist() == [2, 3]


def test_members_of_any_list_type_are_categories() -> None:
    encoder = fit(table(x=[[3, 4], [4]]))
    for kind in (
        pa.large_list(pa.float64()),
        pa.list_(pa.string()),
        pa.list_view(pa.int8()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ):
        text = kind.value_type if not pa.types.is_dictionary(kind.value_type) else pa.string()
        values = [["3"], ["4", "3"]] if pa.types.is_string(text) else [[3], [4, 3]]
        assert encoder.transform(table(x=pa.array(values, kind))).ids.tolist() == [3, 2, 3], kind
    fixed = pa.array([[3, 4], [4, 5]], pa.list_(pa.int64(), 2))
    assert encoder.transform(table(x=fixed)).ids.tolist() == [3, 2, 2, 0]


def test_members_can_be_hashed_and_rare_ones_unknown() -> None:
    hashed = fit(table(x=[["a"], ["b"]]), columns={"x": {"hash_buckets": 4}})
    assert set(hashed.transform(table(x=[["a", "z"], None])).ids[:2].tolist()) <= {2, 3, 4, 5}
    rare = fit(table(x=[["a", "b"], ["b"]]), min_count=2)
    assert rare.feature_names(0) == ["unknown", "missing", "b"]
