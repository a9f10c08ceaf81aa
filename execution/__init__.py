"""How a bot thinks: one supervised provider turn."""
