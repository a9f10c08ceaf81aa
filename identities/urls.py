"""The addresses of identities."""

from django.urls import path

from identities import views

app_name = "identities"

urlpatterns = [path("sign-in/<str:token>/", views.use_link, name="sign_in_link")]
