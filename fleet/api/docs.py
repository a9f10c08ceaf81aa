"""The OpenAPI document and a page to read it. Everything is served from here; nothing is fetched from elsewhere."""

from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from fleet.api.permissions import MatrixPermission


class BearerToken(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the document describes access tokens."""

    target_class = "fleet.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """Return the security scheme."""
        return {"type": "http", "scheme": "bearer", "description": "A personal or gateway access token."}


class Schema(SpectacularAPIView):
    """The OpenAPI document."""

    permission_classes = [MatrixPermission]


class Docs(SpectacularSwaggerSplitView):
    """The same to read and to try, without any inline script or style, as the content security policy wants it."""

    permission_classes = [MatrixPermission]
    url_name = "api:schema"
    template_name = "api/docs.html"
