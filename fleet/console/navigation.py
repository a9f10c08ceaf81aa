"""Every page of the console as data: the rail, the titles, and what a page that is not built yet will show."""

from __future__ import annotations

from dataclasses import dataclass

from identities.permissions import Permission


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page. `at` names the URL where it can be seen already; empty while it is still to come."""

    slug: str
    title: str
    promise: str
    at: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One entry of the rail. `url_name` is empty for a page that is not built yet; `promise` says what it will show."""

    slug: str
    title: str
    promise: str
    url_name: str = ""
    sections: tuple[Section, ...] = ()
    permission: Permission = Permission.FLEET_VIEW

    @property
    def built(self) -> bool:
        """Return whether the page has a screen of its own."""
        return bool(self.url_name)


@dataclass(frozen=True, slots=True)
class Group:
    """A few pages that answer the same question."""

    title: str
    pages: tuple[Page, ...]


PRODUCTIVITY = Page(
    "productivity",
    "Productivity",
    "Where the company is going and how the bots are doing, on one page.",
    sections=(
        Section(
            "strategy",
            "Strategy & OKRs",
            "Objectives with their key results: baseline, target, pace and who measures them.",
        ),
        Section(
            "kill-switch",
            "Kill switch",
            "Whether the fleet is running, and the button that stops it.",
            "console:kill_switch",
        ),
        Section(
            "performance",
            "Bot performance (7 days)",
            "Completed, failed, active, average time and success for each bot.",
        ),
        Section(
            "processes", "Business processes", "Each process with its trigger, its last outcomes and whom it waits for."
        ),
        Section(
            "architecture", "Platform architecture", "The parts of the platform, drawn with the state each is in now."
        ),
        Section("message-flow", "Message flow", "The way of a message from a person to a reply, step by step."),
        Section(
            "execution", "Execution model", "How a bot thinks: providers, workspaces, sessions and their rotation."
        ),
        Section(
            "identities",
            "Enterprise identities",
            "Everybody who works here: people, bots and who reports to whom.",
            "console:fleet",
        ),
        Section("commands", "Operator commands", "What can be typed in chat, with an example of each command."),
        Section("documents", "Architecture documents", "Current state, north star, adoption map and the decision log."),
        Section("runbooks", "Runbooks", "What to do when something breaks, with commands to copy."),
        Section("links", "Quick links", "The tools around the fleet: logs, metrics, API documentation."),
    ),
)
DOCS = Page("docs", "Docs", "Current state, north star, adoption map, product loops, decisions and practices.")
FLEET = Page("fleet", "Fleet", "Every bot with its observed state.", "console:fleet")
CHAT = Page("chat", "Chat", "Conversations with the bots.", "console:chat")
KILL_SWITCH = Page("kill-switch", "Kill switch", "Stop the fleet and see proof that it stopped.", "console:kill_switch")
LOGINS = Page("logins", "Logins", "Which providers can answer, and until when one is left alone.", "console:logins")

GROUPS: tuple[Group, ...] = (
    Group("Overview", (PRODUCTIVITY, DOCS)),
    Group(
        "Work",
        (
            FLEET,
            CHAT,
            Page(
                "tasks", "Tasks", "What is to be done: a board and a list of the same tasks, with owner, age and spend."
            ),
            Page(
                "approvals",
                "Approvals",
                "What waits for a person's yes: the exact action, its risk, its cost and its expiry.",
            ),
        ),
    ),
    Group(
        "Steer",
        (
            Page(
                "budgets",
                "Budgets",
                "Limit, reserved, spent and forecast for every scope, and what a finished task costs.",
            ),
            Page(
                "improvements",
                "Improvements",
                "What the bots learned: lessons, proposals, trials and the effect that was measured.",
            ),
        ),
    ),
    Group(
        "Run",
        (
            LOGINS,
            Page("runner", "Runner", "Workers, what runs and waits, and the processes kept ready.", "console:runner"),
            Page(
                "services",
                "Services",
                "Service, port, runtime, restart command and config, with the state each was seen in.",
            ),
            Page(
                "desktops",
                "Desktops",
                "A picture of every bot's desktop, who controls it, and full control with one click.",
            ),
            Page(
                "logs",
                "Logs",
                "Whether logs are collected, how far behind they are, and links to the lines of each run.",
            ),
        ),
    ),
)

PLANNED: dict[str, Page] = {page.slug: page for group in GROUPS for page in group.pages if not page.built}
