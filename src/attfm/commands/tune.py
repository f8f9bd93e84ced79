"""`attfm tune`: from a table to a saved model with the best settings of a study."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from attfm.commands.asked import Asked
from attfm.commands.console import Output
from attfm.commands.folders import RUNS
from attfm.commands.train import train
from attfm.config import Config
from attfm.data.sources.files import table_stem
from attfm.data.split import Part
from attfm.errors import ConfigError, RunFolderError
from attfm.model.facts import RunFacts, TuningFacts
from attfm.model.run_folder import load_model
from attfm.train.fit import Fitted
from attfm.train.prepare import Tables
from attfm.train.study import study_id
from attfm.train.tuning import Search, fit_tuned
from attfm.train.tuning_progress import TuningProgress


@dataclass(frozen=True)
class Trials:
    """How many trials are asked for, and the file of their study: None for RUN.study.db, beside the run folder."""

    count: int
    study: str | None


def tune(asked: Asked, trials: Trials, config: Config, output: Output) -> None:
    """Tune on a table, then measure, save and report the best model; see `attfm.cli.tune` for the options."""
    if Part.parse(asked.valid, "--valid") == Part():
        raise ConfigError("--valid none leaves no rows to choose the settings by: give a fraction or a table.")
    out = asked.out or str(RUNS / f"{table_stem(asked.data)}-tuned")
    path = Path(f"{out.rstrip('/')}.study.db" if trials.study is None else trials.study).expanduser()
    earlier = study_id(path)
    if trials.study is not None and not path.parent.is_dir():
        raise ConfigError(f"There is no folder '{path.parent}' for the study: make it, or choose another --study.")
    # The same command again goes on with its study, and then replaces the run that came of it.
    its_own = earlier is not None and _study_of(Path(out).expanduser()) == earlier
    search = Search(trials.count, path, config.model.model_fields_set | config.train.model_fields_set)

    def fit_best(tables: Tables, config: Config, facts: RunFacts, output: Output) -> Fitted:
        output.say(f"study: {path}{'' if earlier is None else ', which goes on'}")
        try:
            with TuningProgress(config.train.epochs, show=not output.quiet) as progress:
                fitted = fit_tuned(tables, config, search, progress, facts=facts, measured=True)
        except KeyboardInterrupt:
            if path.exists():
                output.say(f"The trials that have ended are in {path}: the same command goes on from there.")
            raise
        if fitted.model.facts.tuning is not None:
            _tell(fitted.model.facts.tuning, output)
        return fitted

    asked = replace(asked, out=out, force=asked.force or its_own)
    train(asked, config, output, fit_best, more={"study": str(path)})


def _study_of(run: Path) -> str | None:
    """Return which study a run folder came of; None where it came of none, or there is no run folder."""
    with suppress(RunFolderError):
        tuning = load_model(run).facts.tuning
        return None if tuning is None else tuning.study
    return None


def _tell(tuning: TuningFacts, output: Output) -> None:
    """Print what the study came to: the best settings, beside those that were given, and what mattered."""
    output.result_lines("", tuning.sentence, "")
    names = sorted(tuning.settings, key=lambda name: -tuning.importance.get(name, 0.0))
    rows = [
        [
            name,
            *(f"{x}" if isinstance(x, int) else f"{x:.4g}" for x in (tuning.as_given[name], tuning.settings[name])),
            f"{100 * tuning.importance[name]:.0f} %" if tuning.importance else "-",
        ]
        for name in names
    ]
    output.result_table(("setting", "as given", "best", "importance"), rows, right=(1, 2, 3))
