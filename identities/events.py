"""What can happen to people and bots."""

IDENTITY_CREATED = "identities.identity.created"
IDENTITY_CHANGED = "identities.identity.changed"
IDENTITY_ACTIVATED = "identities.identity.activated"
IDENTITY_PAUSED = "identities.identity.paused"
IDENTITY_RESUMED = "identities.identity.resumed"
IDENTITY_RETIRED = "identities.identity.retired"
GRANTS_SET = "identities.identity.grants_set"
TEXT_PUBLISHED = "identities.text.published"
TEXT_REVERTED = "identities.text.reverted"
TEXT_DROPPED = "identities.text.dropped"

PERSON_CREATED = "identities.person.created"
PERSON_CHANGED = "identities.person.changed"
PERSON_SIGNED_IN = "identities.person.signed_in"
CODE_ISSUED = "identities.pairing_code.issued"
PAIRING_FAILED = "identities.chat_account.pairing_failed"
PAIRED = "identities.chat_account.paired"
UNPAIRED = "identities.chat_account.unpaired"
TOKEN_ISSUED = "identities.access_token.issued"  # noqa: S105 - an event's name
TOKEN_REVOKED = "identities.access_token.revoked"  # noqa: S105 - an event's name
LINK_ISSUED = "identities.sign_in_link.issued"
