"""Why billing or paying is refused: each with a code, a status and what to do instead."""

from config.errors import DomainError


class CycleNotEnded(DomainError):
    """A cycle is billed after its last instant."""

    code = "cycle_not_ended"
    status = 409


class MissingTaxRate(DomainError):
    """A category has no VAT rate on the day that counts; nothing is billed on a guess."""

    code = "missing_tax_rate"
    status = 409


class TaxesRefused(DomainError):
    """The tax file is not loaded at all: the message says which entry, why and what to do."""

    code = "taxes_refused"
    status = 422


class UnknownInvoice(DomainError):
    """No such invoice of this account."""

    code = "unknown_invoice"
    status = 404


class UnknownPayment(DomainError):
    """No such payment."""

    code = "unknown_payment"
    status = 404


class UnknownOrder(DomainError):
    """No such order of this account."""

    code = "unknown_order"
    status = 404


class NothingDue(DomainError):
    """It is paid, or needs no payment: more is not taken."""

    code = "nothing_due"
    status = 409


class MethodNotOffered(DomainError):
    """This way to pay is not set up here."""

    code = "method_not_offered"
    status = 422


class PaymentSettled(DomainError):
    """The payment has its outcome already; an outcome is not changed."""

    code = "payment_settled"
    status = 409


class KeyReused(DomainError):
    """An idempotency key came again with other content."""

    code = "idempotency_conflict"
    status = 409


class KeyMissing(DomainError):
    """A payment needs a key, so that a repeat of the request pays nothing twice."""

    code = "idempotency_key_missing"
    status = 400


class InvalidSignature(DomainError):
    """A webhook that the payment provider did not sign."""

    code = "invalid_signature"
    status = 400


class GatewayAway(DomainError):
    """The payment provider does not answer; the same request may be sent again."""

    code = "payment_provider_away"
    status = 503


class GatewayRefused(DomainError):
    """The payment provider refuses the payment; its reason is in the detail."""

    code = "payment_refused"
    status = 422
