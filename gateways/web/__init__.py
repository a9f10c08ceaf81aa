"""Web chat and the console's live hints over WebSockets. See README.md."""
