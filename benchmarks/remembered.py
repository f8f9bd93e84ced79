"""Time scoring with a pair memory and without one, from encoded ids, in one run (docs/performance.md).

14 fields of 1,000 features each (Zipf), the default formula, 60 remembered field pairs, and the 400,000 value pairs
that some first rows have; other rows of the same table are scored, so that many of their value pairs are unknown.
"""

import argparse
import os
import sys
import time

import numpy as np
import torch
from torch import Tensor

from attfm.config import ModelConfig
from attfm.data.batch import Batch
from attfm.data.codecs.pairs import PairLevels
from attfm.model.memory import PairMemory
from attfm.model.modules import FactorizationMachine
from attfm.ops import all_pairs, native_info
from benchmarks.pages import circumstances, table, write_section
from benchmarks.training import zipf_ids

FIELDS, EACH, PAIRS = 14, 1000, 60
TO_REACH = 500_000


def memory_of(ids: Tensor, known: int) -> PairMemory:
    """Return a memory of about `known` value pairs, those of the first rows that have as many, with drawn effects."""
    levels = PairLevels(np.tile(np.arange(EACH, dtype=np.int32), FIELDS), np.full(FIELDS, EACH))
    keys = levels.keys(all_pairs(FIELDS).numpy().T[:PAIRS])
    own = levels.of_feature[ids.numpy()].astype(np.int64)
    first, second = keys.pairs.T
    every = keys.offset + own[:, first] * keys.width + own[:, second]
    new = np.sort(np.unique(every, return_index=True)[1])  # where each value pair comes for the first time
    rows = new[min(known, len(new)) - 1] // PAIRS + 1
    found, counts = np.unique(every[:rows], return_counts=True)
    rng = np.random.default_rng(0)
    return PairMemory.of(levels, keys, found, rng.normal(size=(len(found), 1)), counts, rng.normal(size=(PAIRS, 1)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch and of the kernels")
    parser.add_argument("--rows", type=int, default=200_000, help="rows scored at a time")
    parser.add_argument("--known", type=int, default=400_000, help="value pairs in the memory")
    parser.add_argument("--repeats", type=int, default=15, help="times that each is measured, in turn")
    parser.add_argument("--docs", action="store_true", help="write the result into docs/performance.md")
    options = parser.parse_args()
    if not native_info()["available"]:
        print("attfm was installed without its compiled kernels: nothing to measure.", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ids = zipf_ids([EACH] * FIELDS, 2 * options.rows)
    memory, scored = memory_of(ids[: options.rows], options.known), Batch(ids[options.rows :])
    module = FactorizationMachine(EACH * FIELDS, FIELDS, 1, ModelConfig())
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(options.repeats):
        for name, taken in seconds.items():
            module.memory = memory if name == "with" else None
            start = time.perf_counter()
            module.predict(scored)
            taken.append(time.perf_counter() - start)
    without, remembering = (options.rows / float(np.median(taken)) for taken in seconds.values())
    found = float((memory.look_up(scored.slice(0, 10_000))[1] > 0).mean())
    what = f"scoring encoded ids, {FIELDS} fields"
    text = table(
        ["what", "rows a second", "to reach"],
        [
            [f"{what}, without a pair memory", f"{without:,.0f}", ""],
            [
                f"{what}, {PAIRS} field pairs and {memory.size:,} value pairs remembered, {found:.0%} of the looked up",
                f"{remembering:,.0f} ({without / remembering:.2f} times the time)", f"{TO_REACH:,}",
            ],
        ],
    )  # fmt: skip
    print(text)
    if options.docs:
        write_section("remembered", f"{circumstances(options.threads)}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
