"""The proof by node for people: raw tokens, standard tokens, and the amendments behind both."""

from collections.abc import Callable, Mapping
from typing import Any

from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config.columns import link_to
from config.formatting import exact_tokens, grouped
from usage.models import Amendment

MOST_AMENDMENTS = 200  # on one page; the others stand under Amendments

RAW_COLUMNS = {
    "counted_tokens": _("counted by the node"),
    "counted_rounding": _("rounded by at most"),
    "accepted_tokens": _("accepted"),
    "rejected_tokens": _("rejected"),
    "conflict_tokens": _("conflict"),
    "difference_tokens": _("difference"),
    "correction_tokens": _("corrections"),
    "corrected_tokens": _("accepted, corrected"),
}
# Who pays, as it stands after the corrections: accepted = debited + overage + uncovered.
PAID_COLUMNS = {
    "accepted_mt": _("accepted"),
    "correction_accepted_mt": _("corrections"),
    "corrected_accepted_mt": _("accepted, corrected"),
    "corrected_debited_mt": _("debited"),
    "corrected_overage_mt": _("priced overage"),
    "corrected_uncovered_mt": _("uncovered"),
    "corrected_invoiced_mt": _("invoiced"),
}

Row = dict[str, Any]


def tables(report: Row) -> list[Row]:
    """Two tables: a row for each node and, after it, its hours that differ or were corrected."""
    return [
        {
            "title": gettext("Raw tokens by node, and the hours that differ or were corrected"),
            "columns": RAW_COLUMNS.values(),
            "rows": _rows(report, RAW_COLUMNS, grouped),
        },
        {
            "title": gettext("Standard tokens, and who pays for them after the corrections"),
            "columns": PAID_COLUMNS.values(),
            "rows": _rows(report, PAID_COLUMNS, exact_tokens),
        },
    ]


def amendments(report: Row) -> list[Row]:
    """The amendments that the report names, with links to them and to their events."""
    kinds = dict(Amendment.Kind.choices)
    found = [
        {
            "hour": _title(hour),
            "node": hour["node"],
            "event": link_to("usage_usageevent", one["event"], one["event"]),
            "kind": link_to("usage_amendment", one["amendment"], kinds[one["kind"]]),
            "tokens": grouped(one["tokens"]),
            "mt": exact_tokens(one["mt"]),
        }
        for hour in report["hours"]
        for one in hour["amendments"]
    ]
    return found[:MOST_AMENDMENTS]


def _rows(report: Row, columns: Mapping[str, Any], show: Callable[[int], str]) -> list[Row]:
    rows = []
    for node in report["nodes"]:
        hours = [
            hour
            for hour in report["hours"]
            if hour["node"] == node["node"] and (hour["difference_tokens"] or hour["corrections"])
        ]
        for row in (node, *hours):
            values = [row[name] for name in columns]
            shown = ["-" if value is None else show(value) for value in values]
            rows.append({"title": _title(row), "values": shown, "hour": "hour" in row})
    return rows


def _title(row: Row) -> SafeString | str:
    return str(row["hour"][:16].replace("T", " ") if "hour" in row else row["node"])
