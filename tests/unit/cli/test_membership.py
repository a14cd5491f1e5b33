"""Addresses as people type them, and refusals in words that they understand."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparegrid.cli.membership import full_url, home_role, refusal_in_words
from sparegrid.errors import DeniedError, UnauthenticatedError
from sparegrid.paths import Paths
from sparegrid.trust.access import Access, Credentials, save_credentials, write_access


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("attic", "https://attic:8443"),
        ("attic:9000", "https://attic:9000"),
        ("https://attic/", "https://attic:8443/"),
        ("https://attic:1", "https://attic:1"),
        ("::1", "https://[::1]:8443"),
        ("[::1]:5", "https://[::1]:5"),
        ("10.0.0.1", "https://10.0.0.1:8443"),
    ],
)
def test_an_address_without_a_port_means_the_usual_one(typed: str, meant: str) -> None:
    assert full_url(typed) == meant


def test_a_home_speaks_in_its_ablest_role(tmp_path: Path) -> None:
    environ = {"SPAREGRID_HOME": str(tmp_path)}
    paths = Paths.find(environ).make()
    assert home_role(paths, environ) == ""
    for role in ("worker", "submitter"):
        save_credentials(paths, Credentials("g", "home", ("https://a:1",), "ab", "token", role))
        assert home_role(paths, environ) == role
    write_access(paths, Access("https://a:1", "ab", "token"))
    assert home_role(paths, environ) == "admin"
    assert home_role(paths, environ | {"SPAREGRID_TOKEN": "another"}) == ""


ROUTE = DeniedError(
    "Not allowed", "POST /v1/join-codes is for an admin; this token is one of a submitter", "Ask"
)


def test_a_worker_is_told_how_a_person_joins() -> None:
    told = refusal_in_words(ROUTE, "worker")
    assert told.title == "This computer is joined as a worker only"
    assert "sparegrid join-code --role submitter" in told.hint


def test_a_refusal_names_who_may_and_no_route() -> None:
    told = refusal_in_words(ROUTE, "submitter")
    assert told.message == "This is for administrators of the grid; you are here as a submitter"
    assert told.hint == "Ask"


def test_other_refusals_stay_as_they_are() -> None:
    unknown = UnauthenticatedError("Unknown token", "The coordinator does not know it")
    assert refusal_in_words(unknown, "worker") is unknown
    other = DeniedError("Not allowed", "The code has expired")
    assert refusal_in_words(other, "submitter") is other
