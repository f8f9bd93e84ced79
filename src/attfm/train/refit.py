"""Modules trained on encoded examples: the one that is kept, and refits that show how far it can be trusted."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from attfm.config import Config
from attfm.data.encoder import Encoder
from attfm.data.target import Target
from attfm.model.bundle import build_module
from attfm.model.modules import FactorizationMachine
from attfm.train.trainer import (
    Examples,
    History,
    OnBatch,
    OnEpoch,
    silence_unseen,
    start_at_base_rate,
    train,
)

OnRefit = Callable[[int, int], None]


def train_module(
    encoder: Encoder,
    target: Target,
    config: Config,
    examples: Examples,
    valid: Examples | None,
    *,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> tuple[FactorizationMachine, History]:
    """Return a module trained on encoded examples, and its learning curve; see `attfm.train.trainer.train`."""
    settings = config.train
    options: dict[str, Any] = {
        "task": target.task,
        "config": settings,
        "batch_size": choose_batch_size(settings.batch_size, len(examples)),
        "neighbours": encoder.neighbours(),
    }
    # The caller's random numbers are left alone; ours depend on the seed only.
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        module = build_module(encoder, target, config)
        silence_unseen(module, examples.rows)
        start_at_base_rate(module, examples, target.task, base_rate=settings.base_rate_start)
        if settings.warm_start_from == "fm" and module.has_pairs:
            fm_config = config.model_copy(update={"model": config.model.as_preset("fm")})
            first = build_module(encoder, target, fm_config)
            first.load_state_dict(module.state_dict(), strict=False)
            train(first, examples, valid, **options)
            start = {name: first.state_dict()[name] for name in _SHARED_WITH_FM}
            module.load_state_dict(start, strict=False)
        return module, train(module, examples, valid, **options, on_epoch=on_epoch, on_batch=on_batch)


def bootstrap_refits(
    encoder: Encoder,
    target: Target,
    config: Config,
    examples: Examples,
    valid: Examples | None,
    *,
    on_refit: OnRefit | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> list[FactorizationMachine]:
    """Return `n_bags` modules trained as the first was, each with another seed and on a bootstrap sample of its rows.

    on_refit : is called before each with its number, from 1, and how many there will be
    """
    modules = []
    for number, settings in _reseeded(config, config.train.n_bags):
        drawn = np.random.default_rng(settings.train.seed).integers(0, len(examples), len(examples))
        times = torch.from_numpy(np.bincount(drawn, minlength=len(examples)))
        kept = times.nonzero()[:, 0]
        weight = (examples.weight * times)[kept]
        if not weight.any():
            kept, weight = torch.arange(len(examples)), examples.weight
        part = Examples(examples.rows.take(kept), examples.target[kept], weight)
        if on_refit is not None:
            on_refit(number, config.train.n_bags)
        modules.append(train_module(encoder, target, settings, part, valid, on_epoch=on_epoch, on_batch=on_batch)[0])
    return modules


def seed_refits(
    encoder: Encoder,
    target: Target,
    config: Config,
    examples: Examples,
    valid: Examples | None,
    *,
    seeds: int,
    on_refit: OnRefit | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> list[FactorizationMachine]:
    """Return modules trained as the first was on the same rows, each with another seed; see `bootstrap_refits`."""
    modules = []
    for number, settings in _reseeded(config, seeds):
        if on_refit is not None:
            on_refit(number, seeds)
        modules.append(
            train_module(encoder, target, settings, examples, valid, on_epoch=on_epoch, on_batch=on_batch)[0]
        )
    return modules


def _reseeded(config: Config, times: int) -> Iterator[tuple[int, Config]]:
    """Yield 1, 2, ... and the settings with the seed that many further on."""
    for number in range(1, times + 1):
        seed = (config.train.seed + number) % 2**63
        yield number, config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


_SHARED_WITH_FM = ("intercept", "linear.weight", "embedding.weight")


def choose_batch_size(setting: int | str, rows: int) -> int:
    """Return the batch size: as set, or for "auto" a power of two that makes some dozens of steps an epoch."""
    if isinstance(setting, int):
        return setting
    return int(np.clip(2 ** np.round(np.log2(max(rows, 1) / 40)), 16, 1024))
