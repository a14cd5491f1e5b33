"""Positions in TOML texts, and edits that leave the rest alone."""

from __future__ import annotations

import string
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparegrid.tomledit import edit_toml
from sparegrid.tomlfile import KeyPath, TomlError, format_value, key_text, parse_toml

TEXT = '''a = 1 # x
"b c".d = "x]"
[s]
x = [1, [2, {z = """q
]"""}], # c ] }
 3 ]
d = 1979-05-27 07:32:00 # t
[[st]]
n = 'a'
w.q = true
[st.p.win]
argv = ["a"]
[[st.sub]]
k={}
[[st]]
n = "b"
[[st.sub]]
k=1
[[st.sub]]
k=2
"s.\\"x" . 'y z' = """"q"""""
'''


@pytest.mark.parametrize(
    ("path", "line", "shown"),
    [
        (("a",), 1, "1"),
        (("b c", "d"), 2, '"x]"'),
        (("s",), 3, "[s]"),
        (("s", "x", 1, 0), 4, "2"),
        (("s", "x", 1, 1, "z"), 4, '"""q\n]"""'),
        (("s", "x", 2), 6, "3"),
        (("s", "d"), 7, "1979-05-27 07:32:00"),
        (("st", 0, "n"), 9, "'a'"),
        (("st", 0, "w", "q"), 10, "true"),
        (("st", 0, "p"), 11, ""),
        (("st", 0, "p", "win", "argv", 0), 12, '"a"'),
        (("st", 0, "sub", 0, "k"), 14, "{}"),
        (("st", 1, "n"), 16, '"b"'),
        (("st", 1, "sub", 1, "k"), 20, "2"),
        (("st", 1, "sub", 1, 's."x', "y z"), 21, '""""q"""""'),
        (("st", 1, "missing", "deep"), 15, ""),
        (("nothing",), 1, ""),
    ],
)
def test_every_key_is_found_where_it_stands(path: KeyPath, line: int, shown: str) -> None:
    toml = parse_toml(TEXT)
    assert (toml.line(path), toml.shown(path)) == (line, shown)


def test_paths_and_values_are_shown_as_people_write_them() -> None:
    assert key_text(("stages", 0, "needs", 1, "a b")) == 'stages[0].needs[1]."a b"'
    assert parse_toml(f'a = "{"x" * 100}"').shown(("a",)) == '"' + "x" * 58 + "…"


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb =\n", 2), ("a = 1\n[a", 2), ("a=1\n\na=2", 3), ("a = [" + "[" * 5000, 1)]
)
def test_an_error_of_the_parser_names_the_line(text: str, line: int) -> None:
    with pytest.raises(TomlError) as caught:
        parse_toml(text)
    assert caught.value.line == line
    assert "(at" not in caught.value.message


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    toml = parse_toml("\ufeffa = 1\r\nb = 2\r\n")
    assert (toml.data, toml.line(("b",))) == ({"a": 1, "b": 2}, 2)


KEYS = st.text(string.ascii_lowercase + " .-\"'\\üß[]#=", min_size=1, max_size=6)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_written_value_reads_back_the_same(value: Any) -> None:
    assert tomllib.loads(f"x = {format_value(value)}") == {"x": value}


def _paths(value: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    found = [(path, value)] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [one for key, inner in pairs for one in _paths(inner, (*path, key))]


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_value_of_any_document_has_a_span_that_holds_it(data: dict[str, Any]) -> None:
    text = "".join(
        f"# {{[ comment\n{format_value(key)} = {format_value(value)} # ]\n" for key, value in data.items()
    )
    toml = parse_toml(text)
    assert toml.data == data
    for path, value in _paths(data):
        span = toml.spans[path]
        assert tomllib.loads(f"x = {text[span.value_start : span.value_end]}") == {"x": value}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[w]\nn = 9\n"),
        ("# top", "# top\n\n[w]\nn = 9\n"),
        ("[w]\nn = 1 # why\nm = 2\n", "[w]\nn = 9 # why\nm = 2\n"),
        ("[w]\nm = 2\n\n[x]\nn = 1\n", "[w]\nm = 2\nn = 9\n\n[x]\nn = 1\n"),
        ("[w] # none\n", "[w] # none\nn = 9\n"),
        ("w.n = 1\n", "w.n = 9\n"),
        ("w.m = 1\n[x]\n", "w.m = 1\nw.n = 9\n[x]\n"),
        ("w = { n = 1, m = 2 } # c\n", "w = { m = 2, n = 9 } # c\n"),
        ("[w]\nm = 1\n[w.n]\na = 1\nb = 2\n[x]\n", "[w]\nm = 1\nn = 9\n[x]\n"),
        ("[w.n]\na = 1\n", "[w]\nn = 9\n"),
        ("[w.m]\na = 1\n", "[w.m]\na = 1\n\n[w]\nn = 9\n"),
        ("[w]\nn.a = 1\nn.b = 2\nm = 3", "[w]\nm = 3\nn = 9\n"),
        ('[w]\nn = """\n1\n"""\nm = 1\n', "[w]\nn = 9\nm = 1\n"),
    ],
)
def test_an_edit_changes_one_key_and_nothing_else(before: str, after: str) -> None:
    assert edit_toml(before, "w", "n", 9) == after
    assert tomllib.loads(after)["w"]["n"] == 9
    removed = tomllib.loads(edit_toml(after, "w", "n", None))
    kept = tomllib.loads(before)
    kept.get("w", {}).pop("n", None)
    assert removed.get("w", {}) == kept.get("w", {})


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.none() | VALUES), max_size=8),
    st.sampled_from(["", "# c\n[b]\n# d\n\n[c]\nx = 1\n", "b = {}\n", "a.x = 1\n[b.y]\nz = 1\n"]),
)
def test_any_sequence_of_edits_leaves_what_was_last_set(edits: list[tuple[str, str, Any]], text: str) -> None:
    expected = tomllib.loads(text)
    for section, name, value in edits:
        text = edit_toml(text, section, name, value)
        if value is None:
            expected.get(section, {}).pop(name, None)
        else:
            expected.setdefault(section, {})[name] = value
    found = tomllib.loads(text)
    assert {key: value for key, value in found.items() if value} == {
        key: value for key, value in expected.items() if value
    }
