"""What a turn used that no event tells, since the CLI reports it late, in part or in sum only: its subagents' messages, and what it asked
for by itself.
"""

from __future__ import annotations

from execution.ports import Usage
from execution.providers.claude.counting import Counting
from execution.providers.claude.subagents import Subagents
from execution.providers.claude.translate import Translator


class Unreported:
    """Collects it for one turn, in the worker's thread. `counting` is that of the process, which compares all of it with its totals."""

    def __init__(self, counting: Counting, subagents: Subagents) -> None:
        self._counting, self._subagents = counting, subagents
        self.began = subagents.began  # for a worker that goes on with the turn
        self._used: dict[str, Usage] = {}
        self._met: set[str] = set()  # subagents whose messages were found
        self._complete = False

    def known(self, heard: Translator, *, over: bool) -> tuple[Usage, ...]:
        """Return the highest counts of each message so far. Of a turn that is `over`, once more and to its end."""
        if not self._complete:
            self._complete = over
            self._read(heard)
            if over:
                self._take_reports(heard)
                self._take_rest(heard)
        return tuple(self._used.values())

    def _read(self, heard: Translator) -> None:
        if not heard.delegates:
            return
        for agent, line in self._subagents.said():
            self._met.add(agent)
            self._note(self._counting.of_line(line))

    def _take_reports(self, heard: Translator) -> None:
        """Take what a subagent reported of itself where its messages were not found. It is what its last message used."""
        for agent, line in heard.reports.items():
            if agent not in self._met:
                self._note(self._counting.of_line(line))

    def _take_rest(self, heard: Translator) -> None:
        """Take what the totals have above all this. Not of a resumed session: its totals begin with the transcript (claude-code#83239)."""
        if heard.totals_are_whole:
            self._note(self._counting.rest(heard.totals, session_id=heard.session_id))

    def _note(self, usage: Usage | None) -> None:
        if usage is not None:
            self._used[usage.message_id] = usage
