"""A real ACP agent from the npm lock, declared as an installation would: `claude-agent-acp` with the CLI of the Claude SDK's wheel."""

import sys
from pathlib import Path

from execution.providers.acp.agents import Agent
from execution.providers.claude.launch import cli_path

PROGRAM = Path(__file__).parent / "node_modules" / "@agentclientprotocol" / "claude-agent-acp" / "dist" / "index.js"
CLI = Path(__file__).with_name("claude-with-a-piped-key")
NODE = Path(sys.executable).parent / "node"
TOOLS = ("Bash", "Read", "Write", "Edit", "Grep", "Glob", "WebFetch", "Task")


def claude_agent(model_url: str) -> Agent:
    """An agent that asks for every tool, reads no settings of a project, and takes chat text as it is."""
    options = {
        "settingSources": [],
        "strictMcpConfig": True,
        "verbatimPrompts": True,
        "promptSuggestions": False,
        "title": "Fleet",  # else it asks a model for one, which no turn counts
        "tools": "{tools}",
        "model": "{model}",
        "settings": {"permissions": {"ask": list(TOOLS)}},
    }
    return Agent(
        name="agent",
        command=(str(NODE), str(PROGRAM)),
        model="claude-haiku-4-5",
        models="claude-",
        environment={
            "ANTHROPIC_BASE_URL": model_url,
            "CLAUDE_CODE_EXECUTABLE": str(CLI),
            "CLAUDE_CLI": str(cli_path()),
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
        },
        model_url="ANTHROPIC_BASE_URL",
        pipes={"AGENT_KEY_PIPE": "AGENT_KEY"},
        session={"systemPrompt": "{system_prompt}", "claudeCode": {"options": options}},
        mode="default",
        reads=(str(NODE.resolve().parent.parent), str(PROGRAM.parents[3]), str(CLI), str(cli_path())),
    )
