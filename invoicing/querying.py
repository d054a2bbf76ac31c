"""Runs a named SQL statement with named parameters; the only place here that opens a cursor."""

from collections.abc import Mapping
from typing import Any

from django.db import connection

Row = dict[str, Any]


def fetch(statement: str, parameters: Mapping[str, Any]) -> list[Row]:
    """The statement's rows, each by column name."""
    with connection.cursor() as cursor:
        cursor.execute(statement, dict(parameters))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def run(statement: str, parameters: Mapping[str, Any]) -> int:
    """Execute the statement; returns how many rows it wrote."""
    with connection.cursor() as cursor:
        cursor.execute(statement, dict(parameters))
        return int(cursor.rowcount)
