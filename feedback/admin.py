"""Django's admin as a window for operators: superusers only, nothing can be changed, no text is shown."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth.views import redirect_to_login
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from feedback import models


class OperatorSite(AdminSite):
    site_header = site_title = "Heed"
    index_title = "What is stored"

    def has_permission(self, request: HttpRequest) -> bool:
        return request.user.is_active and request.user.is_superuser

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The one login page, with its limit on failed tries; a person without the right gets no second chance here."""
        if request.user.is_authenticated:
            return HttpResponse("This page is for superusers.", status=403, content_type="text/plain")
        return redirect_to_login(request.get_full_path())


site = OperatorSite(name="admin")


class Window(ModelAdmin):  # type: ignore[type-arg]
    actions = None
    show_full_result_count = False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.is_active and bool(request.user.is_superuser)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class PersonWindow(Window):
    list_display = ["username", "is_active", "is_superuser", "last_login"]
    fields = ["username", "email", "groups", "is_active", "is_superuser", "date_joined", "last_login"]


class DocumentWindow(Window):
    list_display = ["id", "state", "priority", "answers", "answers_wanted", "created_at"]
    list_filter = ["state"]
    exclude = ["text"]


class AnnotationWindow(Window):
    list_display = ["id", "document_id", "person", "verdict", "origin", "created_at", "undone_at"]
    list_filter = ["verdict", "origin"]
    list_select_related = ["person"]
    exclude = ["comment"]
    raw_id_fields = ["document", "prediction"]


class CaseWindow(Window):
    list_display = ["id", "document_id", "band", "reason", "due_at", "is_overdue", "outcome", "decided_at"]
    list_filter = ["band", "is_overdue", "outcome"]
    exclude = ["note", "claim_token"]
    raw_id_fields = ["document"]


class BatchWindow(Window):
    list_display = ["id", "kind", "name", "accepted", "known", "refused", "created_at"]
    list_filter = ["kind"]


class AuditWindow(Window):
    list_display = ["id", "at", "actor", "verb", "noun", "noun_id"]
    list_filter = ["verb"]
    list_select_related = ["actor"]


class ApiKeyWindow(Window):
    list_display = ["name", "person", "created_at", "last_used_at", "revoked_at"]
    exclude = ["token_hash"]


site.register(models.Person, PersonWindow)
site.register(models.Document, DocumentWindow)
site.register(models.Annotation, AnnotationWindow)
site.register(models.RiskCase, CaseWindow)
site.register(models.IntakeBatch, BatchWindow)
site.register(models.AuditEvent, AuditWindow)
site.register(models.ApiKey, ApiKeyWindow)
