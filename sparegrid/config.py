"""Configuration: environment beats `config.toml` beats default, and every value knows where it came from.

The settings themselves are declared in `settings`. This module finds, checks, explains and writes them; it
knows nothing of what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect

from sparegrid.errors import ConfigError, StorageError
from sparegrid.expect import describe, nearest
from sparegrid.paths import Paths
from sparegrid.settings import ALIASES, SECTIONS, ClientSettings, CoordinatorSettings, WorkerSettings
from sparegrid.tomledit import edit_toml
from sparegrid.tomlfile import KeyPath, TomlError, TomlText, key_text, parse_toml
from sparegrid.trust.files import write_private
from sparegrid.units import DURATION_EXAMPLE, SIZE_EXAMPLE, parse_duration, parse_size

FILE_VERSION = 1


@dataclass(frozen=True)
class Setting:
    """One setting as it is declared."""

    section: str
    name: str
    type: Any
    default: Any
    help: str
    unit: str = ""
    secret: bool = False
    also_env: str = ""

    @property
    def key(self) -> str:
        """`worker.slots`."""
        return f"{self.section}.{self.name}"

    @property
    def env(self) -> str:
        """`SPAREGRID_WORKER_SLOTS`."""
        return f"SPAREGRID_{self.section}_{self.name}".upper()


@dataclass(frozen=True)
class Row:
    """One line of `sparegrid config show`. `source` is `default`, `FILE:LINE` or a variable's name."""

    key: str
    value: Any
    source: str
    help: str
    env: str
    default: Any
    secret: bool
    locked: bool
    """An environment variable sets it: writing the file would change nothing."""


@dataclass(frozen=True)
class Config:
    """All settings of one home."""

    file: Path
    coordinator: CoordinatorSettings
    worker: WorkerSettings
    client: ClientSettings
    sources: Mapping[str, str]

    def explain(self) -> list[Row]:
        """Every setting with its value and where that came from, in the order of declaration."""
        rows: list[Row] = []
        for setting in all_settings():
            value = getattr(getattr(self, setting.section), setting.name)
            source = self.sources.get(setting.key, "default")
            locked = source != "default" and not source.startswith(str(self.file))
            rows.append(
                Row(
                    setting.key,
                    value,
                    source,
                    setting.help,
                    setting.env,
                    setting.default,
                    setting.secret,
                    locked,
                )
            )
        return rows


def all_settings() -> Iterator[Setting]:
    """Every setting that is declared."""
    for section, struct in SECTIONS.items():
        info = inspect.type_info(struct)
        assert isinstance(info, inspect.StructType), "sections are Structs"
        hints = get_type_hints(struct, include_extras=True)
        for field in info.fields:
            meta = field.type if isinstance(field.type, inspect.Metadata) else None
            schema = (meta.extra_json_schema if meta else None) or {}
            factory = field.default_factory
            yield Setting(
                section=section,
                name=field.name,
                type=hints[field.name],
                default=field.default if factory is msgspec.NODEFAULT else factory(),
                help=str(schema.get("description", "")),
                **((meta.extra if meta else None) or {}),
            )


def find_setting(key: str) -> Setting:
    """The setting called `section.name`. Raises ConfigError with the nearest one when there is none."""
    known = {setting.key: setting for setting in all_settings()}
    if key not in known:
        hint = nearest(key, known) or "`sparegrid config show` lists all settings"
        raise ConfigError("Unknown setting", f"There is no setting {key!r}", hint)
    return known[key]


def load(paths: Paths, environ: Mapping[str, str] | None = None) -> Config:
    """The settings of a home.

    Raises:
        ConfigError: the file or a variable is wrong: names the file, line and key, the value and what was
        expected.
    """
    environ = os.environ if environ is None else environ
    file = paths.config_file
    toml = read_file(file)
    _check_variables(environ)
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    sources: dict[str, str] = {}
    for setting in all_settings():
        found = _from_environment(setting, environ) or _from_file(setting, file, toml)
        if found is not None:
            values[setting.section][setting.name], sources[setting.key] = found
    return Config(
        file,
        CoordinatorSettings(**values["coordinator"]),
        WorkerSettings(**values["worker"]),
        ClientSettings(**values["client"]),
        sources,
    )


def read_file(file: Path) -> TomlText:
    """The configuration file, its version and keys checked; an empty one when there is none.

    Raises:
        ConfigError: it cannot be read, is not TOML, is of a newer version, or has unknown keys.
    """
    try:
        toml = parse_toml(file.read_text("utf-8"))
    except FileNotFoundError:
        return parse_toml("")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("Cannot read the configuration", f"{file}: {error}") from error
    except TomlError as error:
        raise ConfigError("Not a TOML file", f"{file}:{error.line}: {error.message}") from error
    version = toml.data.get("version", FILE_VERSION)
    if version != FILE_VERSION:
        raise ConfigError(
            "Configuration of another version",
            f"{file}:{toml.line(('version',))}: version is {toml.shown(('version',))}; "
            f"this program reads version {FILE_VERSION}",
            "Update the program, or remove the file to begin anew",
        )
    known = {setting.key for setting in all_settings()} | {"version"}
    for path in _leaves(toml.data):
        key = ".".join(str(part) for part in path)
        if key in SECTIONS:
            shown = f"{file}:{toml.line(path)}: `{key}` is {toml.shown(path)}"
            raise ConfigError("Wrong value in the configuration", f"{shown}; expected a table [{key}]")
        if key not in known:
            raise ConfigError(
                "Unknown setting",
                f"{file}:{toml.line(path)}: there is no setting `{key_text(path)}`",
                nearest(key, SECTIONS if len(path) == 1 else known)
                or "`sparegrid config show` lists all settings",
            )
    return toml


def set_value(paths: Paths, key: str, text: str) -> None:
    """Write one setting into the file; `text` as in a variable (`2GiB`, `a,b`, `room=attic`). The rest stays
    as it is.

    Raises:
        ConfigError: no such setting, a wrong value, or a file that is wrong already or cannot be written.
    """
    setting = find_setting(key)
    value = _from_text(setting, text, key)
    # A size or duration stays as the person wrote it.
    _rewrite(paths, setting, text.strip() if setting.unit and not _is_number(text) else value)


def unset_value(paths: Paths, key: str) -> None:
    """Take one setting out of the file, back to its default. Raises ConfigError as `set_value` does."""
    _rewrite(paths, find_setting(key), None)


def _rewrite(paths: Paths, setting: Setting, value: Any) -> None:
    file = paths.config_file
    old = read_file(file).text
    new = edit_toml(old or f"version = {FILE_VERSION}\n", setting.section, setting.name, value)
    if new == old or (not old and value is None):
        return
    # The result must read back before it replaces what is there.
    parse_toml(new)
    try:
        write_private(file, new.encode())
    except StorageError as error:
        raise ConfigError("Cannot write the configuration", error.message) from error


# ---- where values come from
# -------------------------------------------------------------------------------------


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> tuple[Any, str] | None:
    """The value and the variable's name. An empty variable counts as not set."""
    for name in (setting.env, setting.also_env):
        text = environ.get(name, "") if name else ""
        if text:
            return _from_text(setting, text, name), name
    alias = ALIASES.get(setting.key)
    text = alias.read(environ) if alias else ""
    if alias and text:
        return _from_text(setting, text, alias.name), alias.name
    return None


def _from_file(setting: Setting, file: Path, toml: TomlText) -> tuple[Any, str] | None:
    section = toml.data.get(setting.section, {})
    if setting.name not in section:
        return None
    path: KeyPath = (setting.section, setting.name)
    value = section[setting.name]
    where = f"{file}:{toml.line(path)}"
    shown = toml.shown(path)
    if setting.unit and isinstance(value, str):
        value = _parse_unit(setting, value, f"{where}: {setting.key}", shown)
    return _convert(setting, value, f"{where}: {setting.key}", shown), where


def _check_variables(environ: Mapping[str, str]) -> None:
    """A mistyped variable would be ignored in silence: refuse it."""
    known = {name for setting in all_settings() for name in (setting.env, setting.also_env)}
    prefixes = tuple(f"SPAREGRID_{section}_".upper() for section in SECTIONS)
    for name in sorted(environ):
        if name.startswith(prefixes) and name not in known:
            raise ConfigError("Unknown variable", f"There is no setting for {name}", nearest(name, known))


def _leaves(data: Mapping[str, Any]) -> Iterator[KeyPath]:
    """Paths of everything that should be a setting: a section's keys, and keys outside sections."""
    for section, content in data.items():
        if section in SECTIONS and isinstance(content, dict):
            yield from ((section, name) for name in content)
        else:
            yield (section,)


# ---- reading a value
# --------------------------------------------------------------------------------------------


def _wrong(setting: Setting, where: str, shown: str) -> ConfigError:
    expected = {"size": f"a size like {SIZE_EXAMPLE}", "duration": f"a duration like {DURATION_EXAMPLE}"}
    value = "wrong" if setting.secret else shown
    limits = describe(setting.type)
    text = f"{expected[setting.unit]} ({limits})" if setting.unit else limits
    return ConfigError(
        "Wrong value in the configuration", f"{where} is {value}; expected {text}", setting.help
    )


def _convert(setting: Setting, value: Any, where: str, shown: str) -> Any:
    try:
        return msgspec.convert(value, setting.type)
    except msgspec.ValidationError as error:
        raise _wrong(setting, where, shown) from error


def _from_text(setting: Setting, text: str, where: str) -> Any:
    return _convert(setting, _parse_text(setting, text, where), where, repr(text))


def _parse_unit(setting: Setting, text: str, where: str, shown: str) -> float | int:
    try:
        return parse_size(text) if setting.unit == "size" else parse_duration(text)
    except ValueError as error:
        raise _wrong(setting, where, shown) from error


def _parse_text(setting: Setting, text: str, where: str) -> Any:
    """The value that a variable's text means: units, numbers, `true`, `a,b` for lists, `a=1,b=2` for
    tables."""
    text = text.strip()
    if setting.unit:
        return _parse_unit(setting, text, where, repr(text))
    info = inspect.type_info(setting.type)
    plain = info.type if isinstance(info, inspect.Metadata) else info
    if isinstance(plain, inspect.ListType):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(plain, inspect.DictType):
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        if not all(middle for _, middle, _ in pairs):
            raise _wrong(setting, where, repr(text))
        whole = isinstance(plain.value_type, inspect.IntType)
        return {name.strip(): _whole(value.strip()) if whole else value.strip() for name, _, value in pairs}
    if isinstance(plain, inspect.BoolType):
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        return words.get(text.lower(), text)
    return _whole(text) if isinstance(plain, inspect.IntType) else text


def _whole(text: str) -> int | str:
    """A number, or the text itself for the type check to refuse."""
    return int(text) if text.lstrip("-").isdecimal() else text


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdecimal()
