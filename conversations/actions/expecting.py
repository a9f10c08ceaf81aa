"""A message has come in, and most messages become a turn of the session that is open where they were said: say so ahead.

Admission takes as long as a tenth of a CLI's start. A worker that hears of the turn before it is admitted starts the CLI meanwhile.
"""

from __future__ import annotations

from typing import Any

from django.db import connection

from conversations.actions.sessions import FAILURE_LIMIT, IDLE_LIMIT
from conversations.states import TURN
from execution import actions as execution_actions

# One statement, because every message waits for it. It asks only what makes the guess worth a process: a person we know writes plain
# text where a session goes on, nothing runs or waits, and no process stands by. Whether the turn may begin is decided at admission,
# and there alone.
_PROBABLE = """
    SELECT talk.identity_id, talk.id AS conversation_id, session.provider, session.model,
        session.provider_session_id AS session_id, session.turns AS session_turns, ({home}) AS worker_id
    FROM conversations_inboundmessage AS inbound
    JOIN identities_identity AS bot ON bot.slug = inbound.identity_slug
    JOIN conversations_conversation AS talk
        ON (talk.account, talk.chat_id, talk.thread_id, talk.kind) = (inbound.account, inbound.chat_id, inbound.thread_id, inbound.kind)
        AND talk.identity_id = bot.id
    JOIN conversations_session AS session ON session.conversation_id = talk.id AND session.state = 'open'
    WHERE inbound.id = %(inbound)s AND inbound.state = 'received' AND inbound.text !~ '^/\\w'
        AND session.turns > 0 AND session.failures < %(failures)s
        AND session.last_used_at > statement_timestamp() - %(idle)s::interval
        AND (inbound.person_id IS NOT NULL OR EXISTS (SELECT FROM identities_chataccount AS known
            WHERE (known.platform, known.external_id) = (split_part(inbound.account, ':', 1), inbound.sender_id)))
        AND NOT EXISTS (SELECT FROM conversations_turn AS open
            WHERE open.conversation_id = talk.id AND open.state = ANY(%(live)s))
        AND NOT {held}
""".format(  # noqa: S608 - nothing but columns
    home=execution_actions.HOME.format(session="session.provider_session_id"),
    held=execution_actions.HELD.format(session="session.provider_session_id"),
)


def expect(inbound_id: int) -> None:
    """Announce the turn that this message will probably start, if it is one that a process can be started for."""
    facts: dict[str, Any] = {
        "inbound": inbound_id,
        "failures": FAILURE_LIMIT,
        "idle": IDLE_LIMIT,
        "live": list(TURN.live),
    }
    with connection.cursor() as cursor:
        cursor.execute(_PROBABLE, facts)
        row = cursor.fetchone()
        columns = [column.name for column in cursor.description]
    if row:
        execution_actions.expect(**dict(zip(columns, row, strict=True)))
