"""Training by several workers of Ray, on rows that are encoded into a cache that all of them read."""

import shutil
from functools import partial
from pathlib import Path

from attfm.commands.asked import Asked
from attfm.commands.interrupted import checkpoints_of
from attfm.commands.job import Job
from attfm.commands.passes import Passes
from attfm.commands.train_streamed import cache_of, describe, page_of, streamed_table
from attfm.config import Config
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.train.cluster import cluster
from attfm.train.distributed import DistributedFit, fit_distributed
from attfm.train.observer import Observer
from attfm.train.ray_tables import worked_by
from attfm.train.streamed import prepare_streamed


def check_by_workers(asked: Asked, config: Config) -> None:
    """Raise ConfigError, before anything is read, where workers can't do what is asked for."""
    if asked.stream is False:
        raise ConfigError(
            "--in-memory keeps rows in this process, and workers of Ray read them from disk: leave it out."
        )
    if asked.from_run is not None:
        raise ConfigError("A run learns on in one process: leave out --engine ray, or --from.")
    if config.train.device == "cuda":
        raise ConfigError("Setting 'device' is 'cuda', but workers of Ray train on processors: use 'auto' or 'cpu'.")
    if config.train.n_bags:
        raise ConfigError("Refits on bootstrap samples (n_bags) need all rows in memory: leave out --engine ray.")
    if isinstance(config.train.n_models, int) and config.train.n_models > 1:
        raise ConfigError("Workers of Ray train one model: leave out --engine ray, or n_models.")
    if isinstance(config.train.n_seeds, int) and config.train.n_seeds > 1:
        raise ConfigError("Workers of Ray train one model: leave out --engine ray, or n_seeds.")


def train_by_workers(job: Job, run: Path) -> tuple[Model, str | None]:
    """Return the model, and the report where it is asked for; run : the folder to be."""
    asked, config, output = job.asked, job.config, job.output
    with cluster(asked.workers, asked.address) as ray:
        cache = cache_of(job, run).absolute()
        encoding = partial(worked_by, ray, asked.workers)
        streamed = prepare_streamed(streamed_table(job, cache, Passes(output)), config, over=encoding)
        job.show(streamed.prepared.schema, streamed.rows)
        output.say(describe(job, streamed))
        output.say(f"{asked.workers} workers of Ray, {'on this machine' if asked.address is None else asked.address}")
        folder = checkpoints_of(run) if job.kept is not None else run.with_name(run.name + ".workers")
        fit = DistributedFit(
            config, streamed.folder.absolute(), folder.absolute(), 60 * asked.checkpoint_minutes,
            asked.checkpoint_steps, job.facts(streamed.rows), streamed.prepared.seconds,
        )  # fmt: skip

        def fitted(observer: Observer) -> Model:
            return fit_distributed(ray, asked.workers, fit, observer)

        try:
            model = job.watched(fitted, writes=False)
        finally:
            if job.kept is None:
                shutil.rmtree(folder, ignore_errors=True)
    return model, page_of(job, model, streamed.prepared) if asked.report else None
