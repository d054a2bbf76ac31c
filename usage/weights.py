"""Models and their weights: data, versioned by time, so that no past rating changes."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from config.errors import DomainError

from .models import InferenceModel, Weight


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

    The weight in force then, if equal, is answered with False. Raises WeightRefused when a later
    weight exists, or another one starts at the same instant.
    """
    model = InferenceModel.objects.select_for_update(no_key=True).get(code=model_code)
    milli = (input_milli, cached_milli, output_milli, reasoning_milli)
    same = model.weights.filter(valid_from=valid_from).first()
    if same is not None and milli == (
        same.input_milli,
        same.cached_milli,
        same.output_milli,
        same.reasoning_milli,
    ):
        return same, False  # a catalogue with a history of weights is loaded again and again
    newest = model.weights.order_by("-valid_from").first()
    if newest is not None:
        former = (
            newest.input_milli,
            newest.cached_milli,
            newest.output_milli,
            newest.reasoning_milli,
        )
        if former == milli and newest.valid_from <= valid_from and newest.valid_until is None:
            return newest, False
        if newest.valid_from >= valid_from:
            raise WeightRefused(
                f"{model_code} has a weight from {newest.valid_from.isoformat()}; "
                "give a new weight a later valid_from."
            )
        if newest.valid_until is None:
            newest.valid_until = valid_from
            newest.save(update_fields=["valid_until"])
    weight = Weight.objects.create(
        model=model,
        input_milli=input_milli,
        cached_milli=cached_milli,
        output_milli=output_milli,
        reasoning_milli=reasoning_milli,
        valid_from=valid_from,
    )
    return weight, True
