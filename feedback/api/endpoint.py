"""What every endpoint has in common: who may enter (`access.ROUTES`), how large a body may be, how it is read."""

from __future__ import annotations

from typing import IO, Any, cast

from django.conf import settings
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException, ParseError
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from feedback import access
from feedback.api.auth import ApiKeyAuthentication
from feedback.models import Person


class BodyTooLarge(APIException):
    status_code = 413
    default_code = "body_too_large"


class StrictJSONParser(JSONParser):
    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("JSON parse error - nesting too deep") from None


class LinesParser(BaseParser):
    """The raw bytes of JSON lines, parsed row by row later."""

    media_type = "application/x-ndjson"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        return stream.read()


class TableParser(LinesParser):
    media_type = "text/csv"


class RawJSONParser(LinesParser):
    """A JSON body as it stands, for a reader that names the bad rows itself."""

    media_type = "application/json"


class AlwaysJSON(BaseContentNegotiation):
    """One form of answer, whatever Accept or `?format` say; the latter means the form of an export here."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class RouteAllows(BasePermission):
    """The verb that `access.ROUTES` declares for this route and method; an undeclared route lets nobody in."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        match = request.resolver_match
        verb = access.verb_for(match.view_name, request.method or "") if match else None
        if verb is None or not request.user.is_authenticated:
            return False
        access.check(request.user, verb)
        return True


class Endpoint(APIView):
    authentication_classes = [ApiKeyAuthentication, SessionAuthentication]  # the first one's header makes it a 401
    permission_classes = [RouteAllows]
    content_negotiation_class = AlwaysJSON
    parser_classes: Any = [StrictJSONParser]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if int(request.META.get("CONTENT_LENGTH") or 0) > limit:
            raise BodyTooLarge(f"the body is larger than {limit // 2**20} MiB: send it in parts")

    @property
    def person(self) -> Person:
        """Whoever asks; the permission has let in nobody else."""
        return cast(Person, self.request.user)
