"""Every payload in payloads/ yields its exact counts; contradictions are refused, not guessed."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from usage.decoding import Candidate, read_events
from usage.normalising import (
    MAX_TOKENS,
    ChatUsage,
    Counts,
    UnreadableUsage,
    merge_stream,
    normalise,
    usage_of,
)

PAYLOADS = Path(__file__).parent / "payloads"

# File -> (path to the data an event would carry, its counts). A path of (key, …) walks the JSON.
USAGES: dict[tuple[str, tuple[str | int, ...]], Counts] = {
    ("usage_openai_chat.json", ()): Counts(86, 1920, 172, 128),
    ("usage_openai_responses.json", ()): Counts(86, 1920, 172, 128),
    ("usage_deepseek_style.json", ()): Counts(86, 1920, 172, 128),
    ("usage_vllm.json", ()): Counts(32, 96, 64, 0),
    ("usage_vllm.json", ("usage_default_flags",)): Counts(128, 0, 64, 0),
    ("usage_sglang.json", ()): Counts(32, 96, 44, 20),
    ("usage_mindie.json", ("response",)): Counts(226, 0, 122, 0),
    ("usage_anthropic_messages.json", ()): Counts(1110, 896, 300, 0),
    ("otel_genai_attributes.json", ("attributes",)): Counts(86, 1920, 172, 128),
    ("real_llamacpp_chat.json", ()): Counts(5, 24, 8, 0),
    ("real_llamacpp_responses.json", ()): Counts(5, 24, 8, 0),
    ("real_llamacpp_anthropic_messages.json", ()): Counts(5, 24, 8, 0),
    ("litellm_basic_lago_02.json", ("body", "event", "properties")): Counts(10, 0, 20, 0),
    ("litellm_basic_lago_04.json", ("body", "event", "properties")): Counts(8, 0, 4, 0),
    ("litellm_basic_openmeter_01.json", ("body", "data")): Counts(10, 0, 20, 0),
    ("litellm_basic_openmeter_03.json", ("body", "data")): Counts(8, 0, 4, 0),
    ("litellm_basic_openmeter_05.json", ("body", "data")): Counts(10, 0, 20, 0),
    ("litellm_basic_generic_10.json", ("body", 0, "response")): Counts(10, 0, 20, 0),
    ("litellm_basic_generic_10.json", ("body", 1, "response")): Counts(10, 0, 20, 0),
    ("litellm_basic_generic_10.json", ("body", 2, "response")): Counts(8, 0, 4, 0),
    ("litellm_basic_generic_10.json", ("body", 3, "response")): Counts(28, 1, 12, 0),
    ("litellm_basic_generic_10.json", ("body", 4, "response")): Counts(5, 24, 6, 0),
}

# A stream's counts, after its usage objects are merged.
STREAMS = {
    "real_llamacpp_chat_stream_include_usage.sse": Counts(5, 24, 4, 0),
    "real_llamacpp_chat_stream_no_usage.sse": Counts(5, 24, 4, 0),  # llama.cpp's timings tell it
    "real_llamacpp_anthropic_messages_stream.sse": Counts(5, 24, 4, 0),
}

NO_USAGE = {
    "real_llamacpp_metrics.prom": "a node's running totals: for reconciliation, no request in them",
    "vllm_metric_names.txt": "names of a node's running totals: for reconciliation",
    "README.md": "says where the others come from",
}


def load(name: str) -> Any:
    return json.loads((PAYLOADS / name).read_text())


def chunks(name: str) -> list[dict[str, Any]]:
    lines = (PAYLOADS / name).read_text().splitlines()
    bodies = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(body) for body in bodies if body != "[DONE]"]


def usages_in(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The usage objects of a stream; where it has none, llama.cpp's timings."""
    found = [chunk.get("message", chunk).get("usage") for chunk in stream]
    return [one for one in found if one] or [
        chunk["timings"] for chunk in stream if "timings" in chunk
    ]


def test_every_payload_is_read_or_listed_as_something_else() -> None:
    named = {name for name, _path in USAGES} | set(STREAMS) | set(NO_USAGE)
    assert {path.name for path in PAYLOADS.iterdir()} == named


@pytest.mark.parametrize(("name", "path"), list(USAGES))
def test_an_engines_usage_yields_its_exact_counts(name: str, path: tuple[str | int, ...]) -> None:
    data = load(name)
    for step in path:
        data = data[step]
    if path == ("usage_default_flags",):
        data = {"usage": data}
    assert normalise(usage_of(data)) == USAGES[name, path]


@pytest.mark.parametrize("name", list(STREAMS))
def test_a_streams_usage_is_its_last_not_its_sum(name: str) -> None:
    assert normalise(merge_stream(usages_in(chunks(name)))) == STREAMS[name]


def test_an_anthropic_stream_merges_its_start_and_its_cumulative_delta() -> None:
    stream = load("usage_anthropic_messages.json")["stream"]
    assert normalise(merge_stream(usages_in(stream))) == Counts(1110, 896, 300, 0)


def test_a_usage_in_every_chunk_counts_once() -> None:
    running = [
        {"prompt_tokens": 10, "completion_tokens": made, "total_tokens": 10 + made}
        for made in (1, 2, 3)
    ]
    assert normalise(merge_stream(running)) == Counts(10, 0, 3, 0)


@pytest.mark.parametrize("number", ["01", "03", "05"])
def test_a_litellm_openmeter_event_is_read_whole(number: str) -> None:
    body = load(f"litellm_basic_openmeter_{number}.json")["body"]
    now = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
    [event] = read_events([msgspec.json.encode(body)], now=now)
    assert isinstance(event, Candidate)
    assert (event.id, event.source, event.subject, event.model) == (
        body["id"], "litellm-proxy", body["subject"], "fake-std",
    )  # fmt: skip
    assert event.counts == normalise(body["data"])


def test_an_anthropic_usage_without_cache_fields_counts_the_same() -> None:
    assert normalise({"input_tokens": 5, "output_tokens": 8}) == Counts(5, 0, 8, 0)


def test_an_embedding_has_no_output() -> None:
    assert normalise({"prompt_tokens": 7, "total_tokens": 7}) == Counts(7, 0, 0, 0)


CHAT = {"prompt_tokens": 10, "completion_tokens": 5}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "cached above prompt": (CHAT | {"prompt_tokens_details": {"cached_tokens": 11}}, "cached"),
    "hits above prompt": (CHAT | {"prompt_cache_hit_tokens": 11}, "cached"),
    "reasoning above completion": (
        CHAT | {"completion_tokens_details": {"reasoning_tokens": 6}}, "reasoning",
    ),
    "sglang reasoning above completion": (CHAT | {"reasoning_tokens": 6}, "reasoning"),
    "wrong total": (CHAT | {"total_tokens": 16}, "total_tokens"),
    "total as text": (CHAT | {"total_tokens": "15"}, "total_tokens"),
    "total as float": (CHAT | {"total_tokens": 15.0}, "total_tokens"),
    "responses: wrong total": (
        {"input_tokens": 1, "output_tokens": 1, "total_tokens": 3}, "total_tokens",
    ),
    "responses: cached above input": (
        {"input_tokens": 1, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 2}},
        "cached",
    ),
    "responses: reasoning above output": (
        {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 2}},
        "reasoning",
    ),
    "otel: cached above input": (
        {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.cache_read.input_tokens": 2}, "cached",
    ),
    "float": (CHAT | {"prompt_tokens": 10.0}, "prompt_tokens"),
    "bool": (CHAT | {"completion_tokens": True}, "completion_tokens"),
    "negative": (CHAT | {"prompt_tokens": -1}, "prompt_tokens"),
    "text": (CHAT | {"prompt_tokens": "10"}, "prompt_tokens"),
    "null instead of a count": ({"prompt_tokens": None, "completion_tokens": 5}, "prompt_tokens"),
    "above every real request": (CHAT | {"prompt_tokens": MAX_TOKENS + 1}, "prompt_tokens"),
    "anthropic negative cache": (
        {"input_tokens": 1, "cache_read_input_tokens": -1}, "cache_read_input_tokens",
    ),
    "details that are no object": (CHAT | {"prompt_tokens_details": 3}, "prompt_tokens_details"),
    "nothing known": ({"tokens": 3}, "neither prompt_tokens nor input_tokens"),
    "empty": ({}, "neither prompt_tokens nor input_tokens"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_contradiction_is_refused_with_the_field_it_is_in(case: str) -> None:
    usage, part = REFUSED[case]
    with pytest.raises(UnreadableUsage, match=part):
        normalise(usage)


def test_a_null_usage_says_how_to_get_one() -> None:
    with pytest.raises(UnreadableUsage, match="include usage"):
        usage_of({"model": "m", "usage": None})


counts = some.integers(0, MAX_TOKENS)


@given(computed=counts, cached=counts, made=counts, reasoning=counts)
def test_no_token_is_lost_or_counted_twice_in_any_shape(
    computed: int, cached: int, made: int, reasoning: int
) -> None:
    prompt, completion = (computed + cached) // 2, (made + reasoning) // 2
    cached, reasoning = min(cached, prompt), min(reasoning, completion)
    chat = normalise(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    responses = normalise(
        {
            "input_tokens": prompt,
            "output_tokens": completion,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    anthropic = normalise(
        {
            "input_tokens": prompt - cached,
            "cache_read_input_tokens": cached,
            "output_tokens": completion,
        }
    )
    assert chat == responses == Counts(prompt - cached, cached, completion - reasoning, reasoning)
    assert anthropic == Counts(prompt - cached, cached, completion, 0)
    assert sum(chat) == prompt + completion


numbers = some.one_of(
    some.none(), some.integers(-1, 40), some.just(10**12 + 1), some.text(max_size=2)
)
details = some.one_of(
    some.none(), some.fixed_dictionaries({}, optional={"cached_tokens": numbers, "audio": numbers})
)
made = some.one_of(
    some.none(), some.fixed_dictionaries({}, optional={"reasoning_tokens": numbers, "x": numbers})
)
chat_usages = some.fixed_dictionaries(
    {"prompt_tokens": numbers},
    optional={
        "completion_tokens": numbers,
        "total_tokens": numbers,
        "prompt_tokens_details": details,
        "completion_tokens_details": made,
        "prompt_cache_hit_tokens": numbers,
        "reasoning_tokens": numbers,
        "input_tokens": numbers,
    },
)


@given(usage=chat_usages)
def test_the_quick_reader_of_chat_usage_agrees_with_the_patient_one(usage: dict[str, Any]) -> None:
    try:
        patient: Counts | None = normalise(usage)
    except UnreadableUsage:
        patient = None
    try:
        quick = msgspec.json.decode(msgspec.json.encode(usage), type=ChatUsage).counts()
    except msgspec.ValidationError:
        return  # the patient one says why, or knows the shape
    assert quick == patient
