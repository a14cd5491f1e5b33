"""What this home may do on its grid, and refusals told in those words. Reads saved credentials; asks nobody."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from sparegrid.api import DEFAULT_PORT
from sparegrid.errors import DeniedError, GridError, UnauthenticatedError
from sparegrid.paths import Paths

_ROUTE = re.compile(r"\A[A-Z]+ /\S+ is for an? (\w+)\b.*", re.DOTALL)
_WHO = {
    "admin": "administrators of the grid",
    "submitter": "people who may submit",
    "viewer": "people who may look on",
    "worker": "devices that compute",
}


def full_url(text: str) -> str:
    """An address as it was typed, with the scheme and the port it leaves out: `attic` is `https://attic:8443`."""
    address = text.strip() if "://" in text else f"https://{text.strip()}"
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    if _bare_ipv6(host):
        host = f"[{host}]"
    if not host or re.search(r":\d+\Z", host):
        return address
    return f"{scheme}://{host.removesuffix(':')}:{DEFAULT_PORT}{slash}{path}"


def _bare_ipv6(host: str) -> bool:
    return host.count(":") > 1 and not host.startswith("[")


def home_role(paths: Paths, environ: Mapping[str, str]) -> str:
    """The role in which verbs of this home speak; empty when it is not known here."""
    from sparegrid.trust.access import load_credentials, read_access

    with contextlib.suppress(GridError):
        if environ.get("SPAREGRID_TOKEN") or environ.get("SPAREGRID_CLIENT_TOKEN"):
            return ""
        if read_access(paths) is not None:
            return "admin"
        saved = load_credentials(paths, environ.get("SPAREGRID_GRID", ""))
        return saved[0].role if saved else ""
    return ""


def refusal_in_words(error: DeniedError, role: str) -> DeniedError:
    """A refusal as a person understands it: who may do this, and how to become one of them."""
    if isinstance(error, UnauthenticatedError) or type(error) is not DeniedError:
        return error
    if role == "worker":
        return DeniedError(
            "This computer is joined as a worker only",
            "To look and submit from here, two commands are needed:",
            "on the coordinator:  sparegrid join-code --role submitter\nhere:                sparegrid join CODE",
        )
    found = _ROUTE.match(error.message)
    if found is None:
        return error
    message = f"This is for {_WHO.get(found[1], found[1])}"
    if role:
        message += f"; you are here as {'an' if role[0] in 'aeiou' else 'a'} {role}"
    return DeniedError(error.title, message, error.hint)
