"""The command as a process of its own: starting, pipes, and Ctrl-C."""

import os
import subprocess
import sys
from pathlib import Path

from tests.forked import command, interrupt, needs_fork
from tests.shop import write_shop

# What would make a prediction's start slow is told at its end.
PREDICT = """
import atexit, os, sys
from attfm.cli import main

def tell():
    print("loaded:", *({"sklearn", "scipy", "matplotlib"} & set(sys.modules)), file=sys.stderr)

atexit.register(tell)
sys.exit(main(["predict", *sys.argv[1:]]))
"""


def test_help_comes_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from attfm.cli import main\n"
        "for command in ('', 'train', 'tune', 'evaluate', 'predict', 'explain', 'report', 'reproduce', 'datasets'):\n"
        "    assert main([*command.split(), '--help']) == 0\n"
        "print('loaded:', *({'torch', 'sklearn', 'pyarrow', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "loaded:")
    assert "--target" in done.stdout


@needs_fork
def test_ctrl_c_in_training_leaves_no_folder(tmp_path: Path) -> None:
    table = write_shop(tmp_path / "shop.csv")
    with command("train", table, "--target", "bought", "--valid", "none", "--set", "epochs=1000000") as (
        process,
        stderr,
    ):
        for expected in ("epoch 1:", "epoch 2:"):
            line = stderr.readline()
            assert line.startswith(expected), line
        assert sorted(os.listdir("runs")) == ["shop-1", "shop-1.checkpoints"]
        interrupt(process)
        rest = stderr.read()
    assert process.exitcode == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "attfm: interrupted, nothing half-written is left."
    assert os.listdir() == ["shop.csv"]


def test_a_reader_that_stops_early_is_no_failure_to_tell_of(run: str, tmp_path: Path) -> None:
    large = write_shop(tmp_path / "large.csv", 20_000)  # its scores don't fit in the pipe
    with subprocess.Popen(
        [sys.executable, "-c", PREDICT, run, large], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "prediction,probability\n"
        process.stdout.close()
        assert process.stderr.read() == "loaded:\n"
    assert process.returncode == 141
