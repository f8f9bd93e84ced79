"""Options that a command takes together, as one object: declared once, and told apart for typer."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from attfm.commands.engine_options import EngineOptions
from attfm.commands.export_options import ExportOptions
from attfm.commands.options import Debug, output_of, reading_of
from attfm.commands.service_options import ServiceOptions
from attfm.commands.training_options import ContinueOptions, TrainingOptions

_BUNDLES: Mapping[str, Callable[..., object]] = {
    "reading": reading_of, "output": output_of, "training": TrainingOptions, "continuing": ContinueOptions,
    "engine": EngineOptions, "exporting": ExportOptions, "service": ServiceOptions,
}  # fmt: skip


def signature_of(command: Callable[..., None]) -> inspect.Signature:
    """Return a command's options: its own, those of a bundle in place of its name, and --debug."""
    options: list[inspect.Parameter] = []
    for name, own in inspect.signature(command).parameters.items():
        options += inspect.signature(_BUNDLES[name]).parameters.values() if name in _BUNDLES else [own]
    options.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug))
    return inspect.Signature([option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options])


def arguments_of(command: Callable[..., None], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the command is called with: the options of `signature_of` but --debug, bundled."""
    arguments = dict(options)
    for name, bundle in _BUNDLES.items():
        if name in inspect.signature(command).parameters:
            arguments[name] = bundle(**{key: arguments.pop(key) for key in inspect.signature(bundle).parameters})
    return arguments
