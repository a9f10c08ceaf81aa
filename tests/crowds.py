"""Many rows at once: the tables of a house that has been running for a long time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet
from django.test.utils import CaptureQueriesContext

MANY = 30_000


def multiply(row: Model, number: int = MANY, **varied: str) -> None:
    """Copy a row `number` times inside the database; `varied` gives columns as SQL, in which `n` counts up from 1."""
    table = row._meta.db_table
    columns = [field.column for field in row._meta.concrete_fields if not field.primary_key]
    values = ", ".join(varied.get(column, f'"{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names}) SELECT {values} FROM {table}, generate_series(1, {number}) AS n WHERE id = %s",
            [row.pk],
        )
        cursor.execute(f"ANALYZE {table}")


def plan_of(rows: QuerySet[Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of the plan by which PostgreSQL finds these rows."""
    todo = [json.loads(rows.explain(format="json"))[0]["Plan"]]
    while todo:
        node = todo.pop()
        todo += node.get("Plans", [])
        yield node


def indexes_of(rows: QuerySet[Any]) -> dict[str, str]:
    """The indexes that PostgreSQL walks to find these rows, with the condition that it looks up in each. No sort, no table scan."""
    nodes = list(plan_of(rows))
    slow = [node["Node Type"] for node in nodes if node["Node Type"] in {"Seq Scan", "Sort", "Incremental Sort"}]
    assert slow == [], nodes
    return {node["Index Name"]: node.get("Index Cond", "") for node in nodes if "Index Name" in node}


def statements_of(visit: Any) -> list[str]:
    """The SQL that a visit takes."""
    with CaptureQueriesContext(connection) as captured:
        answer = visit()
    assert answer.status_code == 200, answer.content[:500]
    return [query["sql"] for query in captured]


def no_page_is_skipped_over(statements: list[str]) -> bool:
    """Whether none of the statements counts or reads the rows before the page it wants."""
    return not [sql for sql in statements if " OFFSET " in sql]
