"""`attfm train --from RUN`: a model that learns on from new rows."""

from collections.abc import Mapping

from attfm.commands.asked import Asked
from attfm.model.facts import RunFacts
from attfm.model.run_folder import load_model
from attfm.train.continued import Continuation


def continuation_of(asked: Asked) -> Continuation | None:
    """Return the model that learns on, and how; None where a new one is asked for."""
    if asked.from_run is None:
        return None
    return Continuation.of(
        load_model(asked.from_run), half_life=asked.half_life, evict_unseen=asked.evict_unseen, as_of=asked.as_of,
        refit_bins=asked.refit_bins,
    )  # fmt: skip


def learned_on(facts: RunFacts) -> list[str]:
    """Return the lines that say what new rows brought; none of a model that was trained once."""
    if facts.trainings is None:
        return []
    lines = [f"(training {facts.trainings} of this model, of rows up to {facts.as_of}; figures are of these rows)"]
    lines.append(f"new values: {_told(facts.new_values)}")
    return [*lines, f"forgotten: {_told(facts.evicted_values)}"] if facts.evicted_values else lines


def _told(values: Mapping[str, int] | None) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in values.items()) if values else "none"
