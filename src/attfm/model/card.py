"""The model card: the README.md of a run folder."""

from collections.abc import Sequence

from attfm.model.bundle import Model


def _cell(text: object) -> str:
    """Return text that can't break out of a Markdown table cell or turn into HTML."""
    flat = " ".join(str(text).split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")


def _table(header: list[str], rows: Sequence[Sequence[object]]) -> str:
    lines: list[Sequence[object]] = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def model_card(model: Model) -> str:
    """Return the card as Markdown: what the model predicts, from what, how well, and how to use it."""
    settings = model.config
    parts = {part: list(values) for part, values in model.metrics.items()}
    names = list(dict.fromkeys(name for values in parts.values() for name in values))
    figures = [
        [part, *(f"{values[name]:.4f}" if values.get(name) is not None else "-" for name in names)]
        for part, values in model.metrics.items()
    ]
    classes = f" with the classes {', '.join(_cell(c) for c in model.task.class_names)}" if model.target.classes else ""
    lines = [
        f"# Model of {_cell(model.target.name)}",
        "",
        f"An attentional factorization machine (preset `{settings.model.preset}`), {model.task.name} task{classes}.",
        "",
        "## Figures",
        "",
        _table(["part", *names], figures) if figures else "None were measured.",
        "",
        "## Training",
        "",
        *(f"- {_cell(name.replace('_', ' '))}: {_cell(value)}" for name, value in model.facts.known().items()),
        *([] if settings.train.split is None else [f"- rows are held out by {_cell(settings.train.split)}"]),
        f"- embedding size {settings.model.dim}, attention size {settings.model.attention_dim}, "
        f"seed {settings.train.seed}; all settings are in config.json",
        "",
        "## Columns",
        "",
        _table(
            ["column", "kind", "type", "why"], [[f.name, f.kind, f.arrow_type, f.reason] for f in model.schema.columns]
        ),
        "",
        "## Use",
        "",
        "    from attfm import load",
        '    model = load("FOLDER")',
        "    model.predict(table)",
        "",
        "or `attfm predict FOLDER data.csv -o scores.csv`.",
        "",
    ]
    return "\n".join(lines)
