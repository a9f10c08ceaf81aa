"""The route table. Each route's permission stands in the matrix of routes; a route missing there is refused and fails a test."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("fleet.api.urls")),
    path("", include("identities.urls")),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("", include("fleet.console.urls")),
]

handler400 = "fleet.errors.bad_request"
handler403 = "fleet.errors.permission_denied"
handler404 = "fleet.errors.not_found"
handler500 = "fleet.errors.server_error"
