"""The command as a process of its own: starting, pipes, and Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.shop import write_shop

ATTFM = [sys.executable, "-m", "attfm"]


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


def test_ctrl_c_in_training_leaves_no_folder(tmp_path: Path) -> None:
    table = write_shop(tmp_path / "shop.csv")
    command = [*ATTFM, "train", table, "--target", "bought", "--valid", "none", "--set", "epochs=1000000"]

    def listen() -> None:  # a test run in the background of a shell inherits that Ctrl-C is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as process:
        assert process.stderr is not None
        for expected in ("epoch 1:", "epoch 2:"):
            line = process.stderr.readline()
            assert line.startswith(expected), line
        assert sorted(os.listdir("runs")) == ["shop-1", "shop-1.checkpoints"]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "attfm: interrupted, nothing half-written is left."
    assert os.listdir() == ["shop.csv"]


def test_a_reader_that_stops_early_is_no_failure_to_tell_of(run: str, tmp_path: Path) -> None:
    large = write_shop(tmp_path / "large.csv", 20_000)  # its scores don't fit in the pipe
    with subprocess.Popen(
        [*ATTFM, "predict", run, large], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "prediction,probability\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
