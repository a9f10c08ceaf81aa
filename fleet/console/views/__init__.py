"""The console's views: load, call one screen or action, answer."""
