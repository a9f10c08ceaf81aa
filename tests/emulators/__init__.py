"""Counterparts of the outside world for tests and benchmarks. All of them listen on loopback only."""
