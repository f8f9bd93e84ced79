"""What commands print, and how they hold back Ctrl-C."""

import io
import json
import os
import signal

import pytest

from attfm.commands.console import Output, duration, number, print_table, uninterrupted


def test_saving_is_not_interrupted() -> None:
    # A test run in the background of a shell inherits that Ctrl-C is ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def save() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("saved")

    with pytest.raises(KeyboardInterrupt):
        save()
    assert done == ["saved"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, inherited)


def test_figures_are_readable() -> None:
    assert [number(x) for x in (0.28004, None, float("nan"), 123456.7)] == ["0.2800", "-", "-", "123457"]
    assert [duration(x) for x in (0.84, 12.4, 200)] == ["0.8 s", "12 s", "3 min 20 s"]


def test_tables_are_plain_in_a_pipe_and_can_not_drive_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (io.StringIO(), Terminal()):
        print_table(("name", "n"), [("[bold]\x1b[31mevil\n", "12"), ("b", "3")], stream=stream, right=(1,))
        text = stream.getvalue()
        assert "\x1b[31m" not in text
        assert "[bold]·[31mevil·" in text
    stream = io.StringIO()
    print_table(("name", "n"), [("a", "12"), ("bcdef", "3")], stream=stream, right=(1,))
    assert stream.getvalue() == "name    n\na      12\nbcdef   3\n"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).result_json({"auc": float("nan"), "parts": [float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"auc": None, "parts": [None, 1.5]}
