"""Why a sale is refused: each with a code, a status and what to do instead."""

from config.errors import DomainError


class UnknownPlan(DomainError):
    """No plan of that code, or it is off sale."""

    code = "unknown_plan"
    status = 404


class WrongKindOfPlan(DomainError):
    """A pack where a monthly plan is meant, or the reverse."""

    code = "wrong_kind_of_plan"
    status = 422


class SubscriberNotActive(DomainError):
    """Something is sold to active subscribers only."""

    code = "subscriber_not_active"
    status = 409


class AlreadySubscribed(DomainError):
    """A subscriber holds one plan at a time."""

    code = "already_subscribed"
    status = 409


class StartRefused(DomainError):
    """The start lies too far back or ahead."""

    code = "start_refused"
    status = 422


class EndRefused(DomainError):
    """A subscription ends at the end of what is granted, or later."""

    code = "end_refused"
    status = 409


class OrderRefused(DomainError):
    """The order is in a state in which this cannot be done."""

    code = "order_refused"
    status = 409


class KeyReused(DomainError):
    """An idempotency key came again with other content."""

    code = "idempotency_conflict"
    status = 409


class KeyMissing(DomainError):
    """A purchase needs a key, so that a repeat of the request buys nothing twice."""

    code = "idempotency_key_missing"
    status = 400


class CatalogueRefused(DomainError):
    """The catalogue file is not loaded at all: the message says which entry, why and what to do."""

    code = "catalogue_refused"
    status = 422


class NoPool(DomainError):
    """A pack adds to a pool, and the account has none."""

    code = "no_pool"
    status = 409


class PoolRefused(DomainError):
    """What fills a pool is not sold to who draws on another account's, or if it is not clear which
    pool is meant."""

    code = "pool_refused"
    status = 409


class UnknownOrder(DomainError):
    """No such order."""

    code = "unknown_order"
    status = 404
