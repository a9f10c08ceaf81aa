"""The console: what people see of the fleet in a browser. Reads through queries, writes through actions, decides nothing."""
