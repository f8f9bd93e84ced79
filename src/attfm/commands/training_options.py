"""Options that say what is trained on and how: those that `attfm train` and `attfm tune` share, and of learning on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attfm.commands.options import (
    AsOf,
    EvictUnseen,
    Force,
    From,
    HalfLife,
    NoInput,
    Preset,
    Query,
    RefitBins,
    Seed,
    Settings,
    SetTo,
    SkipBadFiles,
    SplitBy,
    SplitSeed,
    Test,
    ToPredict,
    Valid,
    Weight,
    WithReport,
)
from attfm.config import Reading
from attfm.errors import ConfigError

if TYPE_CHECKING:
    from attfm.commands.asked import Asked
    from attfm.config import Config


@dataclass(frozen=True)
class TrainingOptions:
    """What is given of them; equal to `TrainingOptions()` where none is."""

    target: ToPredict = None
    valid: Valid = None
    test: Test = None
    split: SplitBy = None
    split_seed: SplitSeed = None
    weight: Weight = None
    id_: NoInput = None
    preset: Preset = None
    config: Settings = None
    set_: SetTo = None
    seed: Seed = None
    force: Force = False
    report: WithReport = True
    skip_bad_files: SkipBadFiles = False
    query: Query = None

    def settings(self, base: "Config | None" = None) -> "Config":
        """Return the settings of a file, a preset and single ones; raise ConfigError where some are wrong.

        base : the others; None: the defaults
        """
        from attfm.commands.settings import gather_config

        return gather_config(
            base=base, file=self.config, preset=self.preset, assignments=self.set_ or (), seed=self.seed,
            split=self.split, ignored=self.id_ or (),
        )  # fmt: skip

    def asked(self, data: str, out: str | None, reading: Reading, **more: Any) -> "Asked":
        """Return what is asked for, with what one of the commands alone may ask for."""
        from attfm.commands.asked import Asked

        return Asked(
            data, reading, self.target, self.weight, self.valid, self.test, self.split_seed, out, force=self.force,
            report=self.report, skip_bad_files=self.skip_bad_files, query=self.query, **more,
        )  # fmt: skip


@dataclass(frozen=True)
class ContinueOptions:
    """Which run learns on, and how; equal to `ContinueOptions()` where none does."""

    from_: From = None
    half_life: HalfLife = None
    evict_unseen: EvictUnseen = None
    as_of: AsOf = None
    refit_bins: RefitBins = False

    def base(self) -> "Config | None":
        """Return the settings of the run; None where there is none. Raise ConfigError for options without a run."""
        if self.from_ is None:
            if self != ContinueOptions(as_of=self.as_of):
                raise ConfigError(
                    "--half-life, --evict-unseen and --refit-bins are for a run that learns on: add --from RUN."
                )
            return None
        from attfm.model.run_folder import load_model

        return load_model(self.from_).config

    def asked(self) -> dict[str, Any]:
        """Return what `Asked` takes."""
        return {
            "from_run": self.from_, "half_life": self.half_life, "evict_unseen": self.evict_unseen,
            "as_of": self.as_of, "refit_bins": self.refit_bins,
        }  # fmt: skip
