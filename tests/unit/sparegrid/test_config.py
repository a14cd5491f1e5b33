"""Settings: environment beats file beats default, and every mistake is named."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sparegrid.config import Config, all_settings, find_setting, load, set_value, unset_value
from sparegrid.errors import ConfigError
from sparegrid.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.below(tmp_path).make()


def written(paths: Paths, text: str, **environ: str) -> Config:
    paths.config_file.write_text(text, "utf-8")
    return load(paths, environ)


def test_without_file_and_variables_everything_is_default(paths: Paths) -> None:
    config = load(paths, {})
    assert (config.coordinator.port, config.worker.slots, config.client.url) == (8443, 0, "")
    assert {row.source for row in config.explain()} == {"default"}


def test_the_environment_beats_the_file_and_the_file_the_default(paths: Paths) -> None:
    text = "version = 1\n[worker]\nslots = 3\nname = 'attic'\n"
    config = written(paths, text, SPAREGRID_WORKER_SLOTS="5")
    assert (config.worker.slots, config.worker.name) == (5, "attic")
    rows = {row.key: row for row in config.explain()}
    assert (rows["worker.slots"].source, rows["worker.slots"].locked) == ("SPAREGRID_WORKER_SLOTS", True)
    assert (rows["worker.name"].source, rows["worker.name"].locked) == (f"{paths.config_file}:4", False)
    assert rows["worker.cache"].source == "default"


def test_values_are_written_with_units_lists_and_pairs(paths: Paths) -> None:
    config = written(
        paths,
        "[coordinator]\nheartbeat_s = '2m'\ndisk_reserve = '2GiB'\ninterfaces = ['eth0']\n"
        "[worker.labels]\nroom = 'attic'\n",
        SPAREGRID_WORKER_CACHE="5 GB",
        SPAREGRID_WORKER_COUNTS="licences=2, seats=3",
        SPAREGRID_COORDINATOR_ANNOUNCE="off",
        SPAREGRID_COORDINATOR_KEEP_RESULTS="1d",
    )
    assert (config.coordinator.heartbeat_s, config.coordinator.disk_reserve) == (120.0, 2 << 30)
    assert config.coordinator.interfaces == ["eth0"]
    assert config.worker.labels == {"room": "attic"}
    assert (config.worker.cache, config.worker.counts) == (5_000_000_000, {"licences": 2, "seats": 3})
    assert (config.coordinator.announce, config.coordinator.keep_results) == (False, 86400.0)


def test_short_names_and_names_of_replaced_programs_work(paths: Paths) -> None:
    config = load(
        paths,
        {
            "SPAREGRID_URL": "https://a",
            "GOGRID_COORDINATOR_HOST": "b",
            "GOGRID_COORDINATOR_PORT": "9",
            "GOGRID_X": "y",
        },
    )
    assert (config.client.url, config.worker.coordinator) == ("https://a", "b:9")
    own = load(paths, {"SPAREGRID_WORKER_COORDINATOR": "c", "GOGRID_COORDINATOR_HOST": "b"})
    assert own.worker.coordinator == "c"
    assert load(paths, {"GOGRID_COORDINATOR_PORT": "9"}).worker.coordinator == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[worker]\nslotz = 1", r":2: there is no setting `worker.slotz`. Did you mean `worker.slots`"),
        ("[coordinatr]\nport = 1", r":1: there is no setting `coordinatr`. Did you mean `coordinator`"),
        ("slots = 1", r":1: there is no setting `slots`"),
        ("worker = 3", r":1: `worker` is 3; expected a table \[worker\]"),
        ("version = 2", r":1: version is 2; this program reads version 1"),
        ("[worker]\n\nslots = 99999", r":3: worker.slots is 99999; expected a whole number from 0 to 4096"),
        ("[worker]\nslots = 'a'", r":2: worker.slots is 'a'; expected a whole number"),
        ("[worker]\nslots = true", r":2: worker.slots is true; expected a whole number"),
        ("[worker]\ncache = '2 elephants'", r":2: worker.cache is '2 elephants'; expected a size like 2GiB"),
        ("[worker]\ncache = -1", r":2: worker.cache is -1; expected a size"),
        (
            "[coordinator]\nheartbeat_s = 0",
            r":2: coordinator.heartbeat_s is 0; expected a duration like .* 0.1 to 3600",
        ),
        ("[coordinator]\nsync = 'fast'", r":2: coordinator.sync is 'fast'; expected one of full, normal"),
        (
            "[coordinator]\ninterfaces = 'eth0'",
            r":2: coordinator.interfaces is 'eth0'; expected a list of text",
        ),
        ("[worker]\ncounts = { a = -1 }", r":2: worker.counts is { a = -1 }; expected a table"),
        ("a =", r":1: Invalid value"),
    ],
)
def test_a_mistake_in_the_file_names_line_key_value_and_what_was_expected(
    paths: Paths, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        written(paths, text)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SPAREGRID_WORKER_SLOTS", "many", "SPAREGRID_WORKER_SLOTS is 'many'; expected a whole number"),
        (
            "SPAREGRID_WORKER_SLOTZ",
            "1",
            "no setting for SPAREGRID_WORKER_SLOTZ. Did you mean `SPAREGRID_WORKER_SLOTS`",
        ),
        ("SPAREGRID_COORDINATOR_PORT", "70000", "expected a whole number from 0 to 65535"),
        ("SPAREGRID_COORDINATOR_ANNOUNCE", "perhaps", "expected true or false"),
        ("SPAREGRID_WORKER_LABELS", "room", "expected a table"),
        ("SPAREGRID_WORKER_COUNTS", "a=x", "expected a table"),
        ("SPAREGRID_WORKER_MEMORY", "lots", "expected a size"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(
    paths: Paths, name: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(paths, {name: value})


def test_variables_of_tasks_are_no_settings(paths: Paths) -> None:
    set_for_a_task = {"SPAREGRID_JOB": "1", "SPAREGRID_ITEM": "x", "SPAREGRID_WORKER_SLOTS": ""}
    assert load(paths, set_for_a_task).worker == load(paths, {}).worker


def test_a_secret_is_never_in_an_error(paths: Paths) -> None:
    with pytest.raises(ConfigError) as caught:
        written(paths, "[client]\ntoken = 123456")
    assert "123456" not in str(caught.value)
    assert next(
        row for row in load(Paths.below(paths.data), {}).explain() if row.key == "client.token"
    ).secret


def test_a_file_that_cannot_be_read_is_named(paths: Paths) -> None:
    paths.config_file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load(paths, {})
    paths.config_file.unlink()
    paths.config_file.mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml: .*directory"):
        load(paths, {})


def test_a_setting_is_written_and_taken_back_and_the_rest_stays(paths: Paths) -> None:
    set_value(paths, "worker.slots", "3")
    assert paths.config_file.read_text() == "version = 1\n\n[worker]\nslots = 3\n"
    paths.config_file.write_text("# mine\n[worker]\nslots = 3 # few\n")
    set_value(paths, "worker.slots", "4")
    set_value(paths, "worker.cache", "2GiB")
    set_value(paths, "worker.memory", "1000")
    set_value(paths, "worker.labels", "room=attic")
    assert paths.config_file.read_text() == (
        '# mine\n[worker]\nslots = 4 # few\ncache = "2GiB"\nmemory = 1000\nlabels = { room = "attic" }\n'
    )
    assert stat.S_IMODE(paths.config_file.stat().st_mode) == 0o600
    config = load(paths, {})
    assert (config.worker.slots, config.worker.cache, config.worker.labels) == (4, 2 << 30, {"room": "attic"})
    unset_value(paths, "worker.labels")
    unset_value(paths, "worker.labels")
    assert load(paths, {}).worker.labels == {}


def test_nothing_wrong_is_ever_written(paths: Paths) -> None:
    with pytest.raises(ConfigError, match="expected a whole number"):
        set_value(paths, "worker.slots", "many")
    with pytest.raises(ConfigError, match=r"Did you mean `worker\.slots`"):
        set_value(paths, "worker.slotz", "1")
    unset_value(paths, "worker.slots")
    assert not paths.config_file.exists()
    paths.config_file.write_text("[worker]\nslots = 'x'\nnope = 1\n")
    with pytest.raises(ConfigError, match=r"no setting `worker\.nope`"):
        set_value(paths, "worker.name", "pc")


def test_a_configuration_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    with pytest.raises(ConfigError):
        set_value(Paths.below(tmp_path), "worker.slots", "1")


def test_every_setting_has_help_and_a_variable_of_its_own() -> None:
    settings = list(all_settings())
    assert all(setting.help for setting in settings)
    names = [name for setting in settings for name in (setting.env, setting.also_env) if name]
    assert len(names) == len(set(names))
    assert find_setting("client.url").also_env == "SPAREGRID_URL"
