"""The label schema with its guidelines, and the OpenAPI document."""

from __future__ import annotations

from dataclasses import asdict

from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.api import serializers
from feedback.api.endpoint import Endpoint, RouteAllows
from feedback.models.labels import SCHEMA


class LabelSchema(Endpoint):
    @extend_schema(operation_id="getLabelSchema", responses=serializers.SchemaOut)
    def get(self, request: Request) -> Response:
        """Dimensions and values in order of severity, with descriptions, guidelines, keys and costs."""
        return Response(asdict(SCHEMA))


class OpenApi(SpectacularJSONAPIView):
    authentication_classes = Endpoint.authentication_classes
    permission_classes = [RouteAllows]
