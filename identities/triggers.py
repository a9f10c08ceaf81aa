"""What the database itself refuses about bots: the bodies of its triggers."""

from __future__ import annotations

from identities.validators import BOUNDS

# The lock makes two moves that would close a ring only together pass one after the other.
NO_RING_OF_MANAGERS = """
    PERFORM pg_advisory_xact_lock(hashtext('identities.manager_tree'));
    IF EXISTS (
        WITH RECURSIVE above(id) AS (
            SELECT NEW.manager_id
            UNION
            SELECT bot.manager_id FROM {meta.db_table} AS bot JOIN above ON bot.id = above.id
            WHERE bot.manager_id IS NOT NULL
        )
        SELECT 1 FROM above WHERE id = NEW.id
    ) THEN
        RAISE EXCEPTION 'identity_manager_tree: % would manage itself', NEW.slug USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
"""


def only_sensible_numbers() -> str:
    """Return the body of a trigger that refuses numbers out of bounds where they are written; those that were there stay."""
    checks = [
        f"""
    IF NOT {bound.condition(f"NEW.{name}")} AND (TG_OP = 'INSERT' OR NEW.{name} IS DISTINCT FROM OLD.{name}) THEN
        RAISE EXCEPTION 'identity_sensible_{name}: % is out of bounds', NEW.{name} USING ERRCODE = 'check_violation';
    END IF;"""
        for name, bound in BOUNDS.items()
    ]
    return "".join(checks) + "\n    RETURN NEW;\n"
