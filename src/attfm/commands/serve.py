"""`attfm serve`: a saved model as a web service."""

import os
import warnings
from pathlib import Path

from attfm.commands.console import Output
from attfm.errors import ConfigError, DataWarning
from attfm.serve.http.settings import ServiceSettings

KEY_VARIABLE = "ATTFM_API_KEY"


def serve(run: str, settings: ServiceSettings, *, output: Output) -> None:
    """Serve a run folder until the process is asked to end; see `attfm.cli.serve` for the options."""
    from attfm.serve.http.server import serve as run_service

    def started(url: str) -> None:
        output.result_json({"run": run, "url": url, "pid": os.getpid(), "seconds": output.seconds})
        if output.as_json:
            return
        output.say(f"serving {run} at {url} (page: {url}/, requests: {url}/docs); Ctrl-C ends it")
        if not settings.is_loopback and settings.api_key is None:
            output.say("others can ask it without a key: set one by --api-key-file, or keep it behind a proxy")

    warnings.simplefilter("ignore", DataWarning)  # of values in requests: they are counted instead
    run_service(run, settings, started=started)


def read_api_key(file: str | None) -> str | None:
    """Return the key in a file, or in the environment; None where there is none."""
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"Can't read the API key from '{file}': {reason}. Give a file that holds it.") from None
    if not key:
        raise ConfigError(f"'{file}' is empty: put the API key there, 16 characters or more.")
    return key
