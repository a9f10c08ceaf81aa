"""Asks an installed CLI whether it keeps what a provider relies on: with a model of our own on loopback, and never with a real key."""
