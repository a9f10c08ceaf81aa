"""One small tree of errors.

    FleetError
    ├── Refused          a rule says no; nothing was done (HTTP 403, or as `status` says)
    ├── NotFound         no such thing, or not for you (404)
    ├── Invalid          the input cannot be used as it is (400)
    ├── StateConflict    somebody was faster; read again (409)
    ├── Fenced           this worker no longer owns the row; stop at once
    └── Unavailable      a part we need does not answer; try again (503)

Every error carries three short texts: what happened, why, and what to do next.
"""

from __future__ import annotations


class FleetError(Exception):
    """Something Fleet can explain to a person."""

    status = 500
    code = "error"

    def __init__(self, what: str, *, why: str = "", next_step: str = "", code: str | None = None) -> None:
        self.what, self.why, self.next_step = what, why, next_step
        if code:
            self.code = code
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """Return what happened, why, and what to do, as one readable line."""
        return " ".join(part for part in (self.what, self.why, self.next_step) if part)

    def as_dict(self) -> dict[str, str]:
        """Return the error as the API shows it: code, what, why, next_step."""
        return {"code": self.code, "what": self.what, "why": self.why, "next_step": self.next_step}


class Refused(FleetError):
    """A rule says no; nothing was done."""

    status = 403
    code = "refused"


class NotFound(FleetError):
    """No such thing, or not for you."""

    status = 404
    code = "not_found"


class Invalid(FleetError):
    """The input cannot be used as it is."""

    status = 400
    code = "invalid"


class StateConflict(FleetError):
    """The row has moved on since it was read."""

    status = 409
    code = "conflict"


class Fenced(FleetError):
    """This worker no longer owns the row: whatever it runs must be killed, whatever it has is kept as an orphan."""

    code = "fenced"


class Unavailable(FleetError):
    """A part we need does not answer."""

    status = 503
    code = "unavailable"
