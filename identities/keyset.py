"""Lists in Django admin that are paged by key: the newest first, without counting them and without skipping what was seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.views import ChangeList

BEFORE = "before"


class KeysetChangeList(ChangeList):
    """One page of rows below an id. The place in the list is an id and no page number, so every page costs the same."""

    by_key = True
    before: int | None = None
    older_url = ""
    newest_url = ""

    def get_filters_params(self, params: Any = None) -> Any:
        """Return the filters of the address; the place in the list is none of them."""
        found = super().get_filters_params(params)
        found.pop(BEFORE, None)
        return found

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """Return the only order that a place in the list has a meaning in."""
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        """Read one page and one row more, which says whether there is another."""
        self.before = _whole_number(request.GET.get(BEFORE, ""))
        rows = self.queryset if self.before is None else self.queryset.filter(pk__lt=self.before)
        found = list(rows[: self.list_per_page + 1])
        self.result_list = found[: self.list_per_page]
        self.result_count = len(self.result_list)
        self.full_result_count, self.show_full_result_count = self.result_count, False
        self.show_admin_actions = True
        self.can_show_all = self.multi_page = False
        self.paginator = Paginator(self.result_list, self.list_per_page)
        if len(found) > self.list_per_page:
            self.older_url = self.get_query_string({BEFORE: self.result_list[-1].pk})
        if self.before is not None:
            self.newest_url = self.get_query_string(remove=[BEFORE])


def among(field: str, values: Iterable[str]) -> type[SimpleListFilter]:
    """Return a filter on a text column that takes one of these values. Django's own would read the whole table to find them."""
    offered = [(value, value) for value in values]

    class Among(SimpleListFilter):
        """Rows in which the column has the chosen value."""

        title = field.replace("_", " ")
        parameter_name = field

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            """Return what can be chosen."""
            return offered

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            """Return the rows that fit."""
            return queryset.filter(**{field: self.value()}) if self.value() else queryset

    return Among


def _whole_number(text: str) -> int | None:
    """Return the id of the address, None where there is none; anything else leads back to the first page."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise IncorrectLookupParameters
    return int(text)
