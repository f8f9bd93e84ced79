import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler

from attfm.data.codecs.numeric import Bins, Sample, quantile_bins, uniform_bins
from attfm.data.encoder import Encoder
from tests.data.encoding import fit, infer, labels, table

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Small integers repeat, so that there are heavy values beside light ones.
VALUES = st.lists(st.one_of(st.integers(-3, 3).map(float), FINITE), min_size=1, max_size=60)


def quantile(values: list[float] | np.ndarray, max_bins: int) -> Bins:
    x = np.asarray(values, np.float64)
    return quantile_bins(x, low=x.min(), high=x.max(), max_bins=max_bins)


@given(VALUES, st.integers(2, 12))
def test_there_are_at_most_max_bins_and_none_is_empty(values: list[float], max_bins: int) -> None:
    bins = quantile(values, max_bins)
    assert 1 <= bins.size <= max_bins
    assert bins.size == len(bins.edges) + 1
    assert (np.diff(bins.edges) > 0).all()
    assert set(bins.find(np.array(values)).tolist()) == set(range(bins.size))


@given(VALUES, st.integers(2, 12), FINITE, FINITE)
def test_a_greater_value_is_never_in_a_lower_bin(values: list[float], max_bins: int, x: float, y: float) -> None:
    low, high = sorted([x, y])
    for bins in (quantile(values, max_bins), uniform_bins(low=min(values), high=max(values), bins=max_bins)):
        first, second = bins.find(np.array([low, high]))
        assert 0 <= first <= second < bins.size


@given(VALUES)
def test_few_distinct_values_get_a_bin_each(values: list[float]) -> None:
    distinct = np.unique(values)
    bins = quantile(values, max(2, len(distinct)))
    assert bins.find(distinct).tolist() == list(range(len(distinct)))
    assert bins.single.tolist() == distinct.tolist()


@given(VALUES, st.integers(2, 12))
def test_single_says_which_bins_hold_one_value(values: list[float], max_bins: int) -> None:
    bins = quantile(values, max_bins)
    distinct = np.unique(values)
    held = [distinct[bins.find(distinct) == b] for b in range(bins.size)]
    expected = [members[0] if len(members) == 1 else np.nan for members in held]
    np.testing.assert_array_equal(bins.single, expected)


def test_edges_are_midpoints_and_whole_between_whole_values() -> None:
    assert quantile([1.5, 2.0, 4.0], 10).edges.tolist() == [1.75, 3.0]
    assert quantile([17, 18, 23], 10).edges.tolist() == [18.0, 21.0]
    assert quantile([1.0, np.nextafter(1.0, 2)], 10).edges.tolist() == [np.nextafter(1.0, 2)]
    assert quantile([-1.7e308, 1.7e308], 10).edges.tolist() == [0.0]


def test_many_values_are_shared_evenly() -> None:
    values = np.random.default_rng(0).permutation(10_000).astype(float)
    counts = np.bincount(quantile(values, 10).find(values))
    assert counts.tolist() == [1000] * 10


def test_a_heavy_value_gets_a_bin_of_its_own_and_the_rest_is_shared() -> None:
    light = np.arange(1, 901, dtype=float)
    values = np.concatenate([np.zeros(9_100), light])
    bins = quantile(values, 10)
    counts = np.bincount(bins.find(values))
    assert bins.single[0] == 0
    assert counts.tolist() == [9_100] + [100] * 9


def test_a_heavy_value_in_the_middle_stands_alone() -> None:
    values = np.concatenate([np.arange(100), np.full(500, 100), np.arange(101, 501)]).astype(float)
    bins = quantile(values, 6)
    heavy = bins.find(np.array([100.0]))[0]
    assert bins.single[heavy] == 100
    assert np.bincount(bins.find(values)).tolist() == [100, 500, 100, 100, 100, 100]


def test_heavy_values_without_room_between_them_share_with_light_neighbours_only() -> None:
    heavy = np.arange(0, 20, 2)  # ten, each between two light ones: 21 bins would be needed
    values = np.concatenate([np.repeat(heavy, 50), np.arange(-1, 21, 2)]).astype(float)
    bins = quantile(values, 12)
    assert bins.size <= 12
    assert len(set(bins.find(heavy.astype(float)).tolist())) == 10
    assert np.bincount(bins.find(values)).max() <= 52


def test_labels_name_single_values_and_half_open_ranges() -> None:
    bins = Bins(np.array([17.0, 23.0, 24.0]), 3.0, 90.0, np.array([np.nan, np.nan, 23.0, np.nan]))
    assert bins.labels() == ["< 17", "[17, 23)", "23", ">= 24"]
    assert quantile([5.0, 5.0], 4).labels() == ["5"]


@given(st.lists(st.integers(-60, 60).map(float), min_size=2, max_size=50), st.integers(2, 15))
def test_uniform_bins_are_those_of_scikit_learn_on_scaled_values(values: list[float], n: int) -> None:
    """Integers fall on edges, so the rounding of the scaled values has to be the same too."""
    x = np.array(values)
    if x.min() == x.max():
        return
    scaled = MinMaxScaler().fit_transform(x[:, None])
    expected = KBinsDiscretizer(n, encode="ordinal", strategy="uniform", subsample=None).fit_transform(scaled)
    assert uniform_bins(low=x.min(), high=x.max(), bins=n).find(x).tolist() == expected[:, 0].astype(int).tolist()


def test_uniform_bins_are_those_of_pandas_cut() -> None:
    x = np.random.default_rng(1).normal(size=2_000)
    x = (x - x.min()) / (x.max() - x.min())
    expected = pd.cut(x, 10, labels=False)
    assert uniform_bins(low=x.min(), high=x.max(), bins=10).find(x).tolist() == expected.tolist()


def test_uniform_bins_take_what_lies_outside_into_the_end_bins() -> None:
    bins = uniform_bins(low=0.0, high=10.0, bins=5)
    assert bins.find(np.array([-1e9, -0.1, 0, 1.9, 2.1, 9.9, 10, 11, 1e300])).tolist() == [0, 0, 0, 0, 1, 4, 4, 4, 4]
    np.testing.assert_allclose(bins.edges, [2, 4, 6, 8], rtol=1e-15)


@pytest.mark.parametrize("n", [2, 10, 255])
def test_a_constant_column_is_one_uniform_bin(n: int) -> None:
    bins = uniform_bins(low=3.0, high=3.0, bins=n)
    assert bins.size == 1
    assert bins.labels() == ["3"]


def test_a_column_without_values_has_no_bins() -> None:
    nothing = np.empty(0)
    assert quantile_bins(nothing, low=np.inf, high=-np.inf, max_bins=9).size == 0
    assert uniform_bins(low=np.inf, high=-np.inf, bins=9).size == 0
    assert uniform_bins(low=np.inf, high=-np.inf, bins=9).labels() == []


def sample_of(pieces: list[np.ndarray], size: int, seed: int = 0) -> Sample:
    sample = Sample(seed=[seed], size=size)
    for piece in pieces:
        sample.add(piece)
    return sample


def test_a_sample_that_is_large_enough_holds_every_value() -> None:
    values = np.random.default_rng(0).normal(size=100)
    assert sorted(sample_of(np.split(values, [10, 60]), 100).values()) == sorted(values)


@given(st.lists(st.integers(0, 200), max_size=6))
def test_a_sample_does_not_depend_on_the_batches(cuts: list[int]) -> None:
    values = np.arange(200.0)
    whole = sample_of([values], 20)
    pieces = sample_of(np.split(values, sorted(cuts)), 20)
    assert sorted(pieces.values()) == sorted(whole.values())
    assert (pieces.low, pieces.high) == (0, 199)


def test_a_sample_is_uniform_and_depends_on_the_seed() -> None:
    values = np.arange(1_000.0)
    samples = [sample_of(np.split(values, 10), 50, seed).values() for seed in range(200)]
    assert all(len(np.unique(sample)) == 50 for sample in samples)
    drawn = np.bincount(np.concatenate(samples).astype(int), minlength=1_000).reshape(10, 100).sum(1)
    assert abs(drawn - 1_000).max() < 120  # 4 standard deviations of a count of 1,000 in 10,000
    assert len({tuple(sorted(sample)) for sample in samples}) == 200


def test_numeric_columns_take_every_spelling_of_numbers() -> None:
    encoder = fit(table(x=[1, 2, 3, 4]))
    for column in (
        pa.array([2, None, 4], pa.int16()),
        pa.array([2.0, float("nan"), 4.0]),
        pa.array(["2", "", " 4 "]),
        pa.array(["2.0", None, "4e0"], pa.string_view()),
        pa.array(["2", None, "4"]).dictionary_encode(),
        pa.array([2, None, 4]).dictionary_encode(),
        pa.array([2, None, 4], pa.decimal128(5, 1)),
    ):
        assert labels(encoder, table(x=column)) == ["2", "missing", "4"], column.type


def test_durations_are_seconds_in_whatever_unit() -> None:
    encoder = fit(table(x=pa.array([1_000, 2_000, 3_000], pa.duration("ms"))))
    assert labels(encoder, table(x=pa.array([2_000_000, None], pa.duration("us")))) == ["2", "missing"]
    assert labels(fit(table(x=pa.array([5, 9], pa.time32("s")))), table(x=pa.array([9], pa.time32("s")))) == ["9"]


def test_uniform_bins_and_their_edges() -> None:
    encoder = fit(table(x=[0.0, 10.0]), numeric="uniform", max_bins=5)
    edges = encoder.bin_edges(0)
    assert edges is not None
    np.testing.assert_allclose(edges, [0, 2, 4, 6, 8, 10])
    assert labels(encoder, table(x=[-5.0, 3.0, 99.0])) == ["< 2", "[2, 4)", ">= 8"]


def test_quantile_edges_run_from_the_smallest_to_the_greatest_value() -> None:
    encoder = fit(table(x=[1.5, 2.0, 4.0], s=["a", "b", "c"]))
    edges = encoder.bin_edges(0)
    assert edges is not None
    assert edges.tolist() == [1.5, 1.75, 3.0, 4.0]
    assert encoder.bin_edges(1) is None


def test_scaled_columns_are_one_feature_with_a_value() -> None:
    encoder = fit(table(x=[10.0, 20.0, None], s=["a", "b", "c"]), numeric="scaled")
    assert encoder.fields[0].kind == "scaled"
    assert not encoder.fields[0].ordered
    assert encoder.feature_names(0) == ["unknown", "missing", "value"]
    batch = encoder.transform(table(x=[10.0, 12.5, 30.0, None], s=["a"] * 4))
    assert batch.ids[:, 0].tolist() == [2, 2, 2, 1]
    assert batch.values is not None
    assert batch.values.tolist() == [[0, 1], [0.25, 1], [2, 1], [1, 1]]
    assert batch.values.dtype == torch.float32


def test_a_constant_scaled_column_has_the_value_0() -> None:
    batch = fit(table(x=[3, 3]), numeric="scaled").transform(table(x=[3, 8, None]))
    assert batch.values is not None
    assert batch.values[:, 0].tolist() == [0, 0, 1]


def test_beyond_the_sample_the_bins_depend_on_the_seed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.data.codecs.numeric.SAMPLE_SIZE", 200)
    data = table(x=np.random.default_rng(0).normal(size=5_000))
    schema = infer(data, max_bins=50)

    def edges(seed: int, rows: int) -> list[float]:
        found = Encoder.fit(schema, data.to_batches(max_chunksize=rows), seed=seed).bin_edges(0)
        assert found is not None
        return list(found)

    assert edges(0, 5_000) == edges(0, 17)
    assert edges(0, 17) != edges(1, 17)
    assert edges(1, 17)[0] == data["x"].to_numpy().min()
    assert len(edges(1, 17)) == 51


def test_uniform_10_bins_of_adult_like_columns() -> None:
    """Education years 1 to 16 and hours 1 to 99 in ten bins, where 4, 10 and 50 lie on edges, as scikit-learn cuts."""
    years, hours = np.arange(1, 17), np.arange(1, 100)
    encoder = Encoder.fit(
        infer(table(years=years, hours=hours[:16]), numeric="uniform", max_bins=10),
        [pa.RecordBatch.from_pydict({"years": np.resize(years, 99), "hours": hours})],
    )
    batch = encoder.transform(table(years=years, hours=np.resize([1, 10, 11, 50, 51, 99], 16)))
    assert (batch.ids[:, 0] - 2).tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 8, 8, 9, 9]
    assert (batch.ids[:6, 1] - encoder.fields[1].start - 2).tolist() == [0, 0, 1, 5, 5, 9]
