"""Published experiments, run again, and the settings files that come with the package."""

from importlib.resources import files
from pathlib import Path


def packaged_settings() -> dict[str, str]:
    """Return the settings files that come with the package, name to TOML text."""
    found = {Path(file.name).stem: file for file in files("attfm.reproduce").iterdir() if file.name.endswith(".toml")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}
