"""A model as one SQL query."""

from attfm.serve.sql.query import export_sql, sql_query

__all__ = ["export_sql", "sql_query"]
