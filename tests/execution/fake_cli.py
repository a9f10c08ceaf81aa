"""A Claude CLI that misbehaves. Speaks just enough of the protocol to come as far as its fault."""

from __future__ import annotations

import sys
from pathlib import Path

_SCRIPT = """#!{python} -IS
import json, os, signal, sys, time
if "--version" in sys.argv:
    print("{version} (Claude Code)")
    sys.exit()
def say(message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()
def hear():
    line = sys.stdin.readline()
    if not line:
        time.sleep({linger})
        sys.exit()
    return json.loads(line)
def ready():
    request = hear()
    say({{"type": "control_response", "response": {{"subtype": "success", "request_id": request["request_id"], "response": {{}}}}}})
def prompt():
    while (message := hear())["type"] != "user":
        pass
    say({{"type": "system", "subtype": "init", "session_id": "s", "claude_code_version": "{version}", "model": "fake"}})
def text(words):
    event = {{"type": "content_block_delta", "delta": {{"type": "text_delta", "text": words}}}}
    say({{"type": "stream_event", "uuid": "u", "session_id": "s", "parent_tool_use_id": None, "event": event}})
def result(words):
    say({{"type": "result", "subtype": "success", "is_error": False, "duration_ms": 1, "duration_api_ms": 1, "num_turns": 1,
         "session_id": "s", "result": words, "terminal_reason": "completed"}})
{body}
"""


def write(path: Path, body: str, *, version: str = "2.1.330", linger: float = 0) -> Path:
    """Write a CLI whose life is `body`: calls of ready, prompt, text, result, and whatever else Python can do."""
    script = _SCRIPT.format(python=sys.executable, version=version, body=body, linger=linger)
    path.write_text(script)
    path.chmod(0o755)
    return path
