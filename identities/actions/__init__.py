"""The verbs of identities: people and their proofs, bots and their texts, the workspace, and the fleet as one file."""

from identities.actions.bindings import connect_server, remove_server, restore_sandbox, waive_sandbox
from identities.actions.bots import activate, create_identity, pause, resume, retire, set_grants, update_identity
from identities.actions.declared import apply_fleet, read_declaration, seed_fleet, write_declaration
from identities.actions.pairing import issue_pairing_code, pair, unpair
from identities.actions.people import (
    create_person,
    ensure_first_person,
    issue_sign_in_link,
    set_active,
    set_roles,
    use_sign_in_link,
)
from identities.actions.texts import drop_text, publish_text, revert_text
from identities.actions.tokens import issue_access_token, note_token_used, revoke_access_token
from identities.actions.workspace import WorkspaceUnusable, compile_workspace

__all__ = [
    "WorkspaceUnusable",
    "activate",
    "apply_fleet",
    "compile_workspace",
    "connect_server",
    "create_identity",
    "create_person",
    "drop_text",
    "ensure_first_person",
    "issue_access_token",
    "issue_pairing_code",
    "issue_sign_in_link",
    "note_token_used",
    "pair",
    "pause",
    "publish_text",
    "read_declaration",
    "remove_server",
    "restore_sandbox",
    "resume",
    "retire",
    "revert_text",
    "revoke_access_token",
    "seed_fleet",
    "set_active",
    "set_grants",
    "set_roles",
    "unpair",
    "update_identity",
    "use_sign_in_link",
    "waive_sandbox",
    "write_declaration",
]
