"""Modules trained on prepared rows: the one that is kept, and refits that show how far it can be trusted."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from attfm.config import Config, ModelConfig
from attfm.data.dataset import bootstrap_draws
from attfm.data.folds import Folds
from attfm.errors import ConfigError
from attfm.explain.background import sample_size
from attfm.explain.faithfulness import Refits
from attfm.explain.summary import is_of
from attfm.model.bundle import Model, build_module
from attfm.model.ensemble import Scorer
from attfm.model.modules import FactorizationMachine
from attfm.train.cross_fit import Floats, cross_fit, without_fold
from attfm.train.inner_choice import choose_strength
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared, Tables, prepare
from attfm.train.statistical_machine import StatisticalMachine
from attfm.train.statistics import Enriching, enrich
from attfm.train.trainer import History, Trainer, choose_device, drawn_from, silence_unseen, start_at_base_rate

_SHARED_WITH_FM = ("intercept", "linear.weight", "embedding.weight")


@dataclass(frozen=True)
class Trained:
    """A trained module, its learning curves, the seconds that it took, and the refits that the settings ask for.

    histories : of each model: one, or those of an ensemble
    out_of_fold : float64 (training rows, outputs) or None, see `attfm.train.cross_fit.CrossFitted`; None for one model
    """

    module: Scorer
    histories: tuple[History, ...]
    seconds: float
    refits: tuple[Scorer, ...] = ()
    out_of_fold: Floats | None = None

    def records(self) -> list[dict[str, float | int | None]]:
        """Return one dictionary for each epoch, as history.jsonl stores it; with several models, of which it is."""
        if len(self.histories) == 1:
            return self.histories[0].records()
        numbered = enumerate(self.histories, start=1)
        return [{"model": number, **record} for number, history in numbered for record in history.records()]


def train(prepared: Prepared, config: Config, observer: Observer | None = None) -> Trained:
    """Return a module trained on prepared rows, and `n_bags` refits on bootstrap samples of its rows."""
    observer = Observer() if observer is None else observer
    started = time.perf_counter()
    module, histories, out_of_fold = _trained(prepared, config, observer)
    seconds = time.perf_counter() - started
    samples = ((seeded, _bootstrapped(prepared, seeded.train.seed)) for seeded in reseeded(config, config.train.n_bags))
    refits = _refits(samples, config.train.n_bags, observer)
    return Trained(module, histories, seconds, refits, out_of_fold)


def _trained(
    prepared: Prepared, config: Config, observer: Observer
) -> tuple[Scorer, tuple[History, ...], Floats | None]:
    """Return a module trained on prepared rows, one or an ensemble, its learning curves, and what is out of fold."""
    if prepared.folds is None:
        config, first = choose_strength(prepared, config, observer, train_module)
        module, history = first or train_module(prepared, config, observer)
        return module, (history,), None
    fold = int(prepared.folds.number.max())
    config, _ = choose_strength(without_fold(prepared, fold), config, observer, train_module)
    fitted = cross_fit(prepared, config, observer, train_module)
    return fitted.module, fitted.histories, fitted.out_of_fold


def _bootstrapped(prepared: Prepared, seed: int) -> Prepared:
    """Return a bootstrap sample of the training rows; all copies of a row stay in its fold."""
    sample = prepared.data.train.bootstrap(seed)
    drawn, folds = bootstrap_draws(len(prepared.data.train), seed) > 0, prepared.folds
    if folds is not None and len(sample) == drawn.sum():
        folds = Folds(folds.number[drawn], folds.ordered)
    return replace(prepared.trained_on(sample), folds=folds)


def train_module(
    prepared: Prepared, config: Config, observer: Observer, *, enriching: Enriching = enrich
) -> tuple[FactorizationMachine, History]:
    """Return a module trained on prepared rows, and its learning curve; see `Trainer`.

    `enriching` gives what the rows are enriched with.
    """
    encoder, target, settings = prepared.encoder, prepared.target, config.train
    choose_device(settings.device)  # where there is none of that name, or none at all, nothing is drawn from it first
    enriched = enriching(prepared.data, encoder, config)
    data = prepared.data if enriched is None else enriched.data

    def build(model: ModelConfig) -> FactorizationMachine:
        if enriched is None:
            return build_module(encoder, target, config.model_copy(update={"model": model}))
        return enriched.machine(len(encoder.fields), len(data.task.outputs), model.of_task(data.task.name))

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
    if enriched is not None:
        history.straddling = [" × ".join(encoder.fields[f].name for f in pair) for pair in enriched.straddling]
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
    modules = _refits(again, seeds, Observer() if observer is None else observer)
    for module in modules:
        model.calibration.fold_into(module)
    return Refits(rows, modules)


def _refits(again: Iterable[tuple[Config, Prepared]], refits: int, observer: Observer) -> tuple[Scorer, ...]:
    modules = []
    for number, (config, prepared) in enumerate(again, start=1):
        observer.on_refit(number, refits)
        modules.append(_trained(prepared, config, observer)[0])
    return tuple(modules)


def reseeded(config: Config, times: int) -> Iterable[Config]:
    """Yield the settings with the seed one further on, two, ..."""
    for number in range(1, times + 1):
        seed = (config.train.seed + number) % 2**63
        yield config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
