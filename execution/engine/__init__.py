"""What a worker process does: it owns executions, keeps their leases alive, follows their providers and lets none run unwatched.

`Supervisor` is the worker; `Attempt` is one execution in it.
"""

from execution.engine.supervisor import Supervisor

__all__ = ["Supervisor"]
