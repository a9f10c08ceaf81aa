"""What Fleet stands on: embedded PostgreSQL and Valkey, and the supervisor that keeps the services alive.

This package is below everything and knows neither Django nor any app, so it also works when those do not.
"""
