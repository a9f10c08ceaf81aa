"""The small process that stands between a worker and a provider's CLI, and the facts by which processes are recognised."""
