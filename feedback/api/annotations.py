"""Annotation by a program on behalf of its owner, and the exchange of feedback."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import access
from feedback.api import serializers
from feedback.api.endpoint import Endpoint, RawJSONParser
from feedback.errors import InvalidInput
from feedback.models import Annotation
from feedback.services import annotation, feedback_file


class ClaimAnnotations(Endpoint):
    @extend_schema(
        operation_id="claimAnnotations", request=serializers.ClaimIn, responses=serializers.DocumentOut(many=True)
    )
    def post(self, request: Request) -> Response:
        """Lease documents to annotate, the most urgent first; an empty list when none waits."""
        claim = serializers.ClaimIn(data=request.data)
        claim.is_valid(raise_exception=True)
        documents = annotation.claim_documents(self.person, count=claim.validated_data["count"])
        return Response(serializers.DocumentOut(documents, many=True).data)


class Annotations(Endpoint):
    @extend_schema(
        operation_id="submitAnnotation",
        request=serializers.AnnotationIn,
        responses={201: serializers.AnnotationOut, 400: serializers.ErrorOut, 409: serializers.ErrorOut},
    )
    def post(self, request: Request) -> Response:
        """Answer for one document. Safe to repeat with the same idempotency_key."""
        given = serializers.AnnotationIn(data=request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        submission = annotation.Submission(
            document_id=fields.pop("document"),
            prediction_id=fields.pop("prediction", None),
            origin=Annotation.Origin.API,
            **fields,
        )
        kept = annotation.submit_annotation(submission, by=self.person)
        return Response(serializers.AnnotationOut(kept).data, status=201)


class OneAnnotation(Endpoint):
    @extend_schema(operation_id="undoAnnotation", responses={200: serializers.AnnotationOut, 409: serializers.ErrorOut})
    def delete(self, request: Request, pk: int) -> Response:
        """Undo one's own answer; it stays in the history as undone."""
        standing = access.annotation_write(self.person, pk)
        annotation.undo_annotation(standing, by=self.person)
        standing.refresh_from_db()
        return Response(serializers.AnnotationOut(standing).data)


EXPORTS = {
    "feedback": (feedback_file.iter_feedback_file, "application/json", "feedback.json"),
    "jsonl": (feedback_file.iter_records_jsonl, "application/x-ndjson", "records.jsonl"),
}


class ExportFeedback(Endpoint):
    @extend_schema(
        operation_id="exportFeedback",
        parameters=[OpenApiParameter("format", str, enum=sorted(EXPORTS), description="feedback if absent")],
        responses={(200, "application/json"): OpenApiTypes.BINARY, (200, "application/x-ndjson"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """The feedback file, or full records as JSON lines; streamed."""
        wanted = request.query_params.get("format", "feedback")
        if wanted not in EXPORTS:
            raise InvalidInput(f"format must be one of {', '.join(sorted(EXPORTS))}")
        rows, content_type, name = EXPORTS[wanted]
        response = StreamingHttpResponse(rows(), content_type=content_type)
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        return response


class ImportFeedback(Endpoint):
    parser_classes = [RawJSONParser, MultiPartParser]

    @extend_schema(
        operation_id="importFeedback",
        request={
            "application/json": {"type": "array", "items": {"type": "object"}},
            "multipart/form-data": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}},
        },
        responses={201: serializers.BatchOut, 400: serializers.ErrorOut},
    )
    def post(self, request: Request) -> Response:
        """A feedback file. Imported twice, it is imported once."""
        name = ""
        data: Any = request.data
        if request.FILES:
            upload = request.FILES.get("file")
            if upload is None:
                raise InvalidInput("the upload's field must be named file")
            name, data = upload.name or "", upload.read()
        if not isinstance(data, bytes):
            raise InvalidInput("send the feedback file as the body, or as the field file of a form")
        batch = feedback_file.import_feedback(data, by=self.person, name=name)
        return Response(serializers.BatchOut(batch).data, status=201)
