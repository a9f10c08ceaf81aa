"""Whether we can afford it: budgets, reservations, token ledger, prices."""
