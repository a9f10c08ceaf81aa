"""What a budget can be, what is counted, and the life of a reservation."""

from django.db.models import TextChoices

from fleet.kernel.transitions import Machine


class Scope(TextChoices):
    """Whose spending a budget limits. The fleet's scope id is `*`, an identity's its slug, a person's the number as text."""

    FLEET = "fleet"
    IDENTITY = "identity"
    PERSON = "person"


WHOLE_FLEET = "*"


class Metric(TextChoices):
    """What a budget counts; its amounts are nano-dollars, tokens or runs."""

    IMPUTED = "imputed", "Money at list price, billed or not"
    BILLED = "billed", "Money that is billed per token"
    TOKENS = "tokens", "Tokens of all kinds"
    RUNS = "runs", "Provider turns that used anything"


MONEY = (Metric.IMPUTED, Metric.BILLED)


class Mode(TextChoices):
    """How strict a budget is."""

    HARD = "hard", "Hard: what does not fit is refused"
    SOFT = "soft", "Soft: alerts, refuses nothing"
    OBSERVE = "observe", "Observe: counts, says nothing"


class Period(TextChoices):
    """When a budget starts anew."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    ROLLING = "rolling", "A number of hours from the first use"
    LIFETIME = "lifetime"


class Unit(TextChoices):
    """What a ledger row counts. The units are disjoint: no token is in two of them."""

    INPUT_UNCACHED = "input_uncached"
    CACHE_READ = "cache_read"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    OUTPUT = "output"
    WEB_SEARCHES = "web_searches"
    RUN = "run"


INPUT_UNITS = (Unit.INPUT_UNCACHED, Unit.CACHE_READ, Unit.CACHE_WRITE_5M, Unit.CACHE_WRITE_1H)
TOKEN_UNITS = (*INPUT_UNITS, Unit.OUTPUT)
PRICED_UNITS = (*TOKEN_UNITS, Unit.WEB_SEARCHES)


class LedgerKind(TextChoices):
    """The first report of a message, or the difference to a later and higher one."""

    USAGE = "usage"
    ADJUSTMENT = "adjustment"


class Billing(TextChoices):
    """How the login pays: per token, or a flat subscription that bills nothing per token."""

    API = "api"
    SUBSCRIPTION = "subscription"


class PriceBasis(TextChoices):
    """Where a cost comes from. Unknown is never zero: it is counted at the dearest rate of the catalogue."""

    PRICED = "priced"
    FREE = "free"
    UNKNOWN = "unknown"


class RefusalKind(TextChoices):
    """Why a reservation was refused, as the refusal's code."""

    WAIT = "wait", "runs in progress hold what is left"
    TOO_BIG = "too_big", "the limit is below the smallest hold"
    SPENT = "spent", "spent until the budget starts anew"
    UNKNOWN_PRICE = "unknown_price", "the model has no price"


class ReservationState(TextChoices):
    """Where a reservation stands."""

    HELD = "held"
    UNCERTAIN = "uncertain"
    SETTLED = "settled"
    RELEASED = "released"


RESERVATION = Machine(
    noun="reservation",
    initial=ReservationState.HELD,
    steps={
        ReservationState.HELD: (
            ReservationState.UNCERTAIN,
            ReservationState.SETTLED,
            ReservationState.RELEASED,
        ),
        ReservationState.UNCERTAIN: (
            ReservationState.HELD,
            ReservationState.SETTLED,
            ReservationState.RELEASED,
        ),
        ReservationState.SETTLED: (),
        ReservationState.RELEASED: (),
    },
    meaning={
        ReservationState.HELD: "a slice of each budget is kept for a run, and topped up while it runs",
        ReservationState.UNCERTAIN: "its run gave no sign of life and may have spent more than it reported; one slice stays held for a day",
        ReservationState.SETTLED: "the run is over; what it used is posted, the rest of the hold went back",
        ReservationState.RELEASED: "the hold went back without a closing report",
    },
)
