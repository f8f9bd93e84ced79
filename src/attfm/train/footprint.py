"""What a training holds at a time: bytes of memory and of disk, from the numbers of its rows, features and pairs."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attfm.data.cache import BUFFER_BLOCKS
from attfm.data.codecs.codec import Field
from attfm.data.column_file import smallest_type
from attfm.data.rows_writer import BLOCK_ROWS
from attfm.data.sources.source import MOST_KEPT_BYTES
from attfm.explain.summary import STORED_SURFACES
from attfm.train.streamed_statistics import OF_PAIR_CELL, pairs_at_once

# Bytes, as peaks of `attfm train` have them beside what is counted one by one (docs/scaling.md).
_WORK = 130_000_000  # of batches that are read and encoded, and of what is imported while it is done
_READING = 220_000_000  # while a table is encoded to disk: what Arrow has read, and what columns are found by
_OF_EFFECT = 5  # of each pair effect that the summary is made of
_OF_SCREENED = 1_500  # of each row that pairs are screened on
_OF_ROW = 60  # labels, weights, folds, row numbers, logits
_OF_RATED, _OF_COMPOSED = 40, 14  # of each feature of a training row that has a rate, and of each feature
_OF_REMEMBERED = 400  # of a training row, while the bins of one pair are found
_OF_CELL = 60  # of a value in one fold
_OF_KNOWN = 100  # of a value pair that is remembered
_OF_EARLIER, _OF_PULL = 56, 32  # of a feature that an earlier machine knows, and of a row of its tables
_OF_TEXT, _LEARNED_TEXT = 6, 4  # times the bytes of the vocabulary as it is stored: while it is learned, and then
_SUMMARY_EFFECTS, _SUMMARY_MEANS, MOST_CELLS = 12_000_000, 1 << 22, 4096  # as attfm.explain bounds them
_OF_MEAN = 10
_COPIES, _LAZY_COPIES = 8, 7  # of V and w: values, gradient, two moments, average, best, the machine that is scored


@dataclass(frozen=True)
class Load:
    """What a training has to hold.

    train, valid, test : rows of each part
    fields, outputs, dim : of the model; dim 0: without pairs
    features, table_rows : ids of the encoder; rows of V, with those of rates
    entries, rated : features of a row, and those of them that have rates
    pairs, known : field pairs that are remembered, and their value pairs
    levels : features of the fields of those pairs
    cells, pair_cells : values of the fields with rates in each fold, and those of the largest of the remembered pairs
    surface : mean number of cells of a pair, as far as the summary keeps them
    vocabulary : bytes of the encoder file
    table_bytes : of the columns as Arrow has them
    models : that are kept
    lazy : whether tables are moved row by row
    begun : machines that learn on, 0: none does
    """

    train: int
    valid: int
    test: int
    fields: int
    outputs: int
    dim: int
    features: int
    table_rows: int
    entries: float
    rated: float
    pairs: int
    known: int
    levels: int
    cells: int
    pair_cells: int
    surface: float
    vocabulary: int
    table_bytes: int
    models: int = 1
    lazy: bool = False
    begun: int = 0

    @property
    def rows(self) -> int:
        """Of all parts."""
        return self.train + self.valid + self.test

    @property
    def tables(self) -> int:
        """Bytes of V and w."""
        return 4 * self.table_rows * (self.dim + self.outputs)

    @property
    def earlier(self) -> int:
        """Bytes of what is held of machines that learn on, and of the pull to where the parameters began."""
        each = 3 * self.tables + _OF_KNOWN * self.known + _OF_EARLIER * self.features
        return self.begun * each + (self.tables + _OF_PULL * self.table_rows if self.begun else 0)

    @property
    def bins(self) -> int:
        """Bytes of the bins of remembered pairs in a row."""
        return (self.outputs + 1) * self.pairs

    @property
    def summary(self) -> int:
        """Pair effects that are held while the model is summarised."""
        effects = self.fields * (self.fields - 1) // 2 * self.outputs if self.dim else self.fields
        return int(min(min(self.train, 50_000) * effects, max(_SUMMARY_EFFECTS, 1_000 * effects)))

    @property
    def means(self) -> int:
        """About how many conditional means of pairs the summary keeps."""
        return min(_SUMMARY_MEANS, self.features * max(self.fields - 1, 0)) * self.outputs if self.dim else 0


def memory_at_peak(load: Load, base: int, *, streamed: bool) -> int:
    """Return about how many bytes of memory a training takes at its peak; base : what the process has before it."""
    ids = int(4 * load.entries + (8 * load.fields if load.entries > load.fields else 0))
    learned = _LEARNED_TEXT * load.vocabulary
    screened = _OF_SCREENED * min(load.train, 50_000) if load.dim and load.fields > 1 else 0
    if streamed:
        held = 0
        rows_at_once = min(load.train, BUFFER_BLOCKS * BLOCK_ROWS)
        statistics = _OF_CELL * load.cells + pairs_at_once(load.train) * OF_PAIR_CELL * load.pair_cells
        batches = int(2 * rows_at_once * (ids + load.bins + 12))
        encoding = _READING + _OF_TEXT * load.vocabulary
    else:
        held = load.rows * (ids + _OF_ROW)
        kept = load.table_bytes if load.table_bytes <= MOST_KEPT_BYTES else 0
        encoding = _OF_TEXT * load.vocabulary + load.rows * ids + kept
        composing = int(load.train * (_OF_RATED * load.rated + _OF_COMPOSED * load.entries))
        remembering = load.train * ((_OF_REMEMBERED + 16 * load.fields) if load.pairs else 0)
        statistics = max(composing, remembering + 4 * int(load.train * load.entries))
        batches = int(load.train * (4 * load.entries + load.bins) + load.valid * load.bins)
    copies = (_LAZY_COPIES if load.lazy else _COPIES) + load.models - 1
    remembered = _OF_KNOWN * load.known
    training = learned + batches + copies * load.tables + remembered
    summary = _OF_EFFECT * load.summary + _OF_MEAN * load.means
    phases = (
        encoding,
        learned + max(statistics, screened) + remembered // 2,
        training,
        learned + (0 if streamed else batches) + load.tables * (1 + load.models) + remembered + summary,
    )
    return base + _WORK + load.earlier + held + max(phases)


def bytes_of_cache(load: Load, sizes: Sequence[int], fields: Sequence[Field], entries: Sequence[float],
                   *, classes: int | None, weighted: bool, valued: Sequence[bool] = ()) -> int:  # fmt: skip
    """Return the bytes of the rows in the cache, and of what it knows of them.

    Parameters
    ----------
    sizes, entries : of each field its number of features, and how many a row has
    classes : of the target, None of a regression
    valued : of each field whether its features have values
    """
    of_row = 8 if classes is None else smallest_type(classes).itemsize
    of_row += 4 if weighted else 0
    features = 0.0
    for size, number, has_values in zip(sizes, entries, valued or [False] * len(sizes), strict=True):
        features += number * (smallest_type(max(size - 1, 1)).itemsize + (4 if has_values else 0))
        features += 4 if number != 1 else 0
    known = 3 * (load.features + 8 * sum(size for size, f in zip(sizes, fields, strict=True) if f.ordered))
    numbered = 8 * (load.valid + load.test) + load.train  # row numbers, and folds
    return int(load.rows * (of_row + features)) + numbered + known + load.vocabulary


def bytes_of_statistics(load: Load) -> int:
    """Return the bytes beside the cache while a training that reads it runs: composed ids, and bins of pairs."""
    return int(load.train * (4 * load.rated + load.bins) + load.valid * load.bins)


def bytes_of_run(load: Load, *, exact: bool) -> int:
    """Return the bytes of the run folder; exact : whether the number of value pairs is known, and not estimated."""
    weights = 4 * load.features * (load.dim + load.outputs) * load.models
    # A power of two between twice and four times the value pairs: about 2.9 times where their number is not known.
    slots = (1 << (2 * load.known).bit_length() if exact else int(2.9 * load.known)) if load.known else 0
    shapes = load.features * (16 + 8 * load.outputs)
    surfaces = min(STORED_SURFACES, load.fields * (load.fields - 1) // 2) if load.dim else 0
    cells = int(surfaces * load.surface * (24 + 8 * load.outputs))
    # Sums over the rows of each feature that has a rate, each level of a remembered pair's fields, and each value pair.
    column = 8 * (load.outputs + 2)
    sums = load.features * (4 + column * (load.rated > 0)) + column * load.levels + load.known * (16 + column)
    return (
        weights
        + slots * (12 + 4 * load.outputs)
        + load.vocabulary
        + 8 * load.means
        + shapes
        + cells
        + sums * load.models
    )


def bytes_of_checkpoints(load: Load) -> int:
    """Return the bytes of the two checkpoints that are kept: parameters, moments, average and best of each."""
    return 2 * 5 * load.tables


def memory_now() -> int:
    """Return the bytes of memory that the process has; a usual value where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def grown(of_quarter: float, of_half: float, whole: float, times: float) -> float:
    """Return how many distinct values there are in `times` as many rows as `whole` were counted in.

    Heaps' law, D = K · rows^β, with an exponent that falls: from the doubling of a quarter of the rows to that of a
    half by a factor, to the next by its square, then by its cube. An id column that is known soon does not grow for
    ever; one in which each row has a value of its own does.
    """
    if times <= 1 or whole <= of_half or of_half <= of_quarter or of_quarter <= 0:
        return whole
    before, exponent = float(np.log2(of_half / of_quarter)), float(np.log2(whole / of_half))
    factor = min(exponent / before, 1.0)
    doublings, grows = float(np.log2(times)), 0.0
    for number in range(1, int(np.ceil(doublings)) + 1):
        exponent *= factor**number
        grows += exponent * min(doublings - number + 1, 1.0)
    return float(whole * 2.0**grows)
