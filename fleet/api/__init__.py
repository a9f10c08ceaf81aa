"""The REST API: the same actions as every other door, for programs."""
