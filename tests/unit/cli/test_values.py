"""What people type for times, requirements and names with values."""

from __future__ import annotations

from typing import Any

import pytest

from sparegrid.cli.values import key_values, requirements, seconds
from sparegrid.errors import BadInputError


@pytest.mark.parametrize(("text", "value"), [("90", 90.0), ("10m", 600.0), ("2h", 7200.0), ("1.5m", 90.0)])
def test_times_carry_units(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("texts", "fields"),
    [
        (["os=linux,macos", "os=windows"], {"os": ["linux", "macos", "windows"]}),
        (["platform=linux/aarch64"], {"platforms": ["linux/aarch64"]}),
        (["program=ffmpeg", "program=sox"], {"programs": ["ffmpeg", "sox"]}),
        (["memory=4G", "vram=8GiB"], {"memory": 4 << 30, "vram": 8 << 30}),
        (["cpus=2.5", "gpus=1"], {"cpus": 2.5, "gpus": 1}),
        (["label.room=attic", "label.ssd=yes"], {"labels": {"room": "attic", "ssd": "yes"}}),
        (["count.licence=2"], {"counts": {"licence": 2}}),
        (["device=my pc", "network"], {"device": "my pc", "network": True}),
    ],
)
def test_requirements_become_the_fields_of_the_interface(texts: list[str], fields: dict[str, Any]) -> None:
    assert requirements(texts) == fields


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ram=4G", "'ram'"),
        ("memory", "'memory'"),
        ("memory=lots", "'lots'"),
        ("cpus=many", "'many'"),
        ("label.=x", "'label.'"),
        ("count.a=1.5", "'1.5'"),
    ],
)
def test_a_wrong_requirement_is_named(text: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said.replace(".", r"\.")):
        requirements([text])


def test_names_with_values_split_at_the_first_equals_sign() -> None:
    assert key_values(["a=1", "b=x=y", "c="], "variable") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("text", ["a", "=1", ""])
def test_a_name_without_a_value_is_refused_by_what_it_should_be(text: str) -> None:
    with pytest.raises(BadInputError, match="Not a label"):
        key_values([text], "label")


@pytest.mark.parametrize("text", ["", "soon", "1h30", "-5s"])
def test_a_wrong_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInputError, match="10m"):
        seconds(text)
