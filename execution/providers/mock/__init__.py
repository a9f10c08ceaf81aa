"""A provider that thinks nothing: for people without credentials, and for tests."""
