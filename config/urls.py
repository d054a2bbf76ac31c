"""All addresses. Every app brings its own two lists; this module only puts them in their places."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

import accounts.urls
import invoicing.urls
import plans.urls
import usage.urls
from config.health import healthz, readyz
from config.metrics import metrics

APPS = [accounts.urls, usage.urls, plans.urls, invoicing.urls]
api: list[URLPattern | URLResolver] = []
portal: list[URLPattern | URLResolver] = []
for urls in APPS:
    api += urls.api_urlpatterns
    portal += urls.portal_urlpatterns

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", healthz),
    path("readyz", readyz),
    path("metrics", metrics),
    path("api/v1/", include(api)),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("i18n/", include("django.conf.urls.i18n")),
    path("admin/", admin.site.urls),
    path("", include(portal)),
]
handler404 = "config.errors.page_not_found"
handler500 = "config.errors.failed"
