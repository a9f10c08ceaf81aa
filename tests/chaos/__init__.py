"""Chaos drills on a product of their own: kill at random points, let it settle, then count what must never be counted."""
