"""Celery entry points of conversations. A lost message costs a few seconds: the sweep does the same."""

from celery import shared_task

from conversations import actions


@shared_task(name="conversations.advance")
def advance(conversation_id: int) -> None:
    """Start the next queued turn of a conversation."""
    actions.advance(conversation_id)


@shared_task(name="conversations.silence")
def silence(order_id: int) -> None:
    """Refuse the waiting turns a kill order names, and write their lines into its receipt."""
    actions.silence(order_id)
