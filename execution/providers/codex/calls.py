"""Tool calls of Codex under the names that grants use, whether it asks for them or tells of them."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any

from openai_codex.generated.v2_all import (
    AddPatchChangeKind,
    CommandExecutionThreadItem,
    FileChangeThreadItem,
    McpToolCallThreadItem,
)

from execution.toolcalls import ToolCall

ToolItem = CommandExecutionThreadItem | FileChangeThreadItem | McpToolCallThreadItem
_LISTS = ("list_mcp_resources", "list_mcp_resource_templates")
_RESOURCES = (*_LISTS, "read_mcp_resource")
_SHELLS = ("bash", "sh", "zsh")


def calls_of(item: Any) -> tuple[ToolCall, ...]:
    """Return the calls in an item, one for every file that a patch changes; nothing for what is no tool."""
    match item:
        case CommandExecutionThreadItem():
            return (command_call(item.id, item.command),)
        case FileChangeThreadItem():
            return tuple(call for change in item.changes for call in _change_calls(item.id, change))
        case McpToolCallThreadItem():
            arguments = item.arguments if isinstance(item.arguments, dict) else {}
            return (ToolCall(item.id, f"mcp__{item.server}__{item.tool}", arguments),)
    return ()


def is_resource(item: Any) -> bool:
    """Return whether this is one of the tools of Codex itself that list and read what MCP servers have."""
    return isinstance(item, McpToolCallThreadItem) and item.tool in _RESOURCES


def is_list(item: McpToolCallThreadItem) -> bool:
    """Return whether it only lists what there is, as Codex does of its own accord with tools."""
    return item.tool in _LISTS


def command_call(call_id: str, command: str) -> ToolCall:
    """Return the call of a command, without the shell that Codex runs it in."""
    return ToolCall(call_id, "Bash", {"command": _unwrapped(command)})


def _change_calls(call_id: str, change: Any) -> tuple[ToolCall, ...]:
    """A file that is moved is two: what is written under the new name is asked for under the new name."""
    kind = change.kind.root
    tool = "Write" if isinstance(kind, AddPatchChangeKind) else "Edit"
    moved_to = getattr(kind, "move_path", None)
    paths = (change.path, *((str(moved_to),) if moved_to else ()))
    return tuple(ToolCall(call_id, tool, {"file_path": str(path), "diff": change.diff}) for path in paths)


def _unwrapped(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    is_shell = len(words) == 3 and PurePath(words[0]).name in _SHELLS and words[1] in ("-c", "-lc")
    return words[2] if is_shell else command
