"""The only way out of a sandbox: an HTTP proxy that knows one bot's destinations. A program of its own, which knows nothing of Django."""
