"""Texts in, documents out, and answers on the spot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import access, ml, queries
from feedback.api import serializers
from feedback.api.endpoint import Endpoint, LinesParser, StrictJSONParser, TableParser
from feedback.api.errors import answer
from feedback.api.pagination import NewestFirst
from feedback.errors import InvalidInput, Problem
from feedback.models import Document, IntakeBatch, hash_text
from feedback.services import intake, scoring

MAX_DOCUMENTS = 1_000
FILTERS = ("state", "risk", "emotion", "q")
FLAGS = {"1": True, "true": True, "0": False, "false": False, "": False}


class Documents(Endpoint):
    parser_classes = [StrictJSONParser, MultiPartParser, LinesParser, TableParser]

    @extend_schema(
        operation_id="listDocuments",
        parameters=[OpenApiParameter(name, str) for name in (*FILTERS, "cursor", "page_size")],
        responses=serializers.DocumentOut(many=True),
    )
    def get(self, request: Request) -> Response:
        """Newest first, a page at a time."""
        wanted = queries.DocumentFilter(**{name: request.query_params.get(name, "") for name in FILTERS})
        pages = NewestFirst()
        page = pages.paginate_queryset(queries.list_documents(wanted), request, view=self)
        return pages.get_paginated_response(serializers.DocumentOut(page, many=True).data)

    @extend_schema(
        operation_id="addDocuments",
        parameters=[OpenApiParameter("wait", bool, description="score now and answer with the predictions")],
        request={
            "application/json": serializers.DocumentIn,
            "application/x-ndjson": bytes,
            "text/csv": bytes,
            "multipart/form-data": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}},
        },
        responses={201: serializers.IntakeOut, 400: serializers.ErrorOut, 503: serializers.ErrorOut},
    )
    def post(self, request: Request) -> Response:
        """Keep texts. Bad rows are listed as problems and do not hold up the good ones."""
        wait = read_flag(request, "wait")
        kind, name, parsed = read_rows(request)
        rows = list(parsed)
        good, problems = intake.split_rows(rows)
        if not good:
            raise InvalidInput("no row can be kept", rows=[intake.as_row(problem) for problem in problems])
        if wait and len(good) > MAX_DOCUMENTS:
            raise InvalidInput(f"wait=1 takes {MAX_DOCUMENTS} texts at most: send the file without it")
        batch = intake.add_documents(rows, kind=kind, by=self.person, name=name, score_later=not wait)
        return self._score(batch, good) if wait else Response(describe_batch(batch, good), status=201)

    def _score(self, batch: IntakeBatch, rows: list[intake.IntakeRow]) -> Response:
        hashes = [hash_text(row.text) for row in rows]
        waiting = Document.objects.filter(text_hash__in=hashes, state=Document.State.UNSCORED).order_by("pk")
        try:
            scoring.score_documents(list(waiting.values_list("pk", flat=True)))
        except ml.InferenceUnavailable as error:
            detail = f"{error}; the texts were accepted and will be scored as soon as it answers"
            return answer(Problem(503, "inference_unavailable", detail), batch=describe_batch(batch, rows))
        return Response(describe_batch(batch, rows, with_documents=True), status=201)


class OneDocument(Endpoint):
    @extend_schema(operation_id="getDocument", responses=serializers.DocumentOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.DocumentOut(access.document_read(self.person, pk)).data)


class Classify(Endpoint):
    @extend_schema(
        operation_id="classify",
        request=serializers.TextsIn,
        responses={200: serializers.DecisionsOut, 400: serializers.ErrorOut, 503: serializers.ErrorOut},
    )
    def post(self, request: Request) -> Response:
        """What the serving release says. Nothing is stored."""
        texts = read_texts(request.data)
        _, problems = intake.split_rows(intake.check_row(row, text) for row, text in enumerate(texts, start=1))
        if problems:
            raise InvalidInput("some texts cannot be classified", rows=[intake.as_row(row) for row in problems])
        return Response({"decisions": [decision.as_dict() for decision in ml.decide(texts)]})


def read_flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "").lower()
    if value not in FLAGS:
        raise InvalidInput(f"{name} must be 1 or 0")
    return FLAGS[value]


def read_rows(request: Request) -> tuple[str, str, Iterable[intake.Parsed]]:
    """The batch's kind and name, and its rows, from whatever form the body has."""
    body: Any = request.data
    if isinstance(body, bytes):
        if (request.content_type or "").startswith("text/csv"):
            return IntakeBatch.Kind.CSV, "", intake.parse_csv(body)
        return IntakeBatch.Kind.JSONL, "", intake.parse_jsonl(body)
    if request.FILES:
        return _read_upload(request)
    if not isinstance(body, dict):
        raise InvalidInput('expected {"text": "…"} or {"documents": […]}')
    documents = body.get("documents", [body] if "text" in body else None)
    if not isinstance(documents, list) or not documents:
        raise InvalidInput('expected {"text": "…"} or {"documents": […]} with at least one document')
    if len(documents) > MAX_DOCUMENTS:
        raise InvalidInput(f"{len(documents)} documents, at most {MAX_DOCUMENTS} in one request: send a file, or parts")
    return IntakeBatch.Kind.API, "", intake.parse_objects(documents)


def _read_upload(request: Request) -> tuple[str, str, Iterable[intake.Parsed]]:
    upload = request.FILES.get("file")
    if upload is None:
        raise InvalidInput("the upload's field must be named file")
    name = upload.name or ""
    rows = intake.parse_file(name, upload.read())
    kind = IntakeBatch.Kind.CSV if name.lower().endswith(("csv", "tsv")) else IntakeBatch.Kind.JSONL
    return kind, name, rows


def read_texts(body: Any) -> list[Any]:
    texts = body.get("texts", [body["text"]] if "text" in body else None) if isinstance(body, dict) else None
    if not isinstance(texts, list) or not texts:
        raise InvalidInput('expected {"text": "…"} or {"texts": […]} with at least one text')
    if len(texts) > MAX_DOCUMENTS:
        raise InvalidInput(f"{len(texts)} texts, at most {MAX_DOCUMENTS} in one request")
    return texts


def describe_batch(batch: IntakeBatch, rows: list[intake.IntakeRow], *, with_documents: bool = False) -> dict[str, Any]:
    """The batch with each row's document; a text that was here already is named by its old id."""
    hashes = [hash_text(row.text) for row in rows]
    found = {document.text_hash: document for document in queries.documents_by_hash(hashes)}
    listed = []
    for row, text_hash in zip(rows, hashes, strict=True):
        document = found[text_hash]
        item: dict[str, Any] = {"row": row.row, "id": document.pk, "is_new": document.batch_id == batch.pk}
        if with_documents:
            item["document"] = serializers.DocumentOut(document).data
        listed.append(item)
    return {**serializers.BatchOut(batch).data, "documents": listed}
