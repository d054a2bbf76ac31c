"""How the demo's nodes report a request: each runs another engine, with its own usage object."""

from typing import Any

from .cast import NODES, Turn


def event_of(turn: Turn, *, node: int, subject: str) -> dict[str, Any]:
    """The CloudEvents event of one request, reported by the node of this number."""
    return {
        "specversion": "1.0",
        "id": f"req-{turn.number:07d}",
        "source": NODES[node],
        "type": "inference.completed",
        "subject": subject,
        "time": turn.request.at.isoformat(),
        "data": {"model": turn.model, "usage": SHAPES[node](turn)},
    }


def _openai_chat(turn: Turn) -> dict[str, Any]:
    given, made = turn.request.context, turn.request.generated
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": turn.cached},
    }


def _openai_responses(turn: Turn) -> dict[str, Any]:
    given, made = turn.request.context, turn.request.generated
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": turn.cached},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + made,
    }


def _anthropic(turn: Turn) -> dict[str, Any]:
    return {
        "input_tokens": turn.request.context - turn.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": turn.cached,
        "output_tokens": turn.request.generated,
    }


def _deepseek(turn: Turn) -> dict[str, Any]:
    given, made = turn.request.context, turn.request.generated
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_cache_hit_tokens": turn.cached,
        "prompt_cache_miss_tokens": given - turn.cached,
    }


SHAPES = (_openai_chat, _openai_responses, _anthropic, _deepseek)
