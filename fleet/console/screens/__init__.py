"""What each screen reads, as few queries as it takes; nothing here writes."""
