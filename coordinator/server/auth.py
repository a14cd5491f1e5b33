"""Who is asking, and what they may do: tokens, one-time join codes, roles. Keeps hashes, never a secret.

A token that opens a door is looked up in memory; the store is the truth behind it. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from coordinator.server.store import AuditRow, JoinCodeRow, Store, TokenRow
from coordinator.server.store.trust import CODE_ID_BYTES
from sparegrid.errors import BadInputError, DeniedError, TooManyTriesError, UnauthenticatedError
from sparegrid.ids import DeviceId, PrincipalId
from sparegrid.states import Role
from sparegrid.trust.codes import make_secret
from sparegrid.trust.keys import device_id
from sparegrid.trust.tokens import hash_secret, make_token

LOCAL = PrincipalId("local")
_MAY: dict[Role, frozenset[Role]] = {
    Role.WORKER: frozenset({Role.WORKER, Role.SUBMITTER, Role.ADMIN}),
    Role.VIEWER: frozenset({Role.VIEWER, Role.SUBMITTER, Role.ADMIN}),
    Role.SUBMITTER: frozenset({Role.SUBMITTER, Role.ADMIN}),
    Role.ADMIN: frozenset({Role.ADMIN}),
}
"""Who may use a route of this least role."""


class Principal(NamedTuple):
    """Who a token speaks for."""

    id: PrincipalId
    role: Role
    device: DeviceId = DeviceId("")
    """Of a worker's token: its device."""

    @property
    def sees_all(self) -> bool:
        """Submitters see their own jobs only."""
        return self.role in (Role.ADMIN, Role.VIEWER)

    def sees(self, submitter: str) -> bool:
        """Whether jobs of this submitter are shown to it."""
        return self.sees_all or (self.role == Role.SUBMITTER and submitter == self.id)

    def may(self, least: Role) -> bool:
        """Whether it may do what asks for this least role."""
        return self.role in _MAY[least]


class Tries:
    """Wrong tokens and codes by address: after `limit` within `window_s` the address waits. Right ones always pass."""

    def __init__(
        self, now: Callable[[], float], limit: int = 10, window_s: float = 60.0, kept: int = 4096
    ) -> None:
        self._now = now
        self._limit = limit
        self._window_s = window_s
        self._kept = kept
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raise TooManyTriesError while the address waits."""
        failed = self._recent(address)
        if len(failed) >= self._limit:
            wait_s = max(1, round(failed[0] + self._window_s - self._now()))
            raise TooManyTriesError(
                "Too many wrong tries",
                f"{len(failed)} wrong tokens or codes came from {address} within {self._window_s:.0f} s",
                f"Try again in {wait_s} s",
            )

    def failed(self, address: str) -> None:
        """A wrong one came from here."""
        self._failed[address] = [*self._recent(address), self._now()]
        self._failed.move_to_end(address)
        while len(self._failed) > self._kept:
            self._failed.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self._now() - self._window_s
        return [moment for moment in self._failed.get(address, ()) if moment > since]


class Invited(NamedTuple):
    """What a join code let in: the token is shown once, its row is committed by the caller."""

    token: str
    row: TokenRow
    role: Role
    device: DeviceId


class Auth:
    """Tokens and join codes of one grid.

    Args:
        store: its `trust` tables.
        admin_token: what `access.json` carries: valid while this coordinator runs, never stored.
        wall_ms: wall time.
        now: any monotonic seconds.
    """

    def __init__(
        self, store: Store, *, admin_token: str, wall_ms: Callable[[], int], now: Callable[[], float]
    ) -> None:
        self._trust = store.trust
        self._wall_ms = wall_ms
        self._known: dict[bytes, Principal] = {
            row.hash: _principal(row) for row in self._trust.tokens() if not row.revoked_ms
        }
        self._known[_hash(admin_token)] = Principal(LOCAL, Role.ADMIN)
        self.tries = Tries(now)

    def principal(self, token: str, address: str) -> Principal:
        """Who holds this token.

        Raises:
            UnauthenticatedError: nobody (counts as a wrong try of the address).
            TooManyTriesError: the address has to wait.
        """
        found = self._known.get(_hash(token)) if token else None
        if found is not None:
            return found
        self.tries.check(address)
        if not token:
            raise UnauthenticatedError("No token", "This needs a token", "Join the grid with a code first")
        self.tries.failed(address)
        raise UnauthenticatedError(
            "Unknown token",
            "The coordinator does not know this token, or has revoked it",
            "Join the grid again",
        )

    # ---- joining ----------------------------------------------------------------------------------------------

    async def invite(self, role: Role, valid_s: int, by: Principal) -> tuple[str, int]:
        """A new one-time secret, and when it expires (wall ms)."""
        secret = make_secret()
        now = self._wall_ms()
        expires = now + valid_s * 1000
        code = JoinCodeRow(hash=_code_key(secret), role=role, expires_ms=expires, created_by=by.id)
        await asyncio.wrap_future(self._trust.add_join_code(code))
        await self.audit(by, "join code made", role)
        return secret, expires

    async def admit(
        self, secret: str, name: str, public_key: bytes, address: str, wanted: str = ""
    ) -> Invited:
        """Spend a code: a token for its role, not valid before `welcome`.

        Raises:
            BadInputError: a worker without a public key, or a code for something else than `wanted`
            (`worker`, `person`, or empty); the code stays good.
            DeniedError: unknown, used, expired, or out of tries.
            TooManyTriesError: the address has to wait.
        """
        self.tries.check(address)
        device = device_id(public_key) if public_key else DeviceId("")
        try:
            code = await asyncio.wrap_future(
                self._trust.use_join_code(
                    _code_key(secret), self._wall_ms(), lambda open_: _unfit(Role(open_.role), wanted, device)
                )
            )
        except DeniedError:
            self.tries.failed(address)
            raise
        role = Role(code.role)
        token = make_token()
        principal = PrincipalId(name) if role == Role.WORKER else self._free_name(name, device)
        row = TokenRow(_hash(token), role, principal, device, self._wall_ms())
        return Invited(token, row, role, device)

    async def keep(self, row: TokenRow) -> None:
        """Make a token durable that comes without a device."""
        await asyncio.wrap_future(self._trust.add_token(row))

    def welcome(self, row: TokenRow) -> None:
        """The token is durable: from now on it opens doors."""
        self._known[row.hash] = _principal(row)

    def revoke_device(self, device: DeviceId) -> None:
        """The device's tokens open nothing any more (the store revokes them with the `Revoked` fact)."""
        self._known = {key: each for key, each in self._known.items() if each.device != device or not device}

    def owns_token(self, device: DeviceId) -> bool:
        """Whether a token belongs to this device; boards have none."""
        return any(each.device == device for each in self._known.values())

    async def audit(self, by: Principal, action: str, subject: str, detail: str = "") -> None:
        """Keep a line of the audit trail."""
        row = AuditRow(self._wall_ms(), by.id, action, subject, detail)
        await asyncio.wrap_future(self._trust.audit(row))

    def _free_name(self, name: str, device: DeviceId) -> PrincipalId:
        """The name, or `name-2` and so on: who joins must not become somebody whose jobs are not theirs."""
        taken = {each.id for each in self._known.values() if not device or each.device != device} | {LOCAL}
        return PrincipalId(next(each for each in _numbered(name) if each not in taken))


def _numbered(name: str) -> Iterable[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _unfit(role: Role, wanted: str, device: DeviceId) -> BadInputError | None:
    """Why a code of this role must not be spent on what asks for it."""
    if role == Role.WORKER and wanted not in ("", "worker"):
        return BadInputError(
            "Another kind of join code",
            "This code is for a worker: `sparegrid worker --join CODE`",
            "The code is still good; `sparegrid join-code --role submitter` makes one for a person",
        )
    if role != Role.WORKER and wanted == "worker":
        article = "an" if role == Role.ADMIN else "a"
        return BadInputError(
            "Another kind of join code",
            f"This code is for {article} {role}: `sparegrid join CODE`",
            "The code is still good; `sparegrid join-code` makes one for a worker",
        )
    if role == Role.WORKER and not device:
        return BadInputError("No public key", "A device joins with its public key of 32 bytes; none was sent")
    return None


def _code_key(secret: str) -> bytes:
    """What the store knows a code by: the first letters of its secret, which are public, and its hash."""
    return secret.encode()[:CODE_ID_BYTES].ljust(CODE_ID_BYTES, b"\0") + _hash(secret)


def _hash(secret: str) -> bytes:
    return bytes.fromhex(hash_secret(secret))


def _principal(row: TokenRow) -> Principal:
    return Principal(row.principal, Role(row.role), DeviceId(row.device))
