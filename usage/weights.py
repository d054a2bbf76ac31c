"""Models and their weights: data, versioned by time, so that no past rating changes.

A weight that was wrong is withdrawn in favour of another one for the same period; what was rated
by it stays as it is until the period is rated again.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from config.errors import DomainError

from .models import InferenceModel, Weight

Milli = tuple[int, int, int, int]  # input, cached, output, reasoning in thousandths


class WeightRefused(DomainError):
    """The weight would rewrite one that is in force already."""

    code = "weight_refused"
    status = 409
    title = "The weight is refused"


def put_model(*, code: str, name: str, aliases: Sequence[str], now: datetime) -> InferenceModel:
    """Create or rename a model; aliases are other spellings that engines report."""
    model, _created = InferenceModel.objects.update_or_create(
        code=code, defaults={"name": name, "aliases": sorted(set(aliases))}
    )
    return model


@transaction.atomic
def put_weight(
    *,
    model_code: str,
    input_milli: int,
    cached_milli: int,
    output_milli: int,
    reasoning_milli: int,
    valid_from: datetime,
    now: datetime,
) -> tuple[Weight, bool]:
    """Let a model weigh this much from `valid_from` on, in thousandths; the former weight ends.

    The weight in force then, if equal, is answered with False; so is the one that stands where
    an equal weight was withdrawn, since a catalogue is loaded again and again. Raises
    WeightRefused when a later weight exists, or another one starts at the same instant.
    """
    model = InferenceModel.objects.select_for_update(no_key=True).get(code=model_code)
    milli = (input_milli, cached_milli, output_milli, reasoning_milli)
    in_force = model.weights.filter(withdrawn_at=None)
    same = in_force.filter(valid_from=valid_from).first()
    if same is not None and (milli == milli_of(same) or _was_withdrawn(model, valid_from, milli)):
        return same, False
    newest = in_force.order_by("-valid_from").first()
    if newest is not None:
        if (
            milli == milli_of(newest)
            and newest.valid_from <= valid_from
            and newest.valid_until is None
        ):
            return newest, False
        if newest.valid_from >= valid_from:
            raise WeightRefused(
                f"{model_code} has a weight from {newest.valid_from.isoformat()}; "
                "give a new weight a later valid_from."
            )
        if newest.valid_until is None:
            newest.valid_until = valid_from
            newest.save(update_fields=["valid_until"])
    return _add(model, milli, valid_from, None), True


@transaction.atomic
def correct_weight(
    *,
    weight_id: int,
    input_milli: int,
    cached_milli: int,
    output_milli: int,
    reasoning_milli: int,
    actor: str,
    reason: str,
    now: datetime,
) -> Weight:
    """Withdraw a weight that was wrong and put another one in its place, for the same period.

    Usage that comes from now on is rated by the new one; the past waits for a rerating. Raises
    WeightRefused without a reason, when nothing changes, or when the weight is withdrawn already.
    """
    if not reason.strip():
        raise WeightRefused("A correction needs a reason.")
    found = Weight.objects.filter(pk=weight_id).first()
    if found is None:
        raise WeightRefused(f"There is no weight {weight_id}.")
    model = InferenceModel.objects.select_for_update(no_key=True).get(pk=found.model_id)
    wrong = Weight.objects.get(pk=weight_id)
    milli = (input_milli, cached_milli, output_milli, reasoning_milli)
    if wrong.withdrawn_at is not None:
        raise WeightRefused(f"Weight {weight_id} is withdrawn; correct the one in its place.")
    if milli == milli_of(wrong):
        raise WeightRefused(f"Weight {weight_id} is this already.")
    wrong.withdrawn_at, wrong.withdrawn_by, wrong.withdrawn_reason = now, actor, reason
    wrong.save(update_fields=["withdrawn_at", "withdrawn_by", "withdrawn_reason"])
    return _add(model, milli, wrong.valid_from, wrong.valid_until)


def milli_of(weight: Weight) -> Milli:
    """The four thousandths of a weight."""
    return (
        weight.input_milli,
        weight.cached_milli,
        weight.output_milli,
        weight.reasoning_milli,
    )


def _was_withdrawn(model: InferenceModel, valid_from: datetime, milli: Milli) -> bool:
    rows = model.weights.filter(valid_from=valid_from, withdrawn_at__isnull=False)
    return any(milli_of(row) == milli for row in rows)


def _add(
    model: InferenceModel, milli: Milli, valid_from: datetime, valid_until: datetime | None
) -> Weight:
    return Weight.objects.create(
        model=model,
        input_milli=milli[0],
        cached_milli=milli[1],
        output_milli=milli[2],
        reasoning_milli=milli[3],
        valid_from=valid_from,
        valid_until=valid_until,
    )
