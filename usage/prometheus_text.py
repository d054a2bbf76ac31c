"""Reads the totals out of the text that vLLM and llama.cpp show to Prometheus.

The text writes every number as a float; totals are whole, and what is not, or is too large to be
exact, is refused. llama.cpp writes six digits: from a million on they stand for several totals, and
by how much they may be off is told along with them. vLLM's exponents have every digit. Engines are
told apart by the names of their metrics.
"""

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from config.errors import DomainError

TOTALS = ("input", "output", "requests")
INEXACT = 2**53  # from here on, neighbouring whole numbers become one
DIGITS = 6  # that llama.cpp writes

# What each metric adds to: (name, label of the model, total). vLLM's prompt total includes tokens
# out of its prefix cache; llama.cpp's excludes them and counts them apart. Where a metric has
# further labels (vLLM's engine and finished_reason), its samples are summed.
METRICS = {
    "vllm:prompt_tokens_total": ("model_name", "input"),
    "vllm:generation_tokens_total": ("model_name", "output"),
    "vllm:request_success_total": ("model_name", "requests"),
    "llamacpp:prompt_tokens_total": ("", "input"),
    "llamacpp:prompt_tokens_cached_total": ("", "input"),
    "llamacpp:tokens_predicted_total": ("", "output"),
}
NEEDED = ({"vllm:prompt_tokens_total", "vllm:generation_tokens_total"},
          {"llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"})  # fmt: skip


class UnreadableCounters(DomainError):
    """A body of counters that does not read, or says nothing of tokens."""

    code = "unreadable_counters"
    status = 400
    title = "The counters cannot be read"


def totals_of(text: str) -> dict[str, dict[str, int]]:
    """{"input", "output", "requests", "rounding"} by model; llama.cpp names no model, so its is
    empty. By `rounding` tokens input and output together may be more or less.

    Raises UnreadableCounters.
    """
    names = (*TOTALS, "rounding")
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(names, 0))
    seen: dict[str, set[str]] = defaultdict(set)
    for metric, model, value in _samples(text):
        found[model][METRICS[metric][1]] += value
        if metric.startswith("llamacpp:"):
            found[model]["rounding"] += _rounding(value)
        seen[model].add(metric)
    for model, metrics in seen.items():
        if not any(needed <= metrics for needed in NEEDED):
            raise UnreadableCounters(f"Of model {model!r} a total of its tokens is missing.")
    if not found:
        raise UnreadableCounters(f"The text holds none of {', '.join(METRICS)}.")
    return dict(found)


def _samples(text: str) -> Iterator[tuple[str, str, int]]:
    """(metric, model, value) of the lines we know; the others (thousands) are not even parsed."""
    wanted = [line for line in text.splitlines() if line.startswith(tuple(METRICS))]
    try:
        for family in text_string_to_metric_families("\n".join(wanted) + "\n"):
            for sample in family.samples:
                if sample.name in METRICS:
                    label = METRICS[sample.name][0]
                    yield sample.name, sample.labels.get(label, ""), _whole(sample)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UnreadableCounters(f"The text is not Prometheus': {error}") from None


def _whole(sample: Sample) -> int:
    try:
        whole = int(sample.value)
    except (ValueError, OverflowError):  # NaN, infinite
        whole = -1
    if whole != sample.value or not 0 <= whole < INEXACT:
        detail = f"{sample.name} is {sample.value}; a total is whole, from 0 to below 2^53."
        raise UnreadableCounters(detail)
    return whole


def _rounding(total: int) -> int:
    """Half of the last digit that llama.cpp writes of such a total: 5 of 1.23457e+06."""
    digits = len(str(total))
    return 0 if digits <= DIGITS else 10 ** (digits - DIGITS) // 2
