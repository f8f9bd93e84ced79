import numpy as np

from attfm.data.texts import short_numbers


def test_labels_have_the_digits_that_tell_edges_apart() -> None:
    assert short_numbers(np.array([0.1, 1234567.5])) == ["0.1", "1.23457e+06"]
    assert short_numbers(np.array([1234567.0, 12345678.0])) == ["1234567", "12345678"]
    assert short_numbers(np.array([1.00000001, 1.00000002])) == ["1.00000001", "1.00000002"]
    assert short_numbers(np.array([1.0, np.nextafter(1.0, 2)])) == ["1.0", "1.0000000000000002"]


def test_whole_numbers_are_written_in_full() -> None:
    assert short_numbers(np.array([17.0, 1_484_705.0, -3.0])) == ["17", "1484705", "-3"]
    assert short_numbers(np.array([1e15])) == ["1e+15"]
