"""Modules trained on prepared rows: the one that is kept, and refits that show how far it can be trusted."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from attfm.config import Config, ModelConfig
from attfm.data.dataset import Reweighted, bootstrap_draws
from attfm.data.folds import Folds
from attfm.errors import ConfigError, DataWarning
from attfm.explain.background import sample_size
from attfm.explain.faithfulness import Refits
from attfm.explain.summary import is_of
from attfm.model.bundle import Model, build_module
from attfm.model.ensemble import Ensemble, Scorer, members_of
from attfm.model.modules import FactorizationMachine
from attfm.train.additive_start import additive_start
from attfm.train.all_rows import for_epochs, learns_from_all
from attfm.train.cross_fit import Floats, cross_fit, of_fold, without_fold
from attfm.train.device import choose_device, drawn_from
from attfm.train.freed_memory import give_back
from attfm.train.inner_choice import choose_strength, suited
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared, Tables, prepare
from attfm.train.prior import Prior
from attfm.train.seeds import seeds_for
from attfm.train.statistical_machine import StatisticalMachine
from attfm.train.statistics import Enriching, enrich, with_rows
from attfm.train.trainer import STOPPED_ON_REQUEST, History, Trainer, silence_unseen, start_at_base_rate

TrainAgain = Callable[[Prepared, Config, Observer], Scorer]
_SHARED_WITH_FM = ("intercept", "linear.weight", "embedding.weight")


@dataclass(frozen=True)
class Trained:
    """A trained module, its learning curves, the seconds that it took, and the refits that the settings ask for.

    histories : of each model: one, or those of an ensemble
    out_of_fold : float64 (training rows, outputs) or None, see `attfm.train.cross_fit.CrossFitted`; None for one model
    taught, config : the rows that taught the module, and the settings that were chosen for them
    before : the module that the validation rows did not teach, where `module` learned from them in the end; else None
    """

    module: Scorer
    histories: tuple[History, ...]
    seconds: float
    taught: Prepared
    config: Config
    refits: tuple[Scorer, ...] = ()
    out_of_fold: Floats | None = None
    before: Scorer | None = None

    @property
    def judged(self) -> Scorer:
        """The module that the validation rows may judge."""
        return self.module if self.before is None else self.before

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
    config = suited(prepared, config)
    trained = _trained(prepared, config, observer)
    trained, again = replace(trained, seconds=time.perf_counter() - started), _whole
    if trained.before is not None:  # how many epochs there are is known
        again, config = partial(_last, trained), _of_all_rows(trained, len(prepared.data.train))
    bags = reseeded(config, config.train.n_bags)
    samples = ((seeded, _bootstrapped(trained.taught, seeded.train.seed)) for seeded in bags)
    return replace(trained, refits=_refits(samples, config.train.n_bags, observer, again))


def _of_all_rows(trained: Trained, rows: int) -> Config:
    """Return the settings for all rows of a model that fewer were enough for at first: it begins as that did."""
    first = trained.histories[0]
    train = trained.config.train.model_copy(update={"additive_start": first.additive_start is not None})
    return for_epochs(trained.config.model_copy(update={"train": train}), first.best_epoch, rows)


def _whole(prepared: Prepared, config: Config, observer: Observer) -> Scorer:
    return _trained(prepared, config, observer).module


def _last(trained: Trained, prepared: Prepared, config: Config, observer: Observer) -> FactorizationMachine:
    """Return a module trained on all rows, as `_again` says."""
    return _again(trained, prepared, config, observer)[0]


def _again(
    trained: Trained, prepared: Prepared, config: Config, observer: Observer
) -> tuple[FactorizationMachine, History]:
    """Train on all rows what fewer were enough for: it begins as far on the way, and remembers the same field pairs."""
    (machine,), (history, *_) = members_of(trained.judged), trained.histories
    chosen = [] if machine.memory is None else [(i, j) for i, j in machine.memory.pairs.tolist()]
    enriching = partial(enrich, chosen=chosen)
    return train_module(prepared, config, observer, enriching=enriching, share=history.additive_start)


def _of_seeds(
    trained: Trained, prepared: Prepared, config: Config, seeds: int, observer: Observer,
    known: Sequence[FactorizationMachine] = (),
) -> Scorer:  # fmt: skip
    """Return a module trained on all rows given, or the mean of several, each from a seed of its own.

    Where the observer asks to stop, those that were not begun are left out.

    trained : what was trained before, see `_again`
    known : modules that are trained already, the first ones
    """
    machines = list(known)
    for number in range(len(known), seeds):
        observer.on_seed(number + 1, seeds)
        seeded = of_fold(config, number) if number else config  # one alone is the first of several
        machine, history = _again(trained, prepared.begun_at(number), seeded, observer)
        machines.append(machine)
        if history.stopped == STOPPED_ON_REQUEST:
            break
    return machines[0] if len(machines) == 1 else Ensemble(machines, cross_fitted=False)


def _trained(prepared: Prepared, config: Config, observer: Observer) -> Trained:
    """Return a module trained on prepared rows, one or an ensemble."""
    if prepared.start is not None and prepared.data.valid is None and prepared.folds is None:
        # There is nothing to stop by: as long as it was best before.
        config = for_epochs(config, prepared.start.epochs, len(prepared.data.train))
    if prepared.folds is not None:
        return _of_folds(prepared, config, observer)
    learned = None if prepared.start is None else prepared.start.model.module
    several = isinstance(learned, Ensemble)
    if isinstance(learned, Ensemble) and (learned.cross_fitted or prepared.data.valid is None):
        return _of_all(prepared, config, observer)
    passed = 0

    def train_counted(prepared: Prepared, config: Config, observer: Observer) -> tuple[FactorizationMachine, History]:
        nonlocal passed
        module, history = train_module(prepared, config, observer)
        passed += len(history.epochs) * len(prepared.data.train)
        return module, history

    config, first = choose_strength(prepared, config, observer, train_counted)
    module, history = first or train_counted(prepared.begun_at(0), config, observer)
    trained = Trained(module, (history,), 0.0, prepared, config)
    all_rows, best = learns_from_all(prepared, config, history, passed), _of_all_rows(trained, len(prepared.data.train))
    if several and not all_rows:
        return _of_all(prepared, config, observer, [(module, history)])
    seeds = seeds_for(prepared, config, history, passed, all_rows=all_rows)
    if all_rows:
        everything = prepared.with_spare()
        again = _of_seeds(trained, everything, best, seeds, observer)
        return replace(trained, module=again, taught=everything, before=module)
    if seeds == 1:
        return trained
    unjudged = replace(prepared, data=replace(prepared.data, valid=None))
    return replace(trained, module=_of_seeds(trained, unjudged, best, seeds, observer, [module]))


def _of_folds(prepared: Prepared, config: Config, observer: Observer) -> Trained:
    """Return an ensemble of which each model was trained without one of the folds."""
    if prepared.folds is None:
        raise ValueError("the rows are not cut into folds")
    if config.train.n_seeds not in ("auto", 1):
        why = f"{prepared.folds.count} models are cross-fitted, each from a seed of its own"
        warnings.warn(f"n_seeds={config.train.n_seeds} is left out: {why}. With n_models=1 it counts.", DataWarning,
                      stacklevel=2)  # fmt: skip
    fold = prepared.folds.count - 1 if prepared.folds.ordered else 0  # by the latest rows, where they are in time
    observer.on_model(1, prepared.folds.count)
    chosen, first = choose_strength(without_fold(prepared, fold), of_fold(config, fold), observer, train_module)
    seeded = chosen.train.model_copy(update={"seed": config.train.seed})
    config = chosen.model_copy(update={"train": seeded})
    fitted = cross_fit(prepared, config, observer, train_module, {} if first is None else {fold: first})
    return Trained(fitted.module, fitted.histories, 0.0, prepared, config, out_of_fold=fitted.out_of_fold)


def _of_all(
    prepared: Prepared, config: Config, observer: Observer,
    known: Sequence[tuple[FactorizationMachine, History]] = (),
) -> Trained:  # fmt: skip
    """Return an ensemble that learns on, of which all models learn from the same rows: few, or without folds before.

    known : models that have learned on already, the first ones
    """
    if prepared.start is None or not isinstance(prepared.start.model.module, Ensemble):
        raise ValueError("no ensemble learns on")
    number_of_models, models = len(prepared.start.beginnings), list(known)
    for number in range(len(known), number_of_models):
        observer.on_model(number + 1, number_of_models)
        models.append(train_module(prepared.begun_at(number), of_fold(config, number), observer))
    modules, histories = zip(*models, strict=True)
    ensemble = Ensemble(modules, cross_fitted=prepared.start.model.module.cross_fitted)
    return Trained(ensemble, tuple(histories), 0.0, prepared, config)


def _bootstrapped(prepared: Prepared, seed: int) -> Prepared:
    """Return a bootstrap sample of the training rows; all copies of a row stay in its fold."""
    sample = prepared.data.train.bootstrap(seed)
    drawn, folds = bootstrap_draws(len(prepared.data.train), seed) > 0, prepared.folds
    if folds is not None and len(sample) == drawn.sum():
        folds = Folds(folds.number[drawn], folds.ordered)
    return replace(prepared.trained_on(sample), folds=folds)


def train_module(
    prepared: Prepared, config: Config, observer: Observer, *, enriching: Enriching = enrich, share: float | None = None
) -> tuple[FactorizationMachine, History]:
    """Return a module trained on prepared rows, and its learning curve; see `Trainer`.

    enriching : gives what the rows are enriched with
    share : of an additive start, where validation rows chose it before; None: they choose it now, if there are any
    """
    encoder, target, settings = prepared.encoder, prepared.target, config.train
    choose_device(settings.device)  # where there is none of that name, or none at all, nothing is drawn from it first
    start = None if prepared.start is None else prepared.start.one
    if start is not None:
        enriching = partial(enriching, start=start.machine)
    enriched = enriching(prepared.data, encoder, config)
    data = prepared.data if enriched is None else enriched.data
    give_back()

    def build(model: ModelConfig) -> FactorizationMachine:
        if enriched is None:
            return build_module(encoder, target, config.model_copy(update={"model": model}))
        return enriched.machine(len(encoder.fields), len(data.task.outputs), model.of_task(data.task.name))

    generator = torch.Generator().manual_seed(settings.seed)
    with drawn_from(generator):
        module = build(config.model)
        if start is None:
            silence_unseen(module, data.train.statistics)
            start_at_base_rate(module, data.train.statistics, data.task, base_rate=settings.base_rate_start)
        else:
            start.set_in(module)
        first = None
        if settings.warm_start_from == "fm" and module.has_pairs and start is None:
            first = build(config.model.as_preset("fm"))
    if first is not None:
        first.load_state_dict(module.state_dict(), strict=False)
        Trainer(first, data, settings, generator=generator).run()
        module.load_state_dict({name: first.state_dict()[name] for name in _SHARED_WITH_FM}, strict=False)
        if config.model.projection_std is None and module.outputs == 1:
            with torch.no_grad():
                module.projection.abs_()  # p of an FM is 1: it goes on as that FM
    rate = settings.negative_rate
    if rate < 1 and data.valid is not None:  # what stops the training counts negatives as those of the training do
        data = replace(data, valid=Reweighted(data.valid, (rate, 1.0)))
    prior, strengths = None if start is None else Prior.of(start.machine, data.task), None
    if start is None and first is None:
        additive = additive_start(module, data, settings.of_task(data.task.name), encoder.fields)
        if additive is not None:
            share = additive.set_in(module, data, share=share)
            strengths = additive.strengths
    history = Trainer(module, data, settings, observer, generator, prior=prior, strengths=strengths).run()
    history.additive_start = None if strengths is None else share
    give_back()
    with torch.no_grad():
        module.intercept.add_(math.log(rate))  # the odds among all rows
    if enriched is not None:
        history.straddling = [" × ".join(encoder.fields[f].name for f in pair) for pair in enriched.straddling]
    machine = module.folded() if isinstance(module, StatisticalMachine) else module
    machine.sums = with_rows(machine.sums, prepared.data, encoder, None if start is None else start.machine.sums)
    return machine, history


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
    if model.facts.trainings is not None:
        raise ConfigError(
            "The model has learned on from new rows: it can't be trained again on one table, to compare. Leave out the "
            "seeds."
        )
    learned_all = model.facts.refit_epochs is not None
    config = model.config.model_copy(update={"train": model.config.train.model_copy(update={"refit": learned_all})})
    prepared = prepare(tables, config, fitted=model)
    taught = prepared.with_spare() if learned_all and prepared.spare is not None else prepared
    train_rows = taught.data.train
    rows = train_rows.sample(sample_size(model.module))
    if taught.training_rows != model.facts.training_rows or not is_of(model, train_rows):
        raise ConfigError(f"{tables.table.source.name} does not hold the rows that the model was trained on. {advice}")
    again = ((seeded, prepared) for seeded in reseeded(config, seeds))
    modules = _refits(again, seeds, Observer() if observer is None else observer, _whole)
    for module in modules:
        model.calibration.fold_into(module)
    return Refits(rows, modules)


def _refits(
    samples: Iterable[tuple[Config, Prepared]], refits: int, observer: Observer, again: TrainAgain
) -> tuple[Scorer, ...]:
    modules = []
    for number, (config, prepared) in enumerate(samples, start=1):
        observer.on_refit(number, refits)
        modules.append(again(prepared, config, observer))
    return tuple(modules)


def reseeded(config: Config, times: int) -> Iterable[Config]:
    """Yield the settings with the seed one further on, two, ..."""
    for number in range(1, times + 1):
        seed = (config.train.seed + number) % 2**63
        yield config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
