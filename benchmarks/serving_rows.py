"""Time one row and many rows of Adult, by lookup and by its peers, in one run (docs/lookup.md).

Peers that are not installed are left out and named. A row comes as people have it (a dict, or what the library takes
that is nearest to one), and as the library has it when its own encoding is done.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attfm import load_dataset
from attfm.model.run_folder import load_model
from attfm.serve import tables
from benchmarks.machine import Neighbours
from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/lookup.md"
ROWS, CALLS, ROUNDS = 500, 300, 5
PATIENCE = 2.0  # seconds that the calls of a round take at most
TREES = 200
GOALS = {"row": 30.0, "encoded": 10.0, "many": 3_000_000, "start": 0.5}
START = (
    "import time; start = time.perf_counter(); from attfm.serve import tables; tables.load({!r}); "
    "print(time.perf_counter() - start)"
)
Call = Callable[[int], Any]


@dataclass
class Contender:
    """Ways to score: row number n from values, the same encoded, and all rows at once (how many there are)."""

    name: str
    row: Call | None = None
    encoded: Call | None = None
    many: Callable[[], Any] | None = None
    count: int = 0


@dataclass
class Adult:
    """The test rows of Adult, and the training rows for peers."""

    train: pd.DataFrame
    labels: np.ndarray[Any, Any]
    test: pd.DataFrame
    categorical: list[str]
    run: str

    @property
    def codes(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Training and test rows with pandas' categories."""
        train, test = self.train.copy(), self.test.copy()
        for name in self.categorical:
            train[name] = train[name].astype("category")
            test[name] = test[name].astype(train[name].dtype)
        return train, test


def lookup(adult: Adult) -> Iterator[Contender]:
    """Yield attfm by lookup, and the model that it is made of."""
    compiled, model = tables.load(adult.run), load_model(adult.run)
    rows = adult.test.to_dict("records")
    encoded = compiled.encode(rows)
    ids = [np.ascontiguousarray(one) for one in encoded.ids]
    many = tables.Encoded(np.ascontiguousarray(np.tile(encoded.ids, (8, 1))))
    batch = next(iter(model.encode(model.open(adult.test)))).batch
    worst = float(np.abs(compiled.logits(rows) - model.scorer.predict(batch).numpy()).max())
    print(f"largest difference of a logit to the formula in float64: {worst:.1e}")
    yield Contender(
        "attfm by lookup", lambda n: compiled.predict_proba(rows[n]), lambda n: compiled.predict_proba_of(ids[n]),
        lambda: compiled.logits_of(many), len(many.ids),
    )  # fmt: skip
    frames = [adult.test.iloc[n : n + 1] for n in range(ROWS)]
    yield Contender(
        "attfm's Model, a DataFrame of one row", lambda n: model.predict_proba(frames[n]),
        lambda n: model.task.scores(model.logits_of(batch.slice(n, n + 1))), lambda: model.logits_of(batch), len(batch),
    )  # fmt: skip


def trees(adult: Adult) -> Iterator[Contender]:
    """Yield LightGBM, and the same trees by lleaves and onnxruntime."""
    import lightgbm

    train, test = adult.codes
    settings = {"objective": "binary", "verbose": -1, "num_threads": os.cpu_count(), "seed": 0}
    booster = lightgbm.train(settings, lightgbm.Dataset(train, adult.labels), TREES)
    frames = [test.iloc[n : n + 1] for n in range(ROWS)]
    values = in_numbers(test, adult)
    rows = [np.ascontiguousarray(values[n : n + 1]) for n in range(len(values))]
    yield Contender(
        f"LightGBM, {TREES} trees, a DataFrame of one row", lambda n: booster.predict(frames[n], num_threads=1),
        lambda n: booster.predict(rows[n], num_threads=1), lambda: booster.predict(values), len(values),
    )  # fmt: skip
    # Compilers of trees and ONNX have no sets of categories as LightGBM has them: they get trees of codes.
    coded = lightgbm.train(settings, lightgbm.Dataset(in_numbers(train, adult), adult.labels), TREES)
    with tempfile.TemporaryDirectory() as folder:
        yield from lleaves(coded, values, rows, folder)
        yield from onnx(coded, values, rows)


def in_numbers(frame: pd.DataFrame, adult: Adult) -> np.ndarray[Any, Any]:
    """Return rows with pandas' categories as numbers, NaN where missing."""
    codes = {name: frame[name].cat.codes.astype(float).replace(-1.0, np.nan) for name in adult.categorical}
    return frame.assign(**codes).to_numpy(np.float64)


def lleaves(booster: Any, values: Any, rows: list[Any], folder: str) -> Iterator[Contender]:
    """Yield the trees compiled by lleaves."""
    try:
        from lleaves import Model
    except ImportError as error:
        print(f"lleaves is left out: {error}")
        return
    booster.save_model(f"{folder}/model.txt")
    compiled = Model(model_file=f"{folder}/model.txt")
    try:
        compiled.compile()
    except AttributeError as error:  # llvmlite 0.44 and newer lack what it calls
        print(f"lleaves is left out: {error}")
        return
    yield Contender(
        f"lleaves, {TREES} trees of codes", None, lambda n: compiled.predict(rows[n], n_jobs=1),
        lambda: compiled.predict(values), len(values),
    )  # fmt: skip


def onnx(booster: Any, values: Any, rows: list[Any]) -> Iterator[Contender]:
    """Yield the trees as ONNX."""
    try:
        import onnxruntime
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType
    except ImportError as error:
        print(f"onnxruntime is left out: {error}")
        return
    graph = convert_lightgbm(
        booster, initial_types=[("x", FloatTensorType([None, values.shape[1]]))], zipmap=False, target_opset=15
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name, whole, short = (
        session.get_outputs()[1].name,
        values.astype(np.float32),
        [row.astype(np.float32) for row in rows],
    )
    yield Contender(
        f"onnxruntime, {TREES} trees of codes", None, lambda n: session.run([name], {"x": short[n]}),
        lambda: session.run([name], {"x": whole}), len(values),
    )  # fmt: skip


def catboost(adult: Adult) -> Iterator[Contender]:
    """Yield CatBoost."""
    from catboost import CatBoostClassifier, Pool

    # It takes no missing text, which pandas 3 leaves missing where it makes text.
    train, test = (
        frame.astype(dict.fromkeys(adult.categorical, object)).fillna(dict.fromkeys(adult.categorical, "missing"))
        for frame in (adult.train, adult.test)
    )
    model = CatBoostClassifier(
        iterations=TREES, verbose=False, cat_features=adult.categorical, allow_writing_files=False
    )
    model.fit(train, adult.labels)
    rows, pool = test.to_numpy(object).tolist(), Pool(test, cat_features=adult.categorical)
    pools = [Pool(test.iloc[n : n + 1], cat_features=adult.categorical) for n in range(ROWS)]
    yield Contender(
        f"CatBoost, {TREES} trees, a list of values", lambda n: model.predict_proba(rows[n]),
        lambda n: model.predict_proba(pools[n], thread_count=1), lambda: model.predict_proba(pool), len(test),
    )  # fmt: skip


def ebm(adult: Adult) -> Iterator[Contender]:
    """Yield an Explainable Boosting Machine."""
    from interpret.glassbox import ExplainableBoostingClassifier

    model = ExplainableBoostingClassifier(interactions=10, outer_bags=1, n_jobs=1, random_state=0)
    model.fit(adult.train, adult.labels)
    frames = [adult.test.iloc[n : n + 1] for n in range(ROWS)]
    yield Contender(
        "EBM, 10 pairs, a DataFrame of one row", lambda n: model.predict_proba(frames[n]), None,
        lambda: model.predict_proba(adult.test), len(adult.test),
    )  # fmt: skip


@dataclass(frozen=True)
class Clock:
    """What is counted: the time of day, or the time that processors worked for this process on all its threads.

    The latter is for machines that have other work meanwhile; asking for it takes long, so several calls are timed
    together.
    """

    name: str
    now: Callable[[], int]
    together: int

    def microseconds(self, call: Call | None) -> float | None:
        """Return the least median of some rounds of calls of one row."""
        if call is None:
            return None
        medians = []
        for _ in range(ROUNDS + 1):  # the first warms up
            taken: list[int] = []
            end = time.perf_counter() + PATIENCE
            while len(taken) < CALLS // self.together and time.perf_counter() < end:
                n, start = len(taken) * self.together, self.now()
                for k in range(n, n + self.together):
                    call(k % ROWS)
                taken.append(self.now() - start)
            medians.append(float(np.median(taken)) / 1e3 / self.together)
        return min(medians[1:])

    def rows_a_second(self, contender: Contender) -> float | None:
        """Return the rows a second of the fastest of some calls with all rows."""
        if contender.many is None:
            return None
        best, end = np.inf, time.perf_counter() + ROUNDS * PATIENCE
        contender.many()
        while best == np.inf or time.perf_counter() < end:
            start = self.now()
            contender.many()
            best = min(best, (self.now() - start) / 1e9)
        return contender.count / best


CLOCKS = {"wall": Clock("wall", time.perf_counter_ns, 1), "processor": Clock("processor", time.process_time_ns, 10)}


def start_up(run: str) -> float:
    """Return the least seconds in which a new process imports and loads a compiled model."""
    code = START.format(run)
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(ROUNDS)
    ]
    return min(float(done.stdout) for done in runs)


def adult_rows(run: str | None, folder: str) -> Adult:
    """Return the rows, and a run folder that is trained here where none is given."""
    from attfm.cli import main

    if run is None:
        run = f"{folder}/adult"
        if main(["train", "adult", "--out", run, "--no-report", "--quiet"]) != 0:
            raise SystemExit("The training failed.")
    train, test = (load_dataset(name).to_pandas() for name in ("adult", "adult-test"))
    target = load_model(run).target.name
    labels = (train.pop(target).astype(str).str.strip(". ") == ">50K").to_numpy().astype(int)
    test = test.drop(columns=target)
    categorical = [name for name in train if not pd.api.types.is_numeric_dtype(train[name])]
    return Adult(train, labels, test, categorical, run)


def shown(value: float | None, form: str) -> str:
    """Return a figure, or nothing where there is none."""
    return "" if value is None else format(value, form)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="run folder of a model of Adult (default: one is trained)")
    parser.add_argument("--only", default="lookup,trees,catboost,ebm", help="who takes part")
    parser.add_argument("--docs", action="store_true", help=f"write the result into docs/{PAGE.name}")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="what is counted (default: wall time)")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    with tempfile.TemporaryDirectory() as folder:
        adult = adult_rows(options.run, folder)
        lines, neighbours = [], Neighbours()
        makers = {"lookup": lookup, "trees": trees, "catboost": catboost, "ebm": ebm}
        for who in options.only.split(","):
            try:
                for contender in makers[who](adult):
                    gc.collect()
                    single, encoded = clock.microseconds(contender.row), clock.microseconds(contender.encoded)
                    figures = shown(single, ".1f"), shown(encoded, ".1f"), shown(clock.rows_a_second(contender), ",.0f")
                    lines.append([contender.name, *figures])
                    print(" | ".join(lines[-1]), flush=True)
            except ImportError as error:
                print(f"{who} is left out: {error}")
        goals = [
            f"at most {GOALS['row']:.0f}",
            f"at most {GOALS['encoded']:.0f}",
            f"at least {GOALS['many']:,} by two cores",
        ]
        lines.append(["*to reach by lookup*", *goals])
        seconds, share = start_up(adult.run), neighbours.share()
    per = "" if clock.name == "wall" else " of one core"
    head = ["a row of Adult", "from Python values, µs", "encoded, µs", f"many encoded rows, a second{per}"]
    text = table(head, lines)
    text += f"\n\nA process starts to serve {seconds:.2f} s after it is started (to reach: {GOALS['start']} s)."
    text += "" if share is None else f" Other processes used {share:.0%} of the machine's processors meanwhile."
    print(text)
    if options.docs:
        write_section("lookup", f"{circumstances(os.cpu_count() or 1, clock.name)}\n\n{text}", PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
