"""Telegram: long polling in, the outbox out. See README.md."""
