"""Modules trained on prepared rows: the one that is kept, and refits that show how far it can be trusted."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from attfm.config import Config, ModelConfig
from attfm.errors import ConfigError
from attfm.explain.background import sample_size
from attfm.explain.faithfulness import Refits
from attfm.explain.summary import is_of
from attfm.model.bundle import Model, build_module
from attfm.model.modules import FactorizationMachine
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared, Tables, prepare
from attfm.train.statistical_machine import StatisticalMachine
from attfm.train.statistics import enrich
from attfm.train.trainer import History, Trainer, choose_device, drawn_from, silence_unseen, start_at_base_rate

_SHARED_WITH_FM = ("intercept", "linear.weight", "embedding.weight")


@dataclass(frozen=True)
class Trained:
    """A trained module, its learning curve, the seconds that it took, and the refits that the settings ask for."""

    module: FactorizationMachine
    history: History
    seconds: float
    refits: tuple[FactorizationMachine, ...] = ()


def train(prepared: Prepared, config: Config, observer: Observer | None = None) -> Trained:
    """Return a module trained on prepared rows, and `n_bags` refits on bootstrap samples of its rows."""
    observer = Observer() if observer is None else observer
    started = time.perf_counter()
    module, history = train_module(prepared, config, observer)
    seconds = time.perf_counter() - started
    samples = (
        (seeded, prepared.trained_on(prepared.data.train.bootstrap(seeded.train.seed)))
        for seeded in reseeded(config, config.train.n_bags)
    )
    return Trained(module, history, seconds, _refits(samples, config.train.n_bags, observer))


def train_module(prepared: Prepared, config: Config, observer: Observer) -> tuple[FactorizationMachine, History]:
    """Return a module trained on prepared rows, and its learning curve; see `Trainer`."""
    encoder, target, settings = prepared.encoder, prepared.target, config.train
    choose_device(settings.device)  # where there is none of that name, or none at all, nothing is drawn from it first
    enriched = enrich(prepared.data, encoder, config)
    data = prepared.data if enriched is None else enriched.data

    def build(model: ModelConfig) -> FactorizationMachine:
        if enriched is None:
            return build_module(encoder, target, config.model_copy(update={"model": model}))
        return enriched.machine(len(encoder.fields), len(data.task.outputs), model)

    generator = torch.Generator().manual_seed(settings.seed)
    with drawn_from(generator):
        module = build(config.model)
        silence_unseen(module, data.train.statistics)
        start_at_base_rate(module, data.train.statistics, data.task, base_rate=settings.base_rate_start)
        first = None
        if settings.warm_start_from == "fm" and module.has_pairs:
            first = build(config.model.as_preset("fm"))
    if first is not None:
        first.load_state_dict(module.state_dict(), strict=False)
        Trainer(first, data, settings, generator=generator).run()
        module.load_state_dict({name: first.state_dict()[name] for name in _SHARED_WITH_FM}, strict=False)
    history = Trainer(module, data, settings, observer, generator).run()
    return module.folded() if isinstance(module, StatisticalMachine) else module, history


@torch.inference_mode(False)
@torch.enable_grad()  # in a caller's torch.no_grad() or torch.inference_mode() too
def refit_with_seeds(
    model: Model, tables: Tables, seeds: int, *, advice: str = "Give the table of the training.",
    observer: Observer | None = None,
) -> Refits:  # fmt: skip
    """Return modules trained as the model was on these tables, with the same encoding and rows and other seeds.

    Raises
    ------
    ConfigError : the rows are not those that the model was trained on; `advice` ends the message
    """
    prepared = prepare(tables, model.config, fitted=model)
    train_rows = prepared.data.train
    rows = train_rows.sample(sample_size(model.module))
    if prepared.training_rows != model.facts.training_rows or not is_of(model, train_rows):
        raise ConfigError(f"{tables.table.source.name} does not hold the rows that the model was trained on. {advice}")
    again = ((seeded, prepared) for seeded in reseeded(model.config, seeds))
    return Refits(rows, _refits(again, seeds, Observer() if observer is None else observer))


def _refits(
    again: Iterable[tuple[Config, Prepared]], refits: int, observer: Observer
) -> tuple[FactorizationMachine, ...]:
    modules = []
    for number, (config, prepared) in enumerate(again, start=1):
        observer.on_refit(number, refits)
        modules.append(train_module(prepared, config, observer)[0])
    return tuple(modules)


def reseeded(config: Config, times: int) -> Iterable[Config]:
    """Yield the settings with the seed one further on, two, ..."""
    for number in range(1, times + 1):
        seed = (config.train.seed + number) % 2**63
        yield config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
