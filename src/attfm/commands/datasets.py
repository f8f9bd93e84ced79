"""`attfm datasets`: the tables that come with the package."""

from attfm.commands.console import Output
from attfm.data.datasets import DATASETS


def datasets(*, output: Output) -> None:
    """Print the bundled tables."""
    rows = [(d.name, f"{d.rows:,}", d.target, d.about) for d in DATASETS.values()]
    output.result_table(("name", "rows", "target", "what it is"), rows, right=(1,))
    output.result_lines("", *dict.fromkeys(f"licence: {d.licence}" for d in DATASETS.values()))
    output.result_lines("", "next:  attfm train adult")
    told = ("name", "rows", "target", "about", "licence", "path")
    output.result_json({"datasets": [{name: getattr(d, name) for name in told} for d in DATASETS.values()]})
