from django.urls import URLPattern, URLResolver, include, path

from feedback.admin import site

urlpatterns: list[URLPattern | URLResolver] = [
    path("accounts/", include("allauth.urls")),
    path("admin/", site.urls),
    path("api/v1/", include("feedback.api.urls")),
    path("", include("feedback.urls")),
]
