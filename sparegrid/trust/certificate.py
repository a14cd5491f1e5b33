"""The coordinator's certificate: made on first start, pinned by everybody, trusted by its fingerprint alone.

Names and dates in it are decoration, so its dates are fixed and no clock is asked: a device with a wrong
clock connects like any other. P-256, because browsers do not take Ed25519 certificates.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparegrid.errors import StorageError
from sparegrid.ids import GridId
from sparegrid.trust.files import read_private, write_private, write_private_once
from sparegrid.trust.keys import short_id

_VALID_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_VALID_UNTIL = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Certificate:
    """A coordinator's identity. `path` holds private key and certificate as PEM, 0600."""

    path: Path
    fingerprint: str
    """SHA-256 of the certificate (DER), 64 lower-case hex digits: what everybody pins."""
    grid: GridId
    """Follows from the public key, so that a renewed certificate of the same key is the same grid."""

    @classmethod
    def load_or_make(cls, path: Path) -> Certificate:
        """The identity in the file `path`, made the first time.

        Raises:
            StorageError: the file cannot be read or written, or is damaged.
        """
        data = read_private(path)
        if data is None:
            data = write_private_once(path, _make_pem())
        try:
            certificate = x509.load_pem_x509_certificate(data)
            private = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise StorageError(
                "Damaged identity",
                f"{path} does not hold a private key and a certificate",
                "Restore it from a backup; with a new one every device must join anew",
            ) from error
        public = _public_der(certificate.public_key())
        if _public_der(private.public_key()) != public:
            raise StorageError("Damaged identity", f"The key in {path} does not belong to its certificate")
        der = certificate.public_bytes(serialization.Encoding.DER)
        return cls(path, fingerprint_of(der), GridId(short_id(public)))

    def publish(self, path: Path) -> None:
        """Write the certificate alone, as PEM, for programs that pin a file (`curl --cacert`); nothing secret.

        Raises:
            StorageError: the identity cannot be read any more, or `path` cannot be written.
        """
        data = read_private(self.path)
        if data is None:
            raise StorageError("Damaged identity", f"{self.path} has vanished")
        pem = x509.load_pem_x509_certificate(data).public_bytes(serialization.Encoding.PEM)
        if read_private(path) != pem:
            write_private(path, pem)

    def server_context(self) -> ssl.SSLContext:
        """TLS of the coordinator's port: version 1.3 only.

        Raises:
            StorageError: the file has vanished or changed since.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(self.path)
        except (OSError, ssl.SSLError) as error:
            raise StorageError("Damaged identity", f"{self.path}: {error}") from error
        return context


def fingerprint_of(der: bytes) -> str:
    """The fingerprint of a certificate (DER): SHA-256, 64 lower-case hex digits."""
    return hashlib.sha256(der).hexdigest()


def _public_der(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise StorageError("Foreign identity", "The coordinator's key is not an elliptic curve key")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _make_pem() -> bytes:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Sparegrid coordinator")])
    alternatives = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_UNTIL)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    key_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem + certificate.public_bytes(serialization.Encoding.PEM)
