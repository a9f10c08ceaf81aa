"""What can happen in gateways. Subject: ("gateway_account", key) or ("gateway_process", id)."""

ACCOUNT_OPENED = "gateways.account.opened"
ACCOUNT_REJECTED = "gateways.account.rejected"
ACCOUNT_ACTIVATED = "gateways.account.activated"
ACCOUNT_SWITCHED_OFF = "gateways.account.switched_off"
ACCOUNT_REPORTED = "gateways.account.reported"  # details: sentence, empty when the trouble is over
ACCOUNT_INTRODUCED = "gateways.account.introduced"  # details: username
TOKEN_SET = "gateways.token.set"  # noqa: S105 - the event's name
TOKEN_TAKEN_OVER = "gateways.token.taken_over"  # noqa: S105 - from the environment
LEASE_TAKEN = "gateways.lease.taken"
LEASE_RELEASED = "gateways.lease.released"
PROCESS_STARTED = "gateways.process.started"
PROCESS_STOPPED = "gateways.process.stopped"
