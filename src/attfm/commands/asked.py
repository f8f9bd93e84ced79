"""What `attfm train` and `attfm tune` were asked for."""

from dataclasses import dataclass

from attfm.config import Reading


@dataclass(frozen=True)
class Asked:
    """The options of `attfm.cli.train`, settings apart.

    checkpoint_minutes, checkpoint_steps : after how many a checkpoint is written; 0: not by these; both 0: none
    stream : whether rows are encoded to disk rather than kept in memory; None: where they would not fit
    cache : folder under which encoded rows are kept that do not fit in memory; None: beside the run
    skip_bad_files : whether files of a set that can't be read are left out
    query : which rows of a database, where `data` is the URI of one
    from_run : the run folder of a model that learns on; half_life, evict_unseen, as_of, refit_bins : how, see
        `attfm.train.continued.Continuation.of`
    workers, address : how many workers of Ray train, 0: this process does; and where their cluster is
    """

    data: str
    reading: Reading
    target: str | None
    weight: str | None
    valid: str | None
    test: str | None
    split_seed: int | None
    out: str | None
    force: bool
    report: bool
    checkpoint_minutes: float = 0.0
    checkpoint_steps: int = 0
    stream: bool | None = None
    cache: str | None = None
    skip_bad_files: bool = False
    query: str | None = None
    from_run: str | None = None
    half_life: float | None = None
    evict_unseen: float | None = None
    as_of: str | None = None
    refit_bins: bool = False
    workers: int = 0
    address: str | None = None
