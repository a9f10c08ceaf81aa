"""Whether we may: policies, gate decisions, kill switch."""
