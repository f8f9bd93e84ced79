"""Time both paths from ids, by row and by distinct pairs, and judge the choice between them (docs/performance.md).

Ten shapes, each with 20, 200 and 3,000 features a field (Zipf): from pairs that repeat to pairs that hardly do.
"""

import argparse
import os
import sys

import torch

from attfm.ops import cpu, distinct, native_info
from benchmarks.kernels import Step, take_times, zipf_ids
from benchmarks.pages import circumstances, table, write_section

SHAPES = [
    (4096, 3, 256, 8), (4096, 10, 64, 64), (4096, 20, 16, 64), (2048, 20, 32, 32), (1024, 14, 16, 150),
    (1024, 14, 16, 16), (4096, 10, 256, 256), (512, 14, 16, 48), (4096, 39, 16, 150), (4096, 6, 128, 16),
]  # fmt: skip
EACH = (20, 200, 3000)


def judge(shape: tuple[int, ...], each: int, seconds: float) -> tuple[list[str], float]:
    """Return a line of the table, and how many times longer than the faster path the chosen one takes."""
    batch, fields, dim, attention_dim = shape
    ids = zipf_ids([each] * fields, batch)
    step = Step(shape, ids, each * fields)
    ms = take_times({"row": lambda: step.from_ids(False), "pairs": lambda: step.from_ids(True)}, seconds)
    numbers = cpu.pair_numbers(None, fields)
    chosen = "pairs" if distinct.is_worth_it(ids, dim, attention_dim, numbers) else "row"
    loss = ms[chosen] / min(ms.values())
    share = f"{distinct.distinct_share(ids, numbers):.0%}"
    cells = [", ".join(map(str, shape)), f"{each:,}", share, f"{ms['row']:.2f}", f"{ms['pairs']:.2f}"]
    return [*cells, "distinct pairs" if chosen == "pairs" else "by row", "" if loss == 1 else f"{loss:.2f}"], loss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch and of the kernels")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each case")
    parser.add_argument("--docs", action="store_true", help="write the result into docs/performance.md")
    options = parser.parse_args()
    if not native_info()["available"]:
        print("attfm was installed without its compiled kernels: nothing to measure.", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    judged = [judge(shape, each, options.seconds) for shape in SHAPES for each in EACH]
    head = [
        "shape (batch, fields, dim, attention_dim)", "features a field", "distinct pairs", "by row, ms",
        "by distinct pairs, ms", "chosen", "times the faster",
    ]  # fmt: skip
    text = table(head, [line for line, _ in judged])
    losses = [loss for _, loss in judged]
    told = f"The faster path is chosen in {sum(x == 1 for x in losses)} of {len(losses)} cases; at worst the chosen "
    told += f"one takes {max(losses):.2f} times as long."
    print(f"{text}\n\n{told}")
    if options.docs:
        write_section("paths", f"{told} ({circumstances(options.threads)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
