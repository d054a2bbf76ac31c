"""Bounded pages for lists of the API."""

from rest_framework.pagination import CursorPagination


class IdPages(CursorPagination):
    """Pages by id, oldest first: a page costs the same however deep, and never skips a row."""

    ordering = "id"
    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 500


class NewestFirstPages(IdPages):
    """Pages by id, newest first."""

    ordering = "-id"
