"""The real Claude Code CLI, through its official SDK, behind the shim."""
