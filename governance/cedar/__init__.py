"""Gate 1's engine: Cedar, its schema and the policy that ships."""
