"""A node's running totals: differences, restarts, repeats, late samples, and the two texts."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from usage import counters, prometheus_text
from usage.counters import CountersDiffer, CountersRefused, Taken, Totals
from usage.models import Node, NodeCounter
from usage.nodes import create_node

from .conftest import BORN, NOON, client_of

MINUTE = timedelta(minutes=1)
PAYLOADS = Path(__file__).parent / "payloads"


def take(
    node: Node, given: int, made: int, requests: int = 0, *, at: datetime = NOON, model: str = "m"
) -> Taken:
    totals = [Totals(model, given, made, requests)]
    return counters.take(node_id=node.pk, totals=totals, at=at, now=NOON + 10 * MINUTE)


def steps(node: Node, model: str = "m") -> list[tuple[int, int, int, bool]]:
    rows = NodeCounter.objects.filter(node_id=node.pk, model=model).order_by("at")
    return [(row.input_tokens, row.output_tokens, row.requests, row.reset) for row in rows]


def test_a_sample_holds_what_came_on_since_the_one_before(node: Node) -> None:
    take(node, 100, 10, 1)
    take(node, 150, 30, 3, at=NOON + MINUTE)
    take(node, 150, 30, 3, at=NOON + 2 * MINUTE)
    assert steps(node) == [(100, 10, 1, False), (50, 20, 2, False), (0, 0, 0, False)]


@pytest.mark.parametrize("after", [(99, 10, 5), (100, 9, 5), (0, 0, 0)])
def test_a_smaller_total_tells_a_restart_and_counts_whole(
    node: Node, after: tuple[int, int, int]
) -> None:
    take(node, 100, 10, 4)
    assert take(node, *after, at=NOON + MINUTE) == Taken(1, 0, 1)
    assert steps(node)[1] == (*after, True)


def test_an_engine_that_stops_telling_requests_has_not_restarted(node: Node) -> None:
    take(node, 100, 10, 4)
    take(node, 200, 20, 0, at=NOON + MINUTE)
    assert steps(node)[1] == (100, 10, 0, False)


def test_a_repeat_stores_nothing_and_another_total_of_the_same_instant_is_refused(
    node: Node,
) -> None:
    assert take(node, 100, 10) == Taken(1, 0, 0)
    assert take(node, 100, 10) == Taken(0, 1, 0)
    with pytest.raises(CountersDiffer):
        take(node, 101, 10)
    assert steps(node) == [(100, 10, 0, False)]


def test_a_refused_model_keeps_the_whole_report_out(node: Node) -> None:
    take(node, 100, 10, model="b")
    totals = [Totals("a", 1, 1, 1), Totals("b", 999, 10, 0)]
    with pytest.raises(CountersDiffer):
        counters.take(node_id=node.pk, totals=totals, at=NOON, now=NOON)
    assert steps(node, "a") == []


def test_samples_in_any_order_give_the_same_differences(node: Node) -> None:
    samples = [(10, 1, 1), (25, 4, 2), (3, 2, 1), (9, 2, 4), (9, 3, 4), (50, 40, 1)]
    expected = None
    for seed in range(6):
        order = list(enumerate(samples))
        random.Random(seed).shuffle(order)
        for place, sample in order:
            take(node, *sample, at=NOON - (10 - place) * MINUTE, model=f"m{seed}")
        expected = expected or steps(node, "m0")
        assert steps(node, f"m{seed}") == expected
    assert expected is not None
    assert [step[3] for step in expected] == [False, False, True, False, False, False]
    assert sum(step[0] for step in expected) == 25 + 50


def test_models_and_nodes_do_not_mix(node: Node) -> None:
    other, _token = create_node(name="n2", now=BORN)
    take(node, 100, 0, model="a")
    take(node, 70, 0, model="b", at=NOON + MINUTE)
    take(other, 5, 0, model="a", at=NOON + MINUTE)
    assert steps(node, "b") == [(70, 0, 0, False)]
    assert steps(other, "a") == [(5, 0, 0, False)]


@pytest.mark.parametrize(
    ("totals", "at"),
    [
        ([], NOON),
        ([Totals("m", -1, 0, 0)], NOON),
        ([Totals("m", 2**53 + 1, 0, 0)], NOON),
        ([Totals("m", 1, 1, 1), Totals("m", 1, 1, 1)], NOON),
        ([Totals("m\n", 1, 1, 1)], NOON),
        ([Totals("m", 1, 1, 1)], NOON + timedelta(seconds=301)),
        ([Totals("m", 1, 1, 1)], NOON - timedelta(days=63)),
    ],
)
def test_totals_that_cannot_be_are_refused(node: Node, totals: list[Totals], at: datetime) -> None:
    with pytest.raises(CountersRefused):
        counters.take(node_id=node.pk, totals=totals, at=at, now=NOON)


@pytest.mark.django_db(transaction=True)
def test_samples_from_eight_threads_at_once_add_up(node: Node) -> None:
    def report(minute: int) -> None:
        try:
            take(node, 100 * (minute + 1), 10 * (minute + 1), at=NOON - (60 - minute) * MINUTE)
        finally:
            connection.close()

    order = list(range(24))
    random.Random(7).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(report, order))
    assert steps(node) == [(100, 10, 0, False)] * 24


def test_old_samples_are_forgotten(node: Node) -> None:
    take(node, 1, 1)
    assert counters.purge(now=NOON + timedelta(days=400)) == 0
    assert counters.purge(now=NOON + timedelta(days=400, seconds=1)) == 1


# --- over HTTP -----------------------------------------------------------------------------------


def post(client: APIClient, body: Any, **more: Any) -> Any:
    kind: dict[str, Any] = (
        {"content_type": "text/plain; version=0.0.4"} if isinstance(body, str) else {}
    )
    query = more.pop("query", "")
    return client.post(f"/api/v1/nodes/me/counters{query}", body, **kind, **more)


@pytest.mark.usefixtures("clock_at_noon")
def test_a_node_reports_json(node: Node, collector: APIClient) -> None:
    body = {
        "at": "2026-11-24T11:59:00+08:00",
        "counters": [{"model": "m", "input_tokens": 9, "output_tokens": 4, "requests": 2}],
    }
    assert post(collector, body).json() == {
        "at": "2026-11-24T03:59:00Z",
        "stored": 1,
        "duplicate": 0,
        "reset": 0,
    }
    assert post(collector, body).json()["duplicate"] == 1
    body["counters"][0]["input_tokens"] = 10  # type: ignore[index]
    assert post(collector, body).json()["code"] == "counters_differ"
    assert steps(node) == [(9, 4, 2, False)]


@pytest.mark.usefixtures("clock_at_noon")
@pytest.mark.parametrize("number", [-1, 1.5, "x", None, True, 2**53 + 1, 1e300])
def test_json_totals_are_whole_numbers(node: Node, collector: APIClient, number: Any) -> None:
    body = {"counters": [{"model": "m", "input_tokens": number, "output_tokens": 4}]}
    assert post(collector, body).status_code == 400
    assert steps(node) == []


@pytest.mark.usefixtures("clock_at_noon")
@pytest.mark.parametrize("body", [[], {}, {"counters": []}, {"counters": [3]}, {"counters": 1}])
def test_another_json_is_refused(node: Node, collector: APIClient, body: Any) -> None:
    assert post(collector, body).status_code == 400


@pytest.mark.usefixtures("clock_at_noon")
def test_llama_cpp_counts_cached_tokens_apart(node: Node, collector: APIClient) -> None:
    text = (PAYLOADS / "real_llamacpp_metrics.prom").read_text()
    assert post(collector, text).json()["stored"] == 1
    assert steps(node, "") == [(129 + 194, 120, 0, False)]


VLLM = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="glm-5"} 1.234567891e+09
vllm:prompt_tokens_total{engine="1",model_name="glm-5"} 9.0
vllm:prompt_tokens_total{engine="0",model_name="other \\"x\\""} 3
vllm:prompt_tokens_created{engine="0",model_name="glm-5"} 1.7e+09
# TYPE vllm:prompt_tokens_cached_total counter
vllm:prompt_tokens_cached_total{model_name="glm-5"} 77
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="glm-5"} 100.0
vllm:generation_tokens_total{engine="1",model_name="glm-5"} 20.0
vllm:generation_tokens_total{engine="0",model_name="other \\"x\\""} 4
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="glm-5"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="glm-5"} 2.0
vllm:request_success_total{engine="1",finished_reason="abort",model_name="glm-5"} 1.0
vllm:time_to_first_token_seconds_bucket{le="0.001",model_name="glm-5"} 0.0
"""


@pytest.mark.usefixtures("clock_at_noon")
def test_vllm_sums_engines_and_reasons_and_includes_its_cache(
    node: Node, collector: APIClient
) -> None:
    answer = post(collector, VLLM, query="?at=2026-11-24T03:00:00Z").json()
    assert answer == {"at": "2026-11-24T03:00:00Z", "stored": 2, "duplicate": 0, "reset": 0}
    assert steps(node, "glm-5") == [(1_234_567_900, 120, 8, False)]
    assert steps(node, 'other "x"') == [(3, 4, 0, False)]


@pytest.mark.parametrize("name", ["vllm:prompt_tokens_total", "vllm:generation_tokens_total"])
def test_the_names_are_those_that_vllm_documents(name: str) -> None:
    assert name in (PAYLOADS / "vllm_metric_names.txt").read_text()
    assert name in prometheus_text.METRICS


@pytest.mark.parametrize(
    "value",
    [
        "1.5",
        "-1",
        "NaN",
        "+Inf",
        "9.007199254740993e+15",
        "9007199254740994",
        "1e40",
        "",
        "x",
        "0x10",
    ],
)
def test_a_total_in_the_text_is_whole_and_exact(value: str) -> None:
    text = f'vllm:prompt_tokens_total{{model_name="m"}} {value}\n'
    text += 'vllm:generation_tokens_total{model_name="m"} 1\n'
    with pytest.raises(prometheus_text.UnreadableCounters):
        prometheus_text.totals_of(text)


@pytest.mark.usefixtures("clock_at_noon")
@pytest.mark.parametrize(
    ("value", "total", "rounding"),
    [
        ("999999", 999_999, 0),
        ("1e+06", 1_000_000, 5),
        ("1.23457e+06", 1_234_570, 5),
        ("9.99999e+06", 9_999_990, 5),
        ("1.23457e+09", 1_234_570_000, 5_000),
    ],
)
def test_of_a_total_that_llama_cpp_has_rounded_it_is_kept_by_how_much(
    node: Node, collector: APIClient, value: str, total: int, rounding: int
) -> None:
    """It writes six digits: 1.23457e+06 stands for any total from 1,234,565 to 1,234,575."""
    text = (PAYLOADS / "real_llamacpp_metrics.prom").read_text()
    assert post(collector, text.replace("_total 129\n", f"_total {value}\n")).json()["stored"] == 1
    assert steps(node, "") == [(total + 194, 120, 0, False)]
    assert NodeCounter.objects.get(node_id=node.pk).rounding == rounding


def test_what_came_on_is_off_by_what_was_rounded_before(node: Node) -> None:
    """A total told exactly after a rounded one may be smaller by that; after a restart nothing of
    the former total counts."""
    for minute, (given, rounding) in enumerate([(1_234_570, 5), (1_234_566, 0), (900, 0)]):
        counters.take(
            node_id=node.pk, totals=[Totals("m", given, 0, 0, rounding)],
            at=NOON + minute * MINUTE, now=NOON + 10 * MINUTE,
        )  # fmt: skip
    rows = NodeCounter.objects.filter(node_id=node.pk).order_by("at")
    assert [(row.input_tokens, row.rounding_since, row.reset) for row in rows] == [
        (1_234_570, 0, False),
        (-4, 5, False),
        (900, 0, True),
    ]


def test_the_exponents_that_vllm_writes_are_exact() -> None:
    text = 'vllm:prompt_tokens_total{model_name="llamacpp:x_total 1e+06"} 1.234567e+06\n'
    text += 'vllm:generation_tokens_total{model_name="llamacpp:x_total 1e+06"} 1e+07\n'
    [total] = prometheus_text.totals_of(text).values()
    assert (total["input"], total["output"]) == (1_234_567, 10_000_000)
    assert total["rounding"] == 0


@pytest.mark.usefixtures("clock_at_noon")
def test_a_text_of_no_byte_is_refused(collector: APIClient) -> None:
    answer = post(collector, "")
    assert (answer.status_code, answer.json()["code"]) == (400, "unreadable_counters")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "up 1\n",
        "\x00",
        'vllm:prompt_tokens_total{model_name="m"} 1\n',  # where is its output?
        'vllm:prompt_tokens_total{model_name="m 1\n',
        "vllm:prompt_tokens_total{{{\n",
        "llamacpp:tokens_predicted_total 5\n",
    ],
)
def test_a_text_without_both_totals_is_refused(text: str) -> None:
    with pytest.raises(prometheus_text.UnreadableCounters):
        prometheus_text.totals_of(text)


@pytest.mark.usefixtures("clock_at_noon")
def test_a_text_of_more_than_two_mebibytes_is_413(node: Node, collector: APIClient) -> None:
    assert post(collector, "#" * (2 * 2**20 + 1)).status_code == 413


@pytest.mark.usefixtures("clock_at_noon")
def test_who_may_report_counters(node: Node, db: None) -> None:
    assert post(APIClient(), {"counters": []}).status_code == 401
    assert post(client_of("a.b"), {"counters": []}).status_code == 401
    assert APIClient().post("/api/v1/nodes/me/callback-secret").status_code == 401


def test_other_types_are_415(collector: APIClient) -> None:
    answer = collector.post("/api/v1/nodes/me/counters", b"x", content_type="image/png")
    assert answer.status_code == 415
