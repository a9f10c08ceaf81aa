"""What was said: conversations, lanes, turns, messages, deliveries."""
