"""docs/benchmarks.md: the text stands there, the figures between markers are written from the measured lines."""

from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path

from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.records import SMALL_RESULTS, SPLITS_RESULTS, Record, read
from benchmarks.accuracy.summary import circumstances, costs_block, markdown, scores_block, verdict_block
from benchmarks.accuracy.tables import TABLES

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"


def tables_block() -> str:
    """Return what the tables are."""
    rows = [
        [name, f"{recipe.rows:,}", str(recipe.columns), (getdoc(recipe.read) or "").replace("\n", " ")]
        for name, recipe in TABLES.items()
    ]
    return markdown(["table", "rows", "columns", "what is predicted"], rows)


def models_block() -> str:
    """Return what the models are."""
    return markdown(["model", "what it is"], [[f"`{name}`", model.about] for name, model in MODELS.items()])


def write_page(records: Sequence[Record], page: Path = PAGE) -> None:
    """Write each section of the page anew."""
    from benchmarks.pages import write_section  # imports torch, which --summary can do without

    for name, text in (
        ("tables", tables_block()),
        ("models", models_block()),
        ("circumstances", circumstances(records)),
        ("scores", scores_block(records)),
        ("verdict", verdict_block(records)),
        ("costs", costs_block(records)),
        ("splits", scores_block(read(SPLITS_RESULTS))),
        ("small", scores_block(read(SMALL_RESULTS))),
    ):
        write_section(name, text, page)
