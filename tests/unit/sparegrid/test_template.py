"""Placeholders are filled from the item, and refused when they mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from sparegrid.errors import BadInputError
from sparegrid.kinds import CommandParams
from sparegrid.template import Template, as_text, check_names


@pytest.mark.parametrize(
    ("value", "item", "filled"),
    [
        ("tile-{{index}}.png", None, "tile-7.png"),
        ("{{item}}", "a b", "a b"),
        ("{{ item }}!", 3, "3!"),
        (["{{x}}", "{{y}}"], {"x": 1.5, "y": True}, ["1.5", "true"]),
        ({"{{x}}": "{{x}}"}, {"x": "v"}, {"{{x}}": "v"}),
        ("{{index}}", {"index": "mine"}, "mine"),
        ("{{item}}", {"item": "mine"}, "mine"),
        ("{{x}}", {"x": None}, ""),
        ("{{x}}", {"x": [1, "a"]}, '[1,"a"]'),
        ("{{a-b.c}}", {"a-b.c": 1}, "1"),
        ("{{x}}{{x}}", {"x": "{{y}}"}, "{{y}}{{y}}"),
        (5, None, 5),
        ("a {single} brace } {", None, "a {single} brace } {"),
    ],
)
def test_placeholders_are_filled_from_item_and_index(value: Any, item: Any, filled: Any) -> None:
    assert Template(value).fill(item, 7) == filled


def test_a_struct_is_filled_field_by_field() -> None:
    params = CommandParams(argv=["echo", "{{item}}"], env={"N": "{{index}}"})
    assert Template(params).fill("x", 2) == CommandParams(argv=["echo", "x"], env={"N": "2"})


def test_a_value_without_placeholders_is_not_copied() -> None:
    params = CommandParams(argv=["true"])
    assert Template(params).fill("x", 2) is params


def test_what_is_no_name_is_refused_at_once() -> None:
    with pytest.raises(BadInputError, match="no name"):
        Template(["docker", "--format", "{{.Names}} x"])


@pytest.mark.parametrize(
    ("item", "message"),
    [({"x": 1}, r"\{\{x\}\}, \{\{index\}\}"), (5, "single values"), (None, "single values")],
)
def test_an_unknown_name_is_refused_with_what_there_is(item: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Template("{{nope}}").fill(item, 0)
    with pytest.raises(BadInputError, match=message):
        Template("{{nope}}").check(item)


def test_item_is_refused_where_items_have_keys() -> None:
    with pytest.raises(BadInputError, match="item"):
        check_names(Template("{{item}}").names, ["x"])
    check_names(Template("{{item}} {{index}}").names, [])
    check_names(Template("{{x}} {{index}}").names, ["x", "y"])


def test_texts_look_as_they_are_and_the_rest_as_json() -> None:
    assert [as_text(value) for value in ("é", 1, 2.5, False, None, {"a": 1})] == [
        "é",
        "1",
        "2.5",
        "false",
        "",
        '{"a":1}',
    ]
