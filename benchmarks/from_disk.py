"""Compare how fast rows are learned from when they are read from disk and when they are in memory.

    python -m benchmarks.from_disk --rows 500000 --columns 10 --docs

A table of made-up clicks (benchmarks.make_clicks) is encoded into a cache, with the statistics of its ids and pairs. Of
two trainers of the same rows one reads the cache, and one has all of it in memory. They take an epoch in turn, in one
process: what other programs do to the machine falls on both. The median of the ratios of such pairs is told.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from attfm.config import Config
from attfm.data.dataset import InMemoryDataset, gathered
from attfm.data.sources.source import open_source
from attfm.data.survey import StreamedTable
from attfm.train.inner_choice import for_rows
from attfm.train.statistics import enrich
from attfm.train.streamed import prepare_streamed
from attfm.train.trainer import Trainer, TrainingData
from benchmarks.machine import Neighbours
from benchmarks.make_clicks import PAIRS, make
from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/scaling.md"


def trainers(rows: int, columns: int, epochs: int, folder: Path) -> tuple[dict[str, Trainer], int]:
    """Return a trainer from disk and one from memory, and the number of features.

    columns : of the categorical ones, those of the last planted pairs, whose ids are many
    """
    make(folder / "clicks", rows, quiet=True)
    numbers = list(dict.fromkeys(number for pair in PAIRS[::-1] for number in pair))[:columns]
    names = ["click", *(f"c{number + 1}" for number in sorted(numbers))]
    files = [pq.read_table(file, columns=names) for file in sorted((folder / "clicks").glob("*.parquet"))]
    pq.write_table(pa.concat_tables(files), folder / "rows.parquet", row_group_size=100_000)
    source = open_source(str(folder / "rows.parquet"))
    settings = Config.parse({"train": {"epochs": epochs, "refit": False}})
    asked = StreamedTable(source, "click", None, 0.05, 0.05, 0, folder / "cache")
    prepared = prepare_streamed(asked, settings).prepared
    config = for_rows(prepared, settings)
    enriched = enrich(prepared.data, prepared.encoder, config)
    assert enriched is not None, "made-up clicks have ids of many values"
    disk = replace(enriched.data, valid=None)
    memory = replace(disk, train=InMemoryDataset(gathered(disk.train), given=disk.train.statistics))

    def trainer(data: TrainingData) -> Trainer:
        torch.manual_seed(0)
        machine = enriched.machine(len(prepared.encoder.fields), 1, config.model.of_task("binary"))
        return Trainer(machine, data, config.train)

    return {"disk": trainer(disk), "memory": trainer(memory)}, prepared.encoder.n_features


def main() -> None:
    """Take epochs in turn, and print and write how fast they were."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.from_disk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--columns", type=int, default=10, help="categorical ones, up to 18")
    parser.add_argument("--epochs", type=int, default=8, help="pairs of epochs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/scaling.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        both, features = trainers(options.rows, options.columns, options.epochs, Path(folder))
        around, rates = Neighbours(), {name: list[float]() for name in both}
        for turn in range(options.epochs):
            for name in sorted(both, reverse=bool(turn % 2)):
                rates[name].append(both[name].run_epoch().rows_per_second)
        trained = len(both["disk"].data.train)
    ratios = [disk / memory for disk, memory in zip(rates["disk"], rates["memory"], strict=True)]
    share = around.share()
    line = [f"{trained:,} × {options.columns}", f"{features:,}", *(f"{median(rates[name]):,.0f}" for name in both)]
    line += [f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
    head = ["rows × columns", "features", "rows/s from disk", "in memory", "ratio of a pair of epochs, median"]
    others = "" if share is None else f", other programs used {100 * share:.0f} % of the processors"
    text = f"{circumstances(options.threads)}\n\n{table(head, [line])}\n\n{options.epochs} pairs of epochs{others}."
    print(text)
    if options.docs:
        write_section("from-disk", text, PAGE)


if __name__ == "__main__":
    main()
