"""What a proof found to differ, for people: a row each, with links to the evidence."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config.columns import link_to
from config.formatting import grouped
from usage.models import Amendment

MOST_DIFFERENCES = 100  # on one page
MOST_GAPS = 20  # told of one node

# The rules of the proof by node; others are shown as they are called in reports.
RULES = {
    "tokens counted by the node = accepted + rejected": _(
        "Tokens counted by the node = accepted + rejected"
    ),
    "accepted mt = debited + overage + uncovered": _("Accepted mt = debited + overage + uncovered"),
    "correction mt = debited + overage + uncovered": _(
        "Correction mt = debited + overage + uncovered"
    ),
    "every numbered batch arrived": _("Every numbered batch arrived"),
}

Row = dict[str, Any]


def rows(differences: Sequence[Row]) -> list[Row]:
    """Differences of a report with both counts, by how much they differ, and why."""
    return [
        {
            "rule": RULES.get(one["rule"], one["rule"]),
            "where": one["where"],
            "expected": grouped(one["expected"]),
            "found": grouped(one["found"]),
            "by": grouped(one["found"] - one["expected"]),
            "evidence": list(_evidence(one)),
        }
        for one in differences[:MOST_DIFFERENCES]
    ]


def _evidence(difference: Row) -> Iterator[str | SafeString]:
    if rounding := difference.get("rounding"):
        yield gettext("The engine has rounded by at most %(tokens)s.") % {
            "tokens": grouped(rounding)
        }
    if hours := difference.get("hours"):
        yield gettext("Hours: %(hours)s") % {"hours": ", ".join(map(_hour, hours))}
    if gaps := difference.get("gaps"):
        yield gettext("Missing numbers: %(numbers)s") % {"numbers": _numbers(gaps)}
    yield from map(_event, difference.get("events", ()))
    kinds = dict(Amendment.Kind.choices)
    for one in difference.get("amendments", ()):
        text = f"{kinds[one['kind']]} · {grouped(one['tokens'])}"
        yield link_to("usage_amendment", one["amendment"], text)


def _event(one: Row) -> SafeString:
    """An event in quarantine with what it says it used, or one that was counted."""
    if "quarantined" in one:
        tokens = "?" if one["tokens"] is None else grouped(one["tokens"])
        text = f"{one['id'] or one['quarantined']} · {one['code']} · {tokens}"
        return link_to("usage_quarantinedevent", one["quarantined"], text)
    return link_to("usage_usageevent", one["event"], one["event"])


def _hour(text: str) -> str:
    return text[:16].replace("T", " ")


def _numbers(gaps: Iterable[tuple[int, int]]) -> str:
    told = [f"{first}" if first == last else f"{first}–{last}" for first, last in gaps]
    return ", ".join([*told[:MOST_GAPS], *(["…"] if len(told) > MOST_GAPS else [])])
