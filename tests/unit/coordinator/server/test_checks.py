"""What a job is refused for when it arrives, and how the refusal reads."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from coordinator.server.checks import MAX_ITEM_BYTES, check_items, check_submission
from coordinator.server.wire import undecodable
from sparegrid.api import JobSpec, JobView
from sparegrid.errors import BadInputError, NotFoundError, TooLargeError
from sparegrid.ids import StageIndex

HASH = "ab" * 32


class FakeBlobs:
    """Blobs in memory."""

    def __init__(self, *blobs: bytes) -> None:
        self.blobs = {hashlib.sha256(data).hexdigest(): data for data in blobs}

    async def size(self, name: str) -> int | None:
        return len(self.blobs[name]) if name in self.blobs else None

    async def get_bytes(self, name: str, limit: int) -> bytes:
        if name not in self.blobs:
            raise NotFoundError("No such blob")
        return self.blobs[name][:limit]


def job(*stages: dict[str, Any], **fields: Any) -> JobSpec:
    """A spec from plain JSON; a stage without parameters runs `true`."""
    whole = [{"params": {"argv": ["true"]}, **stage} for stage in stages] or [{"params": {"argv": ["true"]}}]
    return msgspec.convert({"name": "j", "stages": whole, **fields}, JobSpec)


async def refusal(
    *stages: dict[str, Any], blobs: FakeBlobs | None = None, max_tasks: int = 1000, **fields: Any
) -> str:
    with pytest.raises(BadInputError) as caught:
        await check_submission(job(*stages, **fields), blobs or FakeBlobs(), max_tasks)
    return str(caught.value)


async def test_a_plain_job_is_taken_as_it_is() -> None:
    checked = await check_submission(job({"items": {"count": 7}}), FakeBlobs(), 1000)
    assert checked.tasks == 7
    assert checked.spec.stages[0].items.count == 7


async def test_a_stage_may_have_no_items() -> None:
    assert (await check_submission(job({"items": {"count": 0}}), FakeBlobs(), 1000)).tasks == 0


async def test_names_may_hold_slashes_and_emoji() -> None:
    checked = await check_submission(job({"name": "a/b 🎬"}, name="films/2026 🎬"), FakeBlobs(), 1000)
    assert checked.spec.name == "films/2026 🎬"


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"name": "a"}, {"name": "a"}], ["stages[1].name", "'a'", "stages[0]"]),
        ([{"name": "12"}], ["stages[0].name", "number"]),
        ([{"name": "a\nb"}], ["stages[0].name", "control characters"]),
        (
            [{"needs": [{"stage": "rendr"}]}, {"name": "render"}],
            ["stages[0].needs[0].stage", "'rendr'", "render"],
        ),
        (
            [{"name": "a", "needs": [{"stage": "b"}]}, {"name": "b", "needs": [{"stage": "a"}]}],
            ["wait for each other", "a → b → a"],
        ),
        ([{"name": "a", "needs": [{"stage": "a"}]}], ["a → a"]),
        ([{"items": {"count": 3, "values": [1]}}], ["stages[0].items", "count and values"]),
        ([{"items": {"axes": {}}}], ["stages[0].items.axes", "no axis"]),
        (
            [{"items": {"axes": {"x": {"start": 1, "stop": 2, "step": 0}}}}],
            ["stages[0].items.axes.x", "steps of 0"],
        ),
        ([{"items": {"stage": {"stage": "a"}}}, {"name": "a"}], ["stages[0].items.stage", "keeps no files"]),
        ([{"params": {"argv": ["echo", 5]}}], ["stages[0].params.argv[1]: expected str, got int"]),
        ([{"params": {"argv": ["true"], "argc": 1}}], ["stages[0].params", "unknown field argc"]),
        ([{"params": {}}], ["stages[0].params", "neither argv nor shell"]),
        ([{"params": {"argv": ["true"], "shell": "true"}}], ["stages[0].params", "argv and shell"]),
        (
            [{"params": {"argv": ["echo", "{{frame}}"]}}],
            ["stages[0].params.argv[1]", "{{frame}}", "{{index}}"],
        ),
        (
            [{"params": {"argv": ["{{x}}"]}, "items": {"values": [{"x": 1}, {"y": 2}]}}],
            ["{{x}}", "items.values[1]", "{{y}}"],
        ),
        ([{"params": {"argv": ["{{a b}}"]}}], ["stages[0].params.argv[0]", "{{a b}}"]),
        ([{"kind": "No Kind"}], ["stages[0].kind", "No Kind"]),
        ([{"outputs": ["../x"]}], ["stages[0].outputs[0]", "'../x'"]),
        ([{"outputs": ["/etc/*"]}], ["stages[0].outputs[0]", "relative"]),
        (
            [{"inputs": [{"path": "a\\b", "content": {"t": "inline", "data": ""}}]}],
            ["stages[0].inputs[0].path"],
        ),
        (
            [{"inputs": [{"path": p, "content": {"t": "inline", "data": ""}} for p in ("A", "a")]}],
            ["stages[0].inputs[1].path", "given twice"],
        ),
        (
            [{"inputs": [{"path": "a", "content": {"t": "blob", "hash": HASH, "size": 3}}]}],
            ["Blobs are missing", "stages[0].inputs[0]", HASH],
        ),
        ([{"needs": [{"stage": "b", "into": "{{x}}"}]}, {"name": "b"}], ["stages[0].needs[0].into", "{{x}}"]),
        ([{"params": {"platforms": {"dos": {"argv": ["x"]}}}}], ["platforms.dos", "not a platform"]),
        ([{"params": {"platforms": {"linux": {"env": {}}}}}], ["platforms.linux", "neither argv nor shell"]),
    ],
)
async def test_what_cannot_run_is_refused_naming_the_place(
    stages: list[dict[str, Any]], words: list[str]
) -> None:
    text = await refusal(*stages)
    assert all(word in text for word in words), text


async def test_more_tasks_than_the_limit_are_refused_naming_both() -> None:
    text = await refusal({"items": {"count": 600}}, {"name": "b", "items": {"count": 401}}, max_tasks=1000)
    assert "1001" in text
    assert "1000 is the limit" in text


async def test_a_product_of_ranges_is_counted_without_making_it() -> None:
    axes = {name: {"start": 1, "stop": 100_000} for name in "xyz"}
    assert str(10**15) in await refusal({"items": {"axes": axes}})


async def test_one_item_over_its_limit_is_refused() -> None:
    with pytest.raises(TooLargeError, match=r"items\.values\[1\].*is the limit of one item"):
        await check_submission(job({"items": {"values": [1, "x" * MAX_ITEM_BYTES]}}), FakeBlobs(), 1000)


async def test_an_inline_file_over_the_limit_is_refused() -> None:
    content = {"t": "inline", "data": "A" * 12000}
    with pytest.raises(TooLargeError, match=r"inputs\[0\]\.content.*8192 is the limit"):
        await check_submission(job({"inputs": [{"path": "a", "content": content}]}), FakeBlobs(), 1000)


async def test_items_of_a_blob_are_read() -> None:
    data = msgspec.json.encode([{"x": at} for at in range(5)])
    blobs = FakeBlobs(data)
    ref = {"t": "blob", "hash": next(iter(blobs.blobs)), "size": len(data)}
    checked = await check_submission(
        job({"params": {"argv": ["echo", "{{x}}"]}, "items": {"blob": ref}}), blobs, 1000
    )
    assert checked.tasks == 5
    assert checked.spec.stages[0].items.values == [{"x": at} for at in range(5)]
    assert checked.spec.stages[0].items.blob is None


async def test_a_blob_that_is_no_array_is_refused() -> None:
    blobs = FakeBlobs(b'{"x": 1}')
    ref = {"t": "blob", "hash": next(iter(blobs.blobs)), "size": 8}
    assert "stages[0].items.blob: expected a JSON array" in await refusal(
        {"items": {"blob": ref}}, blobs=blobs
    )


async def test_a_blob_of_another_size_is_refused() -> None:
    blobs = FakeBlobs(b"12345678")
    ref = {"t": "blob", "hash": next(iter(blobs.blobs)), "size": 9}
    entry = {"path": "a", "content": ref}
    assert "has 8 bytes, not 9" in await refusal({"inputs": [entry]}, blobs=blobs)


async def test_a_file_item_must_be_there_and_have_a_good_path() -> None:
    missing = {"file": {"path": "a", "content": {"t": "blob", "hash": HASH, "size": 1}}}
    assert "items.values[0].file" in await refusal({"items": {"values": [missing]}})
    outside = {"file": {"path": "../a", "content": {"t": "inline", "data": ""}}}
    assert "items.values[0].file.path" in await refusal({"items": {"values": [outside]}})


async def test_a_command_with_variants_only_runs_on_their_platforms() -> None:
    params = {"platforms": {"linux": {"argv": ["true"]}, "windows/x86_64": {"shell": "rem"}}}
    checked = await check_submission(job({"params": params}), FakeBlobs(), 1000)
    assert checked.spec.stages[0].requires.platforms == ["linux", "windows/x86_64"]
    checked = await check_submission(
        job({"params": params, "requires": {"platforms": ["windows"]}}), FakeBlobs(), 1000
    )
    assert checked.spec.stages[0].requires.platforms == ["windows/x86_64"]
    assert "there are programs for linux" in await refusal(
        {"params": params, "requires": {"platforms": ["macos"]}}
    )


async def test_a_kind_that_nobody_offers_is_taken() -> None:
    checked = await check_submission(job({"kind": "quantum", "params": {"qubits": 3}}), FakeBlobs(), 1000)
    assert checked.spec.stages[0].kind == "quantum"


async def test_two_thousand_stages_in_a_ring_are_told_apart_from_a_chain() -> None:
    chain = [{"name": f"s{at}", "needs": [{"stage": f"s{at - 1}"}] if at else []} for at in range(1000)]
    assert (await check_submission(job(*chain), FakeBlobs(), 10_000)).tasks == 1000
    chain[0]["needs"] = [{"stage": "s999"}]
    assert "wait for each other" in await refusal(*chain, max_tasks=10_000)


def test_malformed_json_is_located_by_line_and_column() -> None:
    data = b'{\n  "name": nope\n}'
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(data, type=JobSpec)
    assert "line 2, column" in str(undecodable(data, caught.value))


def test_a_wrong_value_is_located_by_its_path() -> None:
    data = b'{"name": "j", "stages": [{"retries": "two"}]}'
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(data, type=JobSpec)
    assert "stages[0].retries: expected int, got str" in str(undecodable(data, caught.value))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        ({"items": {"values": [1, {"n": [2**64]}]}}, "stages[0].items.values[1].n[0]"),
        ({"items": {"values": [-(2**63) - 1]}}, "stages[0].items.values[0]"),
        ({"items": {"axes": {"n": [1, 2**64]}}}, "stages[0].items.axes.n[1]"),
        ({"kind": "mine", "params": {"a": {"b": 10**5000}}}, "stages[0].params.a.b"),
    ],
)
async def test_a_whole_number_over_64_bits_is_refused_with_its_place(
    stage: dict[str, Any], place: str
) -> None:
    told = await refusal(stage)
    assert place in told
    assert "64 is the limit" in told


async def test_whole_numbers_of_64_bits_are_taken() -> None:
    await check_submission(job({"items": {"values": [2**64 - 1, -(2**63)]}}), FakeBlobs(), 1000)


@pytest.mark.parametrize("levels", [65, 900])
@pytest.mark.parametrize("where", ["values", "axes", "params"])
async def test_too_many_levels_are_refused(levels: int, where: str) -> None:
    deep = nested(levels)
    stages: dict[str, dict[str, Any]] = {
        "values": {"items": {"values": [deep]}},
        "axes": {"items": {"axes": {"n": deep}}},
        "params": {"kind": "mine", "params": {"a": deep}},
    }
    assert "more than 64 lists and objects inside each other" in await refusal(stages[where])


async def test_many_levels_are_taken() -> None:
    await check_submission(job({"items": {"values": [nested(64)]}}), FakeBlobs(), 1000)


async def test_appended_items_are_held_to_the_same_limits() -> None:
    view = JobView("1", "j", "open", 5, "alice", 0, [])
    for items, words in (([2**64], r"items\[0\]: a whole number of 65 bits"), ([nested(65)], "more than 64")):
        with pytest.raises(BadInputError, match=words):
            await check_items(job({}), StageIndex(0), items, FakeBlobs(), view, 1000)
