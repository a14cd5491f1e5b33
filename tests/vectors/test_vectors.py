"""Every message has golden bytes; today's code writes and reads them, and reads what is newer."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest

from sparegrid import api, messages
from sparegrid.codec import FrameCodec, Undecodable
from tests.vectors import samples

WORKER_TO: FrameCodec[Any] = FrameCodec(messages.ToWorker)
WORKER_FROM: FrameCodec[Any] = FrameCodec(messages.FromWorker)
GOLDEN: dict[str, dict[str, str]] = {
    path.name: json.loads(path.read_text("utf-8")) for path in sorted(samples.FOLDER.glob("*.json"))
}
UNIONS: dict[str, Any] = {
    "to_worker": messages.ToWorker,
    "from_worker": messages.FromWorker,
    "events": api.Event | api.Subscribe,
}
SETS: list[tuple[str, Any, dict[str, Any]]] = [
    ("to_worker.msgpack.json", messages.ToWorker, samples.to_worker()),
    ("to_worker.json.json", messages.ToWorker, samples.to_worker(samples.PARAMS_JSON)),
    ("from_worker.msgpack.json", messages.FromWorker, samples.from_worker()),
    ("from_worker.json.json", messages.FromWorker, samples.from_worker()),
    ("events.json.json", UNIONS["events"], samples.events()),
]
CASES = [
    pytest.param(file, union, name, sample, id=f"{file}:{name}")
    for file, union, all_ in SETS
    for name, sample in all_.items()
]


def golden_bytes(file: str, name: str) -> bytes:
    text = GOLDEN[file][name]
    return bytes.fromhex(text) if ".msgpack." in file else text.encode()


def codec_of(file: str, union: Any) -> FrameCodec[Any]:
    return FrameCodec(union, text=".msgpack." not in file)


def plain(file: str) -> Any:
    return msgspec.msgpack if ".msgpack." in file else msgspec.json


@pytest.mark.parametrize(("file", "union", "name", "sample"), CASES)
def test_a_sample_encodes_to_its_golden_bytes_and_back(file: str, union: Any, name: str, sample: Any) -> None:
    golden = golden_bytes(file, name)
    assert plain(file).encode(sample) == golden, "a released message changed: add fields, never change them"
    decoded, unknown = codec_of(file, union).decode(codec_of(file, union).encode([msgspec.Raw(golden)] * 2))
    assert unknown == []
    assert decoded == [sample, sample]


@pytest.mark.parametrize(("file", "union", "name", "sample"), CASES)
def test_a_sample_with_fields_of_a_newer_version_reads_the_same(
    file: str, union: Any, name: str, sample: Any
) -> None:
    newer = plain(file).decode(golden_bytes(file, name))
    newer["invented_later"] = {"deep": [1, 2.5, None, "x"]}
    decoded, unknown = codec_of(file, union).decode(plain(file).encode([newer]))
    assert unknown == []
    if isinstance(sample, messages.Template):
        # Its parameters are raw bytes, which decoding and encoding again may spell otherwise.
        assert plain(file).decode(decoded[0].params) == plain(file).decode(sample.params)
        decoded[0].params = sample.params
    assert decoded == [sample]


def test_array_like_structs_take_more_elements_than_they_know() -> None:
    run = msgspec.msgpack.encode([7, 0, "item", None, None, 1, "invented later"])
    assert msgspec.msgpack.decode(run, type=messages.Run) == messages.Run(7, 0, "item")
    assert msgspec.msgpack.decode(
        msgspec.msgpack.encode([1, 2, 3, 4]), type=messages.Usage
    ) == messages.Usage(1, 2, 3)


@pytest.mark.parametrize("file", sorted(GOLDEN))
def test_every_message_of_a_union_has_a_sample_and_golden_bytes(file: str) -> None:
    (union, all_samples), *_ = [(union, all_samples) for name, union, all_samples in SETS if name == file]
    assert {type(sample) for sample in all_samples.values()} == set(get_args(union))
    assert set(GOLDEN[file]) == set(all_samples)


@pytest.mark.parametrize("file", sorted(GOLDEN))
def test_every_optional_field_is_set_in_some_sample(file: str) -> None:
    all_samples = next(all_samples for name, _, all_samples in SETS if name == file)
    for kind in {type(sample) for sample in all_samples.values()}:
        members = [sample for sample in all_samples.values() if type(sample) is kind]
        for field in msgspec.structs.fields(kind):
            if field.required or field.name == "major":
                continue
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            values = [getattr(sample, field.name) for sample in members]
            assert any(value != default for value in values), f"{kind.__name__}.{field.name} is in no sample"


def test_an_unknown_message_costs_only_itself() -> None:
    known = messages.Ack("device", [1])
    frame = msgspec.msgpack.encode([known, {"t": "invented_later", "x": 1}, known, 7, {"no": "tag"}])
    decoded, unknown = WORKER_TO.decode(frame)
    assert decoded == [known, known]
    assert [type(one) for one in unknown] == [Undecodable] * 3
    assert "invented_later" in unknown[0].reason


def test_a_known_message_with_a_field_of_a_wrong_type_costs_only_itself() -> None:
    known = messages.Started("device", [1])
    frame = msgspec.json.encode([{"t": "started", "device": "device", "attempts": "many"}, known])
    decoded, unknown = FrameCodec[Any](messages.FromWorker, text=True).decode(frame)
    assert decoded == [known]
    assert len(unknown) == 1
    assert "attempts" in unknown[0].reason


def test_unknown_values_of_open_enums_are_kept_as_they_came() -> None:
    frame = msgspec.msgpack.encode(
        [
            {"t": "policy", "device": "d", "state": "hibernating"},
            {
                "t": "ended",
                "device": "d",
                "job": 1,
                "stage": 0,
                "index": 0,
                "attempt": 1,
                "blame": "moon",
                "reason": "",
            },
        ]
    )
    (policy, ended), unknown = WORKER_FROM.decode(frame)
    assert unknown == []
    assert (policy.state, ended.blame) == ("hibernating", "moon")


def test_a_hello_of_a_newer_minor_version_is_read() -> None:
    newer = {
        "t": "hello",
        "major": 1,
        "minor": 99,
        "role": "worker",
        "token": "t",
        "session": "s",
        "colour": "blue",
    }
    (hello,), unknown = WORKER_FROM.decode(msgspec.msgpack.encode([newer]))
    assert unknown == []
    assert (hello.major, hello.minor) == (1, 99)


def test_a_text_that_is_not_utf_8_costs_only_its_message() -> None:
    bad = b"\x82\xa1t\xa3ack\xa6device\xa2\xff\xfe"
    good = msgspec.msgpack.encode(messages.Ack("d", [1]))
    decoded, unknown = WORKER_TO.decode(b"\x92" + bad + good)
    assert decoded == [messages.Ack("d", [1])]
    assert len(unknown) == 1


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"{}", b"[", msgspec.msgpack.encode({"t": "ack"}), b"\x91"])
def test_a_frame_that_is_no_list_is_refused(frame: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        WORKER_TO.decode(frame)


def test_an_empty_frame_holds_no_messages() -> None:
    assert WORKER_TO.decode(WORKER_TO.encode([])) == ([], [])


def test_views_read_what_a_newer_coordinator_adds_but_submissions_refuse_what_they_do_not_know() -> None:
    view = msgspec.json.decode(b'{"code": "x", "title": "y", "later": 1}', type=api.Problem)
    assert view == api.Problem("x", "y")
    with pytest.raises(msgspec.ValidationError, match="priorty"):
        msgspec.json.decode(b'{"name": "x", "stages": [{}], "priorty": 1}', type=api.JobSpec)
