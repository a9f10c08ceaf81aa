"""Ways to think, one folder each. They know nothing of the database, and nothing of each other."""
