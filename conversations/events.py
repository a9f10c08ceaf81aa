"""What can happen in conversations."""

RECEIVED = "conversations.message.received"
REFUSED = "conversations.message.refused"
ANSWERED = "conversations.message.answered"
TURN_QUEUED = "conversations.turn.queued"
TURN_JOINED = "conversations.turn.joined"
TURN_ADMITTED = "conversations.turn.admitted"
TURN_REFUSED = "conversations.turn.refused"
TURN_RUNNING = "conversations.turn.running"
TURN_WAITING = "conversations.turn.waiting"
TURN_SET_BACK = "conversations.turn.set_back"  # another login takes it, or it comes again later
TURN_PARKED = "conversations.turn.parked"  # details: until
TURNS_WOKEN = "conversations.turn.woken"  # subject: the provider that can be used again
TURN_STEERED = (
    "conversations.turn.steered"  # the message of another turn became part of this one; details: inbound, waiting
)
BUSY_MODE_SET = "conversations.conversation.busy_mode_set"  # details: from, to
TURN_CLOSED = "conversations.turn.closed"  # details: state
SESSION_OPENED = "conversations.session.opened"
SESSION_ROTATED = "conversations.session.rotated"
DELIVERY_QUEUED = "conversations.delivery.queued"
DELIVERY_MOVED = "conversations.delivery.moved"
