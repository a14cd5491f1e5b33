"""A device's key pair (Ed25519) and the id that follows from it. Knows nothing of grids or tokens."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sparegrid.errors import BadInputError, StorageError
from sparegrid.ids import DeviceId
from sparegrid.trust.files import read_private, write_private_once

PUBLIC_KEY_BYTES = 32


def short_id(data: bytes) -> str:
    """The first 100 bits of SHA-256 of `data` as 20 lower-case base32 characters: the form of device and grid
    ids."""
    return base64.b32encode(hashlib.sha256(data).digest()).decode("ascii").lower()[:20]


def device_id(public_key: bytes) -> DeviceId:
    """The id of the device with this raw Ed25519 public key.

    Raises:
        BadInputError: not 32 bytes.
    """
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise BadInputError(
            "Not a public key", f"A device's public key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}"
        )
    return DeviceId(short_id(public_key))


def signature_is_good(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the device with this raw public key signed `data`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class DeviceKey:
    """The key pair of one device. `public` is the raw public key, 32 bytes; `id` the device's id."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.id = device_id(self.public)

    @classmethod
    def make(cls) -> DeviceKey:
        """A new key that is nowhere saved."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_make(cls, path: Path) -> DeviceKey:
        """The key in the file `path`, made (0600) the first time.

        Raises:
            StorageError: the file cannot be read or written, or holds something else.
        """
        data = read_private(path)
        if data is None:
            data = write_private_once(path, cls.make().to_pem())
        try:
            private = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise StorageError(
                "Damaged key",
                f"{path} holds no private key",
                "Move it away to make a new device of this machine",
            ) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise StorageError("Foreign key", f"{path} holds a key that is not Ed25519", "Move it away")
        return cls(private)

    def to_pem(self) -> bytes:
        """The private key as PEM (PKCS 8), not encrypted."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes."""
        return self._private.sign(data)
