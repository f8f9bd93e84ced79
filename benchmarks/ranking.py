"""Time ranking many items for one context beside scoring the joined rows, on one core (docs/ranking.md).

Three parts, each in one run with what it is compared with:
- a table of the shape of MovieLens-100k (943 users, 1,682 films, made up): a whole request, from a dict to a ranking;
- 30 context and 10 item fields of dim 16: a candidate, by presets, where items share their values and where none does;
- what a request costs by the number of distinct values among the candidates, attention and plain pairs apart.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import attfm
from attfm.config import ModelConfig
from attfm.data.batch import Batch, FieldFeatures
from attfm.model.modules import FactorizationMachine
from attfm.ops import native_info
from attfm.ops.ranking import rank_logits
from attfm.serve.ranking.item_table import ItemTable
from attfm.serve.ranking.two_sided import Sides, TwoSidedMachine
from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/ranking.md"
USERS, FILMS, GENRES, RATINGS = 943, 1682, 19, 20_000
CONTEXT, ITEM, DIM = 30, 10, 16
# Distinct values of the item's fields: an id that each candidate has for itself, and fields that items share.
SHARED = (None, 2000, 500, 200, 100, 50, 30, 20, 10, 5)


def median(call: Callable[[], object], seconds: float) -> float:
    """Return the median time of a call, in seconds."""
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < stop:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def films(rng: np.random.Generator) -> pa.Table:
    """Return the films: an id, one to three genres, a year."""
    genres = [[f"genre {g}" for g in rng.choice(GENRES, rng.integers(1, 4), replace=False)] for _ in range(FILMS)]
    years = rng.integers(1922, 1999, FILMS)
    return pa.table({"film": [f"film {n}" for n in range(FILMS)], "genres": genres, "year": years})


def ratings(items: pa.Table, rng: np.random.Generator) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Return who rated which film, and whether it was liked."""
    users = np.minimum(rng.geometric(1 / 250, RATINGS), USERS) - 1
    rated = np.minimum(rng.geometric(1 / 300, RATINGS), FILMS) - 1
    person = {
        "user": [f"user {n}" for n in users],
        "age": 10 + users * 7 % 60,
        "gender": np.where(users % 3, "M", "F"),
        "occupation": [f"occupation {n % 21}" for n in users],
        "zip": [f"{n % 100:02}" for n in users],
    }
    liked = ((users % 7) * (rated % 5) + rng.normal(0, 4, RATINGS) > 6).astype(np.int64)
    return pa.table(
        {**person, **{name: items.column(name).take(pa.array(rated)) for name in items.schema.names}}
    ), liked


def request(seconds: float) -> list[list[str]]:
    """Return a line for each preset: a whole request on the shape of MovieLens-100k."""
    rng = np.random.default_rng(0)
    items = films(rng)
    X, y = ratings(items, rng)
    lines = []
    for preset in ("nested", "fwfm"):
        model = attfm.AFMClassifier(preset=preset, epochs=1).fit(X, y)
        ranker = model.ranker(item=["film", "genres", "year"])
        catalogue = ranker.catalogue(items, key="film")
        contexts = X.select(ranker.context).slice(0, 200).to_pylist()
        for one in contexts:
            ranker.rank(one, catalogue)
        seen, new = itertools.cycle(contexts), itertools.count()
        known = median(lambda: ranker.rank(next(seen), catalogue), seconds)  # noqa: B023
        unknown = median(lambda: ranker.rank({**contexts[0], "user": f"new {next(new)}"}, catalogue), seconds)  # noqa: B023
        context = X.select(ranker.context).slice(0, 1)
        joined = items
        for name in ranker.context:
            joined = joined.append_column(name, pa.array(context.column(name).to_pylist() * FILMS))
        encoded = model.model_.encoder.transform(joined)
        scored = median(lambda: model.model_.logits_of(encoded), seconds)  # noqa: B023
        frame = median(lambda: model.predict_proba(joined), seconds)  # noqa: B023
        error = np.abs(ranker.logits(context, catalogue) - model.model_.logits_of(encoded)).max()
        memory = getattr(model.model_.module, "memory", None)
        remembered = 0 if memory is None else len(memory.pairs)
        lines.append(
            [
                f"`{preset}`, {remembered} field pairs remembered", f"{1e3 * known:.2f}", f"{1e3 * unknown:.2f}",
                f"{1e3 * scored:.2f}", f"{1e3 * frame:.1f}", f"{error:.0e}",
            ]
        )  # fmt: skip
    return lines


def update(seconds: float) -> str:
    """Return a sentence: what an update of a large catalogue takes beside a new one."""
    rng = np.random.default_rng(0)
    X, y = ratings(films(rng), rng)
    ranker = attfm.AFMClassifier(epochs=1).fit(X, y).ranker(item=["film", "genres", "year"])
    many = pa.concat_tables([films(rng)] * 60).slice(0, 100_000)
    start = time.perf_counter()
    catalogue = ranker.catalogue(many)
    built = time.perf_counter() - start
    ten, numbers = many.slice(0, 10), itertools.count(50)
    added = median(lambda: catalogue.add(ten), seconds)
    changed = median(lambda: catalogue.change(ten, keys=range(first := next(numbers), first + 10)), seconds)
    removed = median(lambda: catalogue.remove([next(numbers) + 1000]), seconds)
    milliseconds = [f"{1e3 * taken:.1f}" for taken in (added, changed, removed)]
    return (
        f"A catalogue of {len(many):,} items is prepared in {built:.2f} s. Ten items are added in {milliseconds[0]} "
        f"ms and changed in {milliseconds[1]} ms, and one is removed in {milliseconds[2]} ms."
    )


def candidate(preset: str, shared: bool, n: int, attention_dim: int, seconds: float) -> list[str]:
    """Return a line: what a candidate costs with 30 context and 10 item fields, beside a joined row."""
    rng, each = np.random.default_rng(0), 100
    values = [n if size is None or not shared else size for size in SHARED]
    sizes = [each] * CONTEXT + values
    starts = np.cumsum([0, *sizes[:-1]])
    formula = {"preset": preset, "dim": DIM, "attention_dim": attention_dim}
    machine = FactorizationMachine(sum(sizes), CONTEXT + ITEM, 1, ModelConfig.parse(formula, where="the benchmark"))
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.normal_(0, 0.3)
    two_sided = TwoSidedMachine(machine, Sides(np.arange(CONTEXT), np.arange(CONTEXT, CONTEXT + ITEM)))
    columns = [rng.permutation(n) if size == n else rng.integers(0, size, n) for size in values]
    items = np.stack(columns, axis=1) + starts[CONTEXT:]
    context = (rng.integers(0, each, CONTEXT) + starts[:CONTEXT]).astype(np.int32)
    held = ItemTable([two_sided], [False] * ITEM)
    view = held.view(held.append(Batch(torch.from_numpy(items.astype(np.int32)))))
    features = [FieldFeatures(context[f : f + 1]) for f in range(CONTEXT)]
    joined = Batch(torch.from_numpy(np.hstack([np.tile(context, (n, 1)), items.astype(np.int32)])))

    def ranked() -> np.ndarray[Any, Any]:
        of_context = two_sided.context(features)
        return rank_logits(two_sided.network, two_sided.memory, of_context, view.parts[0], view.candidates)

    error = np.abs(ranked() - machine.predict(joined).numpy()).max()
    ours, theirs = median(ranked, seconds) / n, median(lambda: machine.predict(joined), seconds) / n
    entries = len(view.candidates.listed) / n  # type: ignore[arg-type]
    hidden = f", attention_dim {attention_dim}" if machine.config.attention else ""
    return [
        f"`{preset}`{hidden}", f"{n:,}", f"{entries:.1f}", f"{1e6 * ours:.2f}", f"{1e6 * theirs:.2f}",
        f"{theirs / ours:.1f}", f"{error:.0e}",
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each case")
    parser.add_argument("--docs", action="store_true", help="write the result into docs/ranking.md")
    options = parser.parse_args()
    if not native_info()["available"]:
        print("attfm was installed without its compiled kernels: nothing to measure.", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    head = [
        f"a request for {FILMS:,} films, top 20", "ranker, ms (to reach: below 2)", "a user never seen, ms",
        "joined rows from ids, ms", "`predict_proba` of the joined table, ms", "difference",
    ]  # fmt: skip
    shapes = [
        ("nested", True, 10_000, 16), ("nested", True, 1000, 16), ("paper", True, 10_000, 16),
        ("nested", False, 10_000, 16), ("nested", False, 10_000, 8), ("nested", False, 10_000, 64),
        ("fwfm", True, 10_000, 16), ("fwfm", False, 10_000, 16), ("fm", False, 10_000, 16),
    ]  # fmt: skip
    per_candidate = [
        "formula", "candidates", "distinct values a candidate", "ranker, µs a candidate (to reach: 1.2)",
        "`ops.score`, µs a joined row", "times as fast (to reach: 2.5)", "difference",
    ]  # fmt: skip
    requests, updates, peak = request(options.seconds), update(options.seconds / 4), _peak()
    lines = [candidate(*shape, options.seconds) for shape in shapes]
    taken = [(of[3], float(line[3])) for of, line in zip(shapes, lines, strict=True) if of[0] == "nested" and not of[1]]
    text = (
        f"{table(head, requests)}\n\n{updates}\n\n{CONTEXT} context and {ITEM} item fields, dim {DIM}:\n\n"
        f"{table(per_candidate, lines)}\n\n"
        f"{_bound(peak, taken)}\n\n{circumstances(1)}"
    )
    print(text)
    if options.docs:
        write_section("ranking", text, PAGE)
    return 0


def _bound(peak: float, taken: list[tuple[int, float]]) -> str:
    """Return a sentence: the least time that the network's multiply-adds take, and how near to it the ranker is.

    taken : attention_dim, and µs a candidate, where no two candidates share a value
    """
    lines = []
    for attention_dim, microseconds in taken:
        least = CONTEXT * ITEM * DIM * attention_dim / peak / 1e3
        lines.append(f"{least:.2f} µs at attention_dim {attention_dim} ({least / microseconds:.0%} of the time taken)")
    pairs = CONTEXT * ITEM
    return (
        f"This core does {peak:.0f} thousand million multiply-adds a second in registers. Where no two candidates "
        f"share a value, those of the attention network in {pairs} pairs alone take at least {', '.join(lines)}."
    )


def _peak() -> float:
    from attfm.ops import cpu

    steps = 5_000_000
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = cpu.compiled.peak(steps)
        seconds.append(time.perf_counter() - start)
    return float(done / 2 / min(seconds) / 1e9)


if __name__ == "__main__":
    sys.exit(main())
