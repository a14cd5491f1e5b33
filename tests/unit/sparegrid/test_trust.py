"""Keys, the certificate, tokens and saved credentials."""

from __future__ import annotations

import stat
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sparegrid.errors import BadInputError, StorageError
from sparegrid.paths import Paths
from sparegrid.trust.access import (
    Access,
    Credentials,
    forget_credentials,
    load_credentials,
    read_access,
    remove_access,
    save_credentials,
    write_access,
)
from sparegrid.trust.certificate import Certificate
from sparegrid.trust.files import read_private, write_private, write_private_once
from sparegrid.trust.keys import DeviceKey, device_id, signature_is_good
from sparegrid.trust.tokens import TOKEN_PREFIX, hash_secret, make_token, secret_matches


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pem_of(key: X25519PrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# ---- files


def test_a_private_file_is_replaced_whole_and_readable_by_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    assert read_private(path) is None
    write_private(path, b"one")
    write_private(path, b"two")
    assert read_private(path) == b"two"
    assert mode(path) == 0o600
    assert names_in(path.parent) == ["secret"]


def test_of_many_programs_that_make_a_file_at_once_one_wins_and_all_see_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(lambda number: write_private_once(path, b"%d" % number), range(40)))
    assert seen == {path.read_bytes()}
    assert names_in(tmp_path) == ["secret"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for attempt in (write_private, write_private_once):
        with pytest.raises(StorageError, match="file/secret"):
            attempt(tmp_path / "file" / "secret", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        write_private(tmp_path / "folder", b"x")
    with pytest.raises(StorageError, match="folder"):
        read_private(tmp_path / "folder")
    assert names_in(tmp_path) == ["file", "folder"]


# ---- keys


def test_a_device_keeps_its_key_and_its_id_follows_from_it(tmp_path: Path) -> None:
    key = DeviceKey.load_or_make(tmp_path / "device.pem")
    again = DeviceKey.load_or_make(tmp_path / "device.pem")
    assert (key.id, key.public) == (again.id, again.public)
    assert mode(tmp_path / "device.pem") == 0o600
    assert len(key.id) == 20
    assert set(key.id) <= set(string.ascii_lowercase + "234567")
    assert DeviceKey.make().id != key.id


def test_the_id_of_a_known_key_never_changes() -> None:
    assert device_id(bytes(range(32))) == "mmg42klgyqzwneiskrel"
    with pytest.raises(BadInputError, match="32 bytes, not 5"):
        device_id(b"short")


def test_a_signature_is_good_for_its_key_and_data_only() -> None:
    key = DeviceKey.make()
    signature = key.sign(b"data")
    assert signature_is_good(key.public, signature, b"data")
    assert not signature_is_good(key.public, signature, b"date")
    assert not signature_is_good(DeviceKey.make().public, signature, b"data")
    assert not signature_is_good(b"no key", signature, b"data")
    assert not signature_is_good(key.public, b"short", b"data")


def test_a_damaged_or_foreign_device_key_is_refused_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "device.pem"
    for data, message in (
        (b"", "no private key"),
        (b"rubbish", "no private key"),
        (pem_of(X25519PrivateKey.generate()), "not Ed25519"),
    ):
        path.write_bytes(data)
        with pytest.raises(StorageError, match=message):
            DeviceKey.load_or_make(path)
        assert path.read_bytes() == data


# ---- certificate


def test_a_coordinator_keeps_its_certificate(tmp_path: Path) -> None:
    path = tmp_path / "coordinator" / "identity.pem"
    first = Certificate.load_or_make(path)
    assert Certificate.load_or_make(path) == first
    assert mode(path) == 0o600
    assert len(first.fingerprint) == 64
    assert len(first.grid) == 20
    other = Certificate.load_or_make(tmp_path / "other.pem")
    assert {other.grid, other.fingerprint}.isdisjoint({first.grid, first.fingerprint})


def test_a_renewed_certificate_of_the_same_key_is_the_same_grid(tmp_path: Path) -> None:
    first = Certificate.load_or_make(tmp_path / "a.pem")
    pem = (tmp_path / "a.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    old = x509.load_pem_x509_certificate(pem)
    renewed = x509.CertificateBuilder(
        issuer_name=old.issuer,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=old.not_valid_before_utc,
        not_valid_after=old.not_valid_after_utc,
    ).sign(key, old.signature_hash_algorithm)  # type: ignore[arg-type]  # an elliptic curve key, as made above
    start = pem.index(b"-----BEGIN CERTIFICATE")
    (tmp_path / "b.pem").write_bytes(pem[:start] + renewed.public_bytes(serialization.Encoding.PEM))
    second = Certificate.load_or_make(tmp_path / "b.pem")
    assert second.grid == first.grid
    assert second.fingerprint != first.fingerprint


def test_a_damaged_identity_is_refused_and_not_overwritten(tmp_path: Path) -> None:
    good, other = tmp_path / "good.pem", tmp_path / "other.pem"
    Certificate.load_or_make(good)
    Certificate.load_or_make(other)
    key, certificate = good.read_bytes().split(b"-----BEGIN CERTIFICATE", 1)
    foreign = other.read_bytes().split(b"-----BEGIN CERTIFICATE", 1)[1]
    marker = b"-----BEGIN CERTIFICATE"
    cases = {
        b"": "does not hold",
        key: "does not hold",
        marker + certificate: "does not hold",
        key + marker + foreign: "does not belong",
        pem_of(Ed25519PrivateKey.generate()) + marker + certificate: "not an elliptic curve",
    }
    path = tmp_path / "identity.pem"
    for data, message in cases.items():
        path.write_bytes(data)
        with pytest.raises(StorageError, match=message):
            Certificate.load_or_make(path)
        assert path.read_bytes() == data


def test_an_identity_that_vanishes_before_it_is_used_is_named(tmp_path: Path) -> None:
    certificate = Certificate.load_or_make(tmp_path / "identity.pem")
    certificate.path.unlink()
    with pytest.raises(StorageError, match=r"identity\.pem"):
        certificate.server_context()


# ---- tokens


def test_tokens_have_256_random_bits_and_match_their_hash_only() -> None:
    tokens = {make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith(TOKEN_PREFIX) and len(token) == len(TOKEN_PREFIX) + 43 for token in tokens)
    token = tokens.pop()
    assert secret_matches(token, hash_secret(token))
    assert not secret_matches(token + "x", hash_secret(token))
    assert not secret_matches("", hash_secret(token))
    assert not secret_matches("\udcff", "not a häsh")


# ---- access and credentials


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.below(tmp_path)


def test_programs_of_the_home_read_how_to_reach_its_coordinator(paths: Paths) -> None:
    assert read_access(paths) is None
    access = Access("https://127.0.0.1:1", "ab" * 32, "sgt_x", "grid", "lab", 42, "/run/s.sock")
    write_access(paths, access)
    assert read_access(paths) == access
    assert mode(paths.access_file) == 0o600
    remove_access(paths, 41)
    assert read_access(paths) == access, "another coordinator wrote it"
    remove_access(paths, 42)
    assert read_access(paths) is None
    remove_access(paths, 42)


def test_damaged_access_is_named(paths: Paths) -> None:
    write_private(paths.access_file, b'{"url": 3}')
    with pytest.raises(StorageError, match=r"access\.json"):
        read_access(paths)


def credentials(grid: str, name: str, role: str, token: str = "sgt_x") -> Credentials:
    return Credentials(grid, name, ("https://192.0.2.1:8443",), "ab" * 32, token, role, "device")


def test_joins_are_kept_by_grid_and_role(paths: Paths) -> None:
    assert load_credentials(paths) == []
    attic, attic_person = credentials("g1", "attic", "worker"), credentials("g1", "attic", "submitter")
    lab = credentials("g2", "lab", "worker")
    for one in (lab, attic, attic_person):
        save_credentials(paths, one)
    assert load_credentials(paths) == [attic_person, attic, lab]
    assert load_credentials(paths, "attic", ("worker",)) == [attic]
    assert load_credentials(paths, "g2") == [lab]
    assert load_credentials(paths, "cellar") == []
    renewed = credentials("g2", "lab", "worker", "sgt_new")
    save_credentials(paths, renewed)
    assert load_credentials(paths, "lab") == [renewed]
    assert mode(paths.grid("g1") / "credentials.json") == 0o600


def test_a_join_is_forgotten(paths: Paths) -> None:
    save_credentials(paths, credentials("g1", "attic", "worker"))
    assert not forget_credentials(paths, "g2", "worker")
    assert not forget_credentials(paths, "g1", "admin")
    assert forget_credentials(paths, "g1", "worker")
    assert load_credentials(paths) == []


def test_other_files_among_the_grids_do_not_matter_but_damaged_ones_are_named(paths: Paths) -> None:
    paths.grids.mkdir(parents=True)
    (paths.grids / "notes.txt").touch()
    (paths.grids / "empty").mkdir()
    assert load_credentials(paths) == []
    (paths.grids / "empty" / "credentials.json").write_bytes(b"{")
    with pytest.raises(StorageError, match=r"empty/credentials\.json"):
        load_credentials(paths)
