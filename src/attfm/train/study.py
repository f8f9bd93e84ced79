"""Studies: trials of settings that Optuna keeps in an SQLite file, or in memory. Only this file knows Optuna."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attfm.errors import ConfigError, MissingExtraError, listed
from attfm.files import written_whole

if TYPE_CHECKING:
    import optuna

_BY_CHANCE = 6  # trials whose settings are drawn, before those that learn from others
_NEVER_PRUNED = 10  # epochs that each trial may run: a low learning rate starts slowly
_LEAST_FOR_IMPORTANCE = 5  # trials that ran to their end
_NAME, _MADE_OF, _AS_GIVEN = "attfm", "made of", "as given"
_THAT_COUNT = ("COMPLETE", "PRUNED")


@dataclass(frozen=True)
class Tried:
    """A trial that counts: its settings, and its validation loss, None where it was given up.

    `as_given` : whether its settings are those that were given
    """

    settings: Mapping[str, int | float]
    loss: float | None
    as_given: bool


class Study:
    """Trials of settings, from which the next are suggested; made by `open_study`.

    Trials run in memory, and are written when they have ended: an interrupted one leaves no trace.
    """

    def __init__(self, study: optuna.Study, kept: optuna.Study | None = None) -> None:
        self._study, self._kept = study, kept
        self.id = str(study.user_attrs["id"])

    @property
    def tried(self) -> list[Tried]:
        """The trials that ran to their end or were given up, in their order."""
        return [
            Tried(trial.params, trial.value if trial.state.name == "COMPLETE" else None, _AS_GIVEN in trial.user_attrs)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.name in _THAT_COUNT
        ]

    def begin(self, as_given: Mapping[str, int | float]) -> None:
        """Let the first trial have the settings that were given."""
        if not self.tried:
            self._study.enqueue_trial(dict(as_given), user_attrs={_AS_GIVEN: True})

    def ask(self, seed: int) -> optuna.Trial:
        """Return a new trial; its settings depend on the seed and on the trials that count, and on nothing else."""
        from optuna.samplers import TPESampler

        self._study.sampler = TPESampler(seed=seed % 2**32, n_startup_trials=_BY_CHANCE, constant_liar=False)
        return self._study.ask()

    def tell(self, trial: optuna.Trial, loss: float | None) -> None:
        """Note the validation loss of a trial that has ended, None where it was given up, and keep the trial."""
        from optuna.trial import TrialState

        ended = self._study.tell(trial, loss, state=TrialState.PRUNED if loss is None else TrialState.COMPLETE)
        if self._kept is not None:
            self._kept.add_trial(ended)

    def importance(self, names: Sequence[str]) -> dict[str, float]:
        """Return how much of the differences between trials each setting explains, the largest first; {} of too few."""
        losses = [trial.loss for trial in self.tried if trial.loss is not None]
        if len(losses) < _LEAST_FOR_IMPORTANCE or len(set(losses)) == 1:
            return {}
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        shares = get_param_importances(self._study, evaluator=FanovaImportanceEvaluator(seed=0), params=list(names))
        return {name: round(float(share), 4) for name, share in shares.items()}


def require_optuna() -> Any:
    """Return Optuna; raise MissingExtraError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("optuna is not installed: run 'pip install \"attfm[tune]\"'.") from None
    return optuna


@contextmanager
def open_study(path: Path | None, made_of: Mapping[str, Any]) -> Iterator[Study]:
    """Give the study in a file, which is made if it is not there, or one in memory; Optuna says nothing meanwhile.

    Parameters
    ----------
    path : pathlib.Path or None, an SQLite file; None: in memory
    made_of : "target", "settings" and "space", JSON values by name, and "rows", a digest of them
        What two calls must share to go on with one study.

    Raises
    ------
    MissingExtraError : Optuna is not installed
    ConfigError : the file is no study, can't be used, or is a study of something else
    """
    optuna = require_optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if path is None:
            yield Study(_made(optuna, None, made_of))
            return
        if not _holds_study(path):
            with _told(path, OSError), written_whole(path) as temporary, _storage(optuna, temporary) as storage:
                _made(optuna, storage, made_of)
        with _told(path), _storage(optuna, path) as storage:
            kept = optuna.load_study(study_name=_NAME, storage=storage)
            _check_same(path, kept.user_attrs.get(_MADE_OF), made_of)
            study = _made(optuna, None, made_of, identity=kept.user_attrs["id"])
            study.add_trials(trial for trial in kept.get_trials() if trial.state.name in _THAT_COUNT)
            yield Study(study, kept)
    finally:
        optuna.logging.set_verbosity(before)


def study_id(path: Path) -> str | None:
    """Return what tells the study in a file from all others; None where there is no file.

    Raises
    ------
    MissingExtraError : Optuna is not installed
    ConfigError : the file is no study of attfm
    """
    optuna = require_optuna()
    if not _holds_study(path):
        return None
    with _told(path), _storage(optuna, path) as storage:
        attributes = storage.get_study_user_attrs(storage.get_study_id_from_name(_NAME))
    return str(attributes.get("id"))


def _made(optuna: Any, storage: Any, made_of: Mapping[str, Any], *, identity: str | None = None) -> Any:
    """Return a new study, in memory without a storage; `identity` tells it from all others, None: it gets a new one."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_BY_CHANCE - 1, n_warmup_steps=_NEVER_PRUNED)
    study = optuna.create_study(study_name=_NAME, storage=storage, pruner=pruner)
    study.set_user_attr("id", identity or uuid.uuid4().hex)
    study.set_user_attr(_MADE_OF, made_of)
    return study


@contextmanager
def _storage(optuna: Any, path: Path) -> Iterator[Any]:
    from sqlalchemy.engine import URL

    storage = optuna.storages.RDBStorage(URL.create("sqlite", database=str(path)).render_as_string())
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def _told(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn what SQLite and Optuna raise, and errors of other kinds that are given, into a sentence."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    kinds: tuple[type[Exception], ...] = (OptunaError, SQLAlchemyError, sqlite3.Error, *others)
    try:
        yield
    except kinds as error:
        reason = " ".join(str(error.__cause__ or error).split("\n")[0].split())
        raise ConfigError(
            f"The study '{path}' can't be read or written ({reason}): give another file for it, or remove this one."
        ) from None


def _holds_study(path: Path) -> bool:
    """Return whether there is a study, False where there is no file; raise ConfigError for any other file."""
    if not path.exists():
        return False
    with suppress(sqlite3.Error), ExitStack() as stack:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        stack.callback(database.close)
        if database.execute("SELECT 1 FROM studies WHERE study_name = ?", [_NAME]).fetchall():
            return True
    raise ConfigError(f"'{path}' is no study of attfm: give another file for it, or remove this one.")


def _check_same(path: Path, of_study: Any, of_call: Mapping[str, Any]) -> None:
    """Raise ConfigError where a study was made of something else than what is tuned now."""
    now = json.loads(json.dumps(of_call))
    if of_study == now:
        return
    if not isinstance(of_study, Mapping) or of_study.keys() != now.keys():
        other = "by another version of attfm"
    elif of_study["target"] != now["target"]:
        other = f"for the target '{of_study['target']}', not '{now['target']}'"
    elif of_study["space"].keys() != now["space"].keys():
        other = f"to tune {listed(list(of_study['space']))}, not {listed(list(now['space']))}"
    elif of_study["settings"].keys() != now["settings"].keys() or of_study["space"] != now["space"]:
        other = "by another version of attfm, with other settings"
    elif changed := [name for name, value in now["settings"].items() if of_study["settings"][name] != value]:
        was, wanted = ({name: of[name] for name in changed} for of in (of_study["settings"], now["settings"]))
        other = f"with {_assigned(was)}, not {_assigned(wanted)}"
    else:
        other = "of other rows: another table, another split, or other weights"
    raise ConfigError(f"The study '{path}' was made {other}: give another file for it, or remove this one.")


def _assigned(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
