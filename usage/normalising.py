"""Usage objects of inference engines, brought to four disjoint counts. Pure.

OpenAI chat (also vLLM, SGLang, DeepSeek, MindIE, llama.cpp) and OpenAI responses count cached and
reasoning tokens as parts of input and output; Anthropic counts cache reads and writes beside the
input. Sources: the engines' API types and recorded answers, see tests/usage/payloads.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec

# Of one kind in one request: far above any real one, and the sums of the largest report stay inside
# 64 bits.
MAX_TOKENS = 10**10


class Counts(NamedTuple):
    """Raw tokens of one request, disjoint: input that was computed, input read from a cache,
    output without reasoning, reasoning."""

    input: int
    cached: int
    output: int
    reasoning: int


# Of a tuple of four, without the call of Python that a named tuple's own constructor is.
_counts_of = partial(tuple.__new__, Counts)


class UnreadableUsage(ValueError):
    """The usage object has no shape we know, or its numbers contradict each other."""


Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class ChatUsage(msgspec.Struct, gc=False):
    """The OpenAI chat shape as typed JSON: what decodes into it needs no further look at types."""

    prompt_tokens: Count
    completion_tokens: Count | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: Count | None = None
    reasoning_tokens: Count | None = None

    def counts(self) -> Counts | None:
        """What `normalise` makes of it; None where that would refuse it."""
        prompt, completion = self.prompt_tokens, self.completion_tokens or 0
        total, given, made = (
            self.total_tokens,
            self.prompt_tokens_details,
            self.completion_tokens_details,
        )
        if given is None or (cached := given.cached_tokens) is None:
            cached = self.prompt_cache_hit_tokens or 0
        if made is None or (reasoning := made.reasoning_tokens) is None:
            reasoning = self.reasoning_tokens or 0
        if (
            cached > prompt
            or reasoning > completion
            or (total is not None and total != prompt + completion)
        ):
            return None
        return _counts_of((prompt - cached, cached, completion - reasoning, reasoning))


def normalise(usage: Mapping[str, Any]) -> Counts:
    """Counts of one usage object of any known engine; raises UnreadableUsage."""
    if usage.get("prompt_tokens") is not None:
        return _openai_chat(usage)
    if usage.get("input_tokens") is not None:
        if "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage:
            return _anthropic(usage)
        return _openai_responses(usage)
    if usage.get("gen_ai.usage.input_tokens") is not None:
        return _opentelemetry(usage)
    if usage.get("predicted_n") is not None:
        return _llamacpp_timings(usage)
    raise UnreadableUsage(
        "data.usage has neither prompt_tokens nor input_tokens: "
        "send the engine's usage object as it is."
    )


def usage_of(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage object inside an event's data: `usage`, else `timings`, else the data itself."""
    for name in ("usage", "timings"):
        found = data.get(name)
        if isinstance(found, Mapping):
            return found
    if data.get("usage", data) is None:
        raise UnreadableUsage("data.usage is null: ask the engine to include usage.")
    return data


def merge_stream(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One usage object from those of a stream: each is cumulative, so the last value wins."""
    merged: dict[str, Any] = {}
    for usage in usages:
        merged.update(usage)
    return merged


def _openai_chat(usage: Mapping[str, Any]) -> Counts:
    prompt = _count(usage, "prompt_tokens")
    completion = _count(usage, "completion_tokens")
    _total(usage, prompt + completion)
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = _count(usage, "prompt_cache_hit_tokens")
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    if reasoning is None:
        reasoning = _count(usage, "reasoning_tokens")
    return _parts(prompt, cached, completion, reasoning)


def _openai_responses(usage: Mapping[str, Any]) -> Counts:
    given = _count(usage, "input_tokens")
    made = _count(usage, "output_tokens")
    _total(usage, given + made)
    cached = _detail(usage, "input_tokens_details", "cached_tokens") or 0
    reasoning = _detail(usage, "output_tokens_details", "reasoning_tokens") or 0
    return _parts(given, cached, made, reasoning)


def _anthropic(usage: Mapping[str, Any]) -> Counts:
    computed = _count(usage, "input_tokens") + _count(usage, "cache_creation_input_tokens")
    return Counts(
        computed, _count(usage, "cache_read_input_tokens"), _count(usage, "output_tokens"), 0
    )


def _opentelemetry(usage: Mapping[str, Any]) -> Counts:
    return _parts(
        _count(usage, "gen_ai.usage.input_tokens"),
        _count(usage, "gen_ai.usage.cache_read.input_tokens"),
        _count(usage, "gen_ai.usage.output_tokens"),
        _count(usage, "gen_ai.usage.reasoning.output_tokens"),
    )


def _llamacpp_timings(usage: Mapping[str, Any]) -> Counts:
    return Counts(
        _count(usage, "prompt_n"), _count(usage, "cache_n"), _count(usage, "predicted_n"), 0
    )


def _parts(given: int, cached: int, made: int, reasoning: int) -> Counts:
    if cached > given:
        raise UnreadableUsage(
            f"cached tokens ({cached}) exceed the input they are part of ({given})."
        )
    if reasoning > made:
        raise UnreadableUsage(
            f"reasoning tokens ({reasoning}) exceed the output they are part of ({made})."
        )
    return Counts(given - cached, cached, made - reasoning, reasoning)


def _total(usage: Mapping[str, Any], expected: int) -> None:
    total = usage.get("total_tokens")
    if total is not None and (type(total) is not int or total != expected):
        raise UnreadableUsage(
            f"total_tokens is {total}, but input and output add up to {expected}."
        )


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    """A count inside a details object; None when the engine does not tell."""
    details = usage.get(group)
    if details is None:
        return None
    if not isinstance(details, Mapping):
        raise UnreadableUsage(f"{group} must be an object.")
    return None if details.get(name) is None else _count(details, name)


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise UnreadableUsage(f"{name} must be a whole number from 0 to {MAX_TOKENS:,}.")
    return value
