"""Join codes: everything in one line, and no typing error goes unnoticed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparegrid.errors import BadInputError
from sparegrid.trust import codes
from sparegrid.trust.codes import Address, Invitation, decode_code, encode_code, encode_link, make_secret

FINGERPRINT = "0123456789abcdef" * 4
SECRET = "8ZNR5JDXWPY4XT3R"
INVITATION = Invitation((Address("192.168.1.5"),), FINGERPRINT, SECRET)
CODE = encode_code(INVITATION)


def test_the_code_of_a_known_invitation_never_changes() -> None:
    assert CODE == "240C-1A01-0M0J-6HB7-H6NW-VVR1-4D2P-F2DB-SQQM-FTW2-S6YY-BF2E-X1WA-4JWM"


def test_a_code_for_one_address_has_fourteen_groups() -> None:
    assert len(CODE.split("-")) == 14
    assert set(CODE) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")


HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z]{2,9}){0,2}", fullmatch=True),
)
ADDRESSES = st.lists(
    st.builds(Address, HOSTS, st.integers(1, 65535) | st.just(8443)), min_size=1, max_size=15
)


@given(ADDRESSES, st.binary(min_size=32, max_size=32), st.integers(0, 2**80 - 1))
def test_any_invitation_comes_back_from_its_code_and_its_link(
    addresses: list[Address], pin: bytes, number: int
) -> None:
    secret = "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[number >> shift & 31] for shift in range(75, -1, -5))
    code = encode_code(Invitation(tuple(addresses), pin.hex(), secret))
    expected = Invitation(tuple(addresses), pin[:16].hex(), secret)
    assert decode_code(code) == expected
    assert decode_code(encode_link(code)) == expected
    assert decode_code(f"  {code.lower().replace('-', ' ')}\n") == expected


def test_letters_that_look_alike_are_taken_for_each_other() -> None:
    assert decode_code(CODE.replace("0", "O").replace("1", "l")) == decode_code(CODE)


@given(st.data())
def test_one_wrong_letter_or_two_swapped_ones_are_noticed(data: st.DataObject) -> None:
    plain = CODE.replace("-", "")
    at = data.draw(st.integers(0, len(plain) - 2))
    wrong = data.draw(
        st.sampled_from([letter for letter in "0123456789ABCDEFGHJKMNPQRSTVWXYZ" if letter != plain[at]])
    )
    with pytest.raises(BadInputError, match="typing error"):
        decode_code(plain[:at] + wrong + plain[at + 1 :])
    if plain[at] != plain[at + 1]:
        with pytest.raises(BadInputError, match="typing error"):
            decode_code(plain[:at] + plain[at + 1] + plain[at] + plain[at + 2 :])


@given(st.integers(0, len(CODE) - 2))
def test_a_code_that_was_cut_off_is_noticed(length: int) -> None:
    with pytest.raises(BadInputError):
        decode_code(CODE[:length])


@given(st.binary(max_size=80))
def test_any_bytes_with_a_right_checksum_are_read_or_refused_in_words(body: bytes) -> None:
    text = codes._to_base32(body + codes._checksum(body))
    try:
        found = decode_code(text)
    except BadInputError:
        return
    assert 1 <= len(found.addresses) <= 15


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    with pytest.raises(BadInputError):
        decode_code(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "typing error"),
        ("1234-ÄBCD", "'Ä' does not occur"),
        ("1234-UBCD", "'U' does not occur"),
        ("sparegrid://join", "join link"),
        ("sparegrid://leave?code=1234", "join link"),
        ("sparegrid://join?code=", "join link"),
        ("https://example.org/join?code=1", "':' does not occur"),
    ],
)
def test_what_is_no_code_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        decode_code(text)


def test_a_link_may_be_spelled_as_browsers_do() -> None:
    assert decode_code(f"SPAREGRID:///join?code={CODE}") == decode_code(CODE)
    assert decode_code(f"sparegrid://join/?code={CODE}&x=1") == decode_code(CODE)


def test_a_code_of_a_newer_version_says_so() -> None:
    body = bytes([2 << 4 | 1]) + b"anything"
    with pytest.raises(BadInputError, match="version 2; this program reads version 1"):
        decode_code(codes._to_base32(body + codes._checksum(body)))


@pytest.mark.parametrize(
    ("invitation", "message"),
    [
        (INVITATION._replace(addresses=()), "1 to 15 addresses, not 0"),
        (INVITATION._replace(addresses=(Address("a"),) * 16), "not 16"),
        (INVITATION._replace(addresses=(Address("a", 0),)), "Port 0"),
        (INVITATION._replace(addresses=(Address(""),)), "'' is no address"),
        (INVITATION._replace(addresses=(Address("x" * 300),)), "is no address"),
        (INVITATION._replace(secret="8ZNR"), "none that `make_secret` made"),
        (INVITATION._replace(fingerprint="abc"), "hex digits"),
    ],
)
def test_an_invitation_that_makes_no_code_is_refused(invitation: Invitation, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        encode_code(invitation)


def test_a_secret_has_80_random_bits() -> None:
    secrets = {make_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {16}


def test_an_address_is_a_url() -> None:
    assert Address("192.0.2.1").url == "https://192.0.2.1:8443"
    assert Address("fe80::1", 9).url == "https://[fe80::1]:9"
    assert ipaddress.ip_address(decode_code(CODE).addresses[0].host).is_private
