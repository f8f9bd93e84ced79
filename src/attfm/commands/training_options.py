"""The options that say what is trained on and how, which `attfm train` and `attfm tune` share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attfm.commands.options import (
    Force,
    NoInput,
    Preset,
    Query,
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

    def settings(self) -> "Config":
        """Return the settings of a file, a preset and single ones; raise ConfigError where some are wrong."""
        from attfm.commands.settings import gather_config

        return gather_config(
            file=self.config, preset=self.preset, assignments=self.set_ or (), seed=self.seed, split=self.split,
            ignored=self.id_ or (),
        )  # fmt: skip

    def asked(self, data: str, out: str | None, reading: Reading, **more: Any) -> "Asked":
        """Return what is asked for, with what one of the commands alone may ask for."""
        from attfm.commands.asked import Asked

        return Asked(
            data, reading, self.target, self.weight, self.valid, self.test, self.split_seed, out, force=self.force,
            report=self.report, skip_bad_files=self.skip_bad_files, query=self.query, **more,
        )  # fmt: skip
