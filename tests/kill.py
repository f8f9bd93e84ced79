"""Trainings that are killed at random moments and gone on with: `python -m tests.kill TIMES [SEED]`.

Each process is forked, trains by the command, and gets SIGKILL after a random time; the next one goes on, until one
ends. Its weights must be those of a training that nobody killed, bit for bit. Forked processes don't load torch again.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attfm.commands.train  # noqa: F401 (torch is loaded once, before the forks)
from attfm.cli import main
from tests.shop import write_shop

SETTINGS = ("--set", "epochs=3", "--set", "dim=4", "--set", "batch_size=64", "--set", "n_models=2", "--seed", "1")


def command(*arguments: str) -> int:
    """Fork a process that runs `attfm train` with these arguments, without a word; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    with contextlib.suppress(BaseException), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        code = main(["train", *arguments])
    os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; return its exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_and_resumed(
    folder: Path, table: str, options: Sequence[str], times: int, seed: int, *, stream: bool = False
) -> tuple[int, int]:
    """Kill trainings so many times; return how many ended as they should, and how often a checkpoint was left.

    There are more kills where none of them left a checkpoint: nothing would have been gone on with.

    With `stream` rows are encoded into a cache, which each training that begins anew has to write again.

    Raises AssertionError where one failed, or ended with other weights.
    """
    folder.mkdir(exist_ok=True)
    whole, run, cache = folder / "whole", folder / "run", folder / "cache"
    options = [*options, "--stream", "--cache", str(cache)] if stream else options
    started = time.monotonic()
    assert ended(command(table, *options, "--out", str(whole), "--checkpoint-steps", "2")) == 0
    usual = time.monotonic() - started
    weights, chance = (whole / "weights.safetensors").read_bytes(), random.Random(seed)
    kills = finished = kept = 0
    fresh = [table, *options, "--out", str(run), "--force", "--checkpoint-steps", "2"]
    arguments = fresh
    while kills < times or (kills < 5 * times and not kept):
        if arguments is fresh:
            shutil.rmtree(cache, ignore_errors=True)
        child = command(*arguments)
        deadline = time.monotonic() + chance.uniform(0, 1.1 * usual)
        while time.monotonic() < deadline and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        if code == -signal.SIGKILL:
            kills += 1
            left = run.with_name("run.checkpoints")
            kept += any(left.glob("*.safetensors"))
            arguments = ["--resume", str(run)] if (left / "options.json").exists() else fresh
            continue
        assert code == 0, f"exit code {code} after {kills} kills"
        assert (run / "weights.safetensors").read_bytes() == weights, f"other weights after {kills} kills"
        finished, arguments = finished + 1, fresh
    if arguments is not fresh:
        assert ended(command(*arguments)) == 0
        assert (run / "weights.safetensors").read_bytes() == weights
        finished += 1
    assert not run.with_name("run.checkpoints").exists()
    assert not stream or len(list(cache.glob("*"))) <= 1, "an abandoned part of a cache was left"
    return finished, kept


def killed(times: int, seed: int = 0, rows: int = 200) -> None:
    """Kill trainings of so many rows, half of them on rows in memory, half on disk; say how many ended unharmed."""
    with tempfile.TemporaryDirectory() as name:
        table = write_shop(Path(name) / "shop.csv", rows)
        options = ["--target", "bought", *SETTINGS, "--no-report"]
        for stream in (False, True):
            half = times - times // 2 if stream else times // 2
            finished, kept = killed_and_resumed(
                Path(name) / str(stream), str(table), options, half, seed, stream=stream
            )
            assert kept, "no checkpoint was left by any: nothing was gone on with"
            where = "on disk" if stream else "in memory"
            print(f"{half} kills, {kept} with a checkpoint; {finished} trainings on rows {where} ended unharmed")


if __name__ == "__main__":
    killed(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, 600)
