"""JSON over HTTP to a server on this machine."""

import json
import urllib.request
from typing import Any


def post(url: str, data: dict[str, Any], timeout: float = 30) -> Any:
    request = urllib.request.Request(url, json.dumps(data).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)
