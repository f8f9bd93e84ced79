"""`attfm reproduce`: a published protocol beside attfm's defaults, in one table."""

from attfm.commands.console import Output, duration, number, uninterrupted
from attfm.commands.folders import NewFolder
from attfm.model.run_folder import save_model
from attfm.reproduce import adult
from attfm.train.observer import FitProgress

METRICS = ("accuracy", "auc", "precision", "recall", "log_loss")


def reproduce(*, epochs: int | None, numeric: adult.Numeric, seed: int | None, out: str | None, output: Output) -> None:
    """Run the protocol on Adult; see `attfm.cli.reproduce` for the options."""
    variants = adult.adult_variants(epochs=epochs, numeric=numeric, seed=seed or 0)

    def progress(variant: adult.Variant) -> FitProgress:
        output.say(f"{variant.title}: {variant.about}")
        return FitProgress(variant.config.train.epochs, show=not output.quiet)

    rows: list[adult.Row] = []
    with NewFolder(out, stem="reproduce-adult") as folder:
        for row in adult.reproduce_adult(variants, progress=progress):
            with uninterrupted():
                save_model(row.model, folder.path / row.variant.name)
            rows.append(row)
        size = rows[0].figures
        output.result_lines(
            f"protocol: {size.features} features, {size.fields} fields, sparsity {size.sparsity:.4f} "
            "(encoded on all rows, test rows too, as the write-up did)",
            "",
        )
        output.result_table(*_table(rows), right=range(2, 9))
        output.result_lines("", f"time: {duration(output.seconds)}", f"saved: {folder.path}")
        output.result_json({
            "run": str(folder.path),
            "features": size.features, "fields": size.fields, "sparsity": round(size.sparsity, 6),
            "rows": [
                {
                    "name": row.variant.title, "about": row.variant.about, "run": str(folder.path / row.variant.name),
                    "epochs": row.model.facts.epochs, "seconds": row.model.facts.seconds, "metrics": row.model.metrics,
                }
                for row in rows
            ],
            "write_up": {
                "test": dict(adult.WRITE_UP), "epochs": adult.WRITE_UP_EPOCHS, "seconds": adult.WRITE_UP_SECONDS,
            },
            "seconds": output.seconds,
        })  # fmt: skip


def _table(rows: list[adult.Row]) -> tuple[list[str], list[list[str]]]:
    header = ["model", "part", *(name.replace("_", " ") for name in METRICS), "epochs", "seconds"]
    lines = []
    for row in rows:
        facts = row.model.facts
        for part, values in row.model.metrics.items():
            ends = [str(facts.epochs), f"{facts.seconds:.1f}"] if part == "test" else ["", ""]
            lines.append([row.variant.title, part, *(number(values[name]) for name in METRICS), *ends])
    published = [f"{adult.WRITE_UP[name]:.3f}" if name in adult.WRITE_UP else "-" for name in METRICS]
    ends = [str(adult.WRITE_UP_EPOCHS), f"{adult.WRITE_UP_SECONDS:.1f}"]
    lines.append(["the write-up itself", "test", *published, *ends])
    return header, lines
