"""The door of every API view: it reads the one matrix of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from fleet import permissions
from identities.models import AccessToken, Person

if TYPE_CHECKING:
    from rest_framework.views import APIView


class MatrixPermission(BasePermission):
    """Lets a request pass when the matrix of routes says so; raises the refusal with its sentence otherwise."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return True, or raise Refused or NotAuthenticated."""
        token = request.auth if isinstance(request.auth, AccessToken) else None
        permissions.check(request, lambda: request.user if isinstance(request.user, Person) else None, token)
        return True
