"""The OpenAPI document and a page to read it. Everything is served from here; nothing is fetched from elsewhere."""

from __future__ import annotations

from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponseBase
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from fleet import errors
from fleet.api.permissions import MatrixPermission
from fleet.permissions import NotSignedIn


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

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]  # no renderer for errors
        """Answer as a page does, for this one is opened by people: lead to the sign-in page, or say why not."""
        if isinstance(exc, NotSignedIn):
            return redirect_to_login(self.request.get_full_path())
        error = errors.explain(exc)
        return errors.answer(self.request, error) if error else super().handle_exception(exc)
