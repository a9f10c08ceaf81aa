"""Who: people, bots, souls, skills, tools, workspaces, chat accounts."""
