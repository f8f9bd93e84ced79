"""What is summarised of the training rows at the end of training, to be stored beside the model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.data.encoder import Encoder
from attfm.explain.background import Arrays, Background, sample
from attfm.explain.effects import Effects, chunk_rows, chunks, effects_of
from attfm.explain.levels import States
from attfm.explain.summary import STORED_SURFACES, Summary, of_effects
from attfm.model.bundle import Model
from attfm.model.modules import FactorizationMachine
from attfm.model.rows import Rows


def summarise(
    module: FactorizationMachine, encoder: Encoder, rows: Rows, *, bags: Sequence[FactorizationMachine] = ()
) -> dict[str, NDArray[Any]]:
    """Return background and global summary of a trained module as arrays by name.

    Parameters
    ----------
    rows : the encoded training rows; a random sample of them is taken where they are many
    bags : modules trained on bootstrap samples of the rows, whose summaries show how far figures can be trusted
    """
    part = sample(module, rows)
    background, summary = _summary(module, encoder, part, training_rows=len(rows), surfaces=STORED_SURFACES)
    refits = tuple(_summary(bag, encoder, part, training_rows=len(rows), surfaces=0)[1] for bag in bags)
    return {**background.to_arrays(), **replace(summary, bags=refits).to_arrays()}


def is_of(background: Arrays, model: Model, rows: Rows) -> bool:
    """Return whether a stored background can be that of these encoded training rows (true where none is stored)."""
    if not background:
        return True
    held = Background.from_arrays(background, model.encoder, model.module)
    if held.training_rows != len(rows):
        return False
    states = held.states.of(sample(model.module, rows))
    counts = [np.bincount(states.of_field(f).state, minlength=size) for f, size in enumerate(held.states.sizes)]
    return np.array_equal(np.concatenate(counts), held.counts)


def importances(module: FactorizationMachine, encoder: Encoder, rows: Rows) -> Summary:
    """Return the summary of a module without surfaces, for comparison with another module's of the same rows."""
    return _summary(module, encoder, sample(module, rows), training_rows=len(rows), surfaces=0)[1]


def _summary(
    module: FactorizationMachine, encoder: Encoder, rows: Rows, *, training_rows: int, surfaces: int
) -> tuple[Background, Summary]:
    states = States.of_rows(encoder, rows)
    of_rows = states.of(rows)
    effects = Effects.gather([effects_of(module, chunk) for chunk in chunks(module, rows)])
    background = Background.of_sample(effects, states, of_rows, training_rows=training_rows)
    step = chunk_rows(module, rows.ids.shape[1])
    return background, of_effects(background, of_rows, effects, step=step, surfaces=surfaces)
