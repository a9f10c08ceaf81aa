"""The real Codex CLI, through its app-server's protocol with the official SDK's types, behind the shim."""
