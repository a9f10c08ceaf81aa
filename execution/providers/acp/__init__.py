"""Any agent that speaks the Agent Client Protocol, as settings declare it, with the protocol's official types."""
