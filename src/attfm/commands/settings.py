"""Settings of a run from all places: the defaults, a file, the preset, and single ones on the command line."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attfm.config import Config, DataConfig, ModelConfig, TrainConfig, unknown_setting
from attfm.errors import ConfigError, nearest
from attfm.reproduce import packaged_settings

SECTIONS: dict[str, type[DataConfig | ModelConfig | TrainConfig]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
}


def read_settings(name: str) -> dict[str, Any]:
    """Return a settings file's sections, given its path or the name of one in the package."""
    path = Path(name).expanduser()
    known = packaged_settings()
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The settings file '{name}' can't be read: {error}.") from None
    elif name in known:
        text = known[name]
    else:
        hint = nearest(name, known).strip(" ()") or f"the package has {', '.join(known)}."
        raise ConfigError(f"There is no settings file '{name}': {hint}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The settings file '{name}' is not TOML: {error}.") from None


def gather_config(
    *,
    base: Config | None = None,
    file: str | None = None,
    preset: str | None = None,
    assignments: Sequence[str] = (),
    seed: int | None = None,
    split: str | None = None,
    ignored: Sequence[str] = (),
) -> Config:
    """Return the settings of a run; later ones win: defaults or `base`, file, preset, assignments, seed and split.

    An assignment is "key=value", where key is a setting ("dim"), with or without its section ("model.dim").
    `ignored` are the columns that are no input.
    """
    values: dict[str, Any] = {} if base is None else base.model_dump(mode="json")
    if file is not None:
        of_file = read_settings(file)
        Config.parse(of_file, where=f"'{file}'")
        values = {name: {**values.get(name, {}), **of_file.get(name, {})} for name in {*values, *of_file}}
    if preset is not None:
        values.setdefault("model", {})["preset"] = preset
    for text in assignments:
        _assign(values, text)
    if seed is not None:
        values.setdefault("train", {})["seed"] = seed
    if split is not None:
        values.setdefault("train", {})["split"] = split
    for column in ignored:
        values.setdefault("data", {}).setdefault("columns", {})[column] = {"kind": "ignored"}
    return Config.parse(values, where="the settings")


def _assign(values: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    section, _, name = key.strip().partition(".")
    if section not in SECTIONS:
        section, name = _section_of(section), key.strip()
    name, _, rest = name.partition(".")
    if not equals or not name:
        raise ConfigError(f"--set {text} is not key=value, for example --set dim=16 or --set model.dim=16.")
    if name not in SECTIONS[section].model_fields:
        raise ConfigError(unknown_setting(name, SECTIONS[section].model_fields, where=f"--set {text}"))
    # A column's name may have dots: "columns.home.zip.kind" is the setting "kind" of "home.zip".
    parts = [section, name, *(rest.rpartition(".")[::2] if name == "columns" and rest else [rest] if rest else [])]
    if "" in parts:
        raise ConfigError(f"--set {text} names no setting of the column: write --set columns.NAME.kind=categorical.")
    place = values
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {text}: '{part}' is {place!r} and has no parts.")
    place[parts[-1]] = _scalar(value.strip())


def _section_of(name: str) -> str:
    sections = {setting: section for section, kind in SECTIONS.items() for setting in kind.model_fields}
    if name not in sections:
        raise ConfigError(unknown_setting(name, sections, where="--set"))
    return sections[name]


def _scalar(text: str) -> Any:
    """Return a value as TOML reads it ("none" is None), or the text itself."""
    if text.lower() == "none":
        return None
    try:
        parsed: Mapping[str, Any] = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if set(parsed) == {"value"} else text
