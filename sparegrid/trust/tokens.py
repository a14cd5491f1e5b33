"""Tokens: 256 random bits that speak for a principal. Only their hashes are ever stored by a coordinator."""

from __future__ import annotations

import hashlib
import hmac
import secrets

TOKEN_PREFIX = "sgt_"
"""Lets secret scanners and people recognise a token that leaked into a log or a repository."""


def make_token() -> str:
    """A new token: the prefix and 256 random bits in URL-safe base64."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """What is stored of a token or of a join code's secret: SHA-256 in hex.

    A slow hash would gain nothing: a token has 256 random bits, and a join secret 80 for ten minutes and five
    tries.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def secret_matches(secret: str, stored_hash: str) -> bool:
    """Whether `secret` has this stored hash; takes the same time whatever differs."""
    return hmac.compare_digest(hash_secret(secret).encode(), stored_hash.encode("utf-8", "surrogatepass"))
