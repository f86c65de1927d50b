"""Moderation by API: the same claim, reveal and decision as in the browser."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import access, queries
from feedback.api import serializers
from feedback.api.documents import read_flag
from feedback.api.endpoint import Endpoint
from feedback.api.pagination import NewestFirst
from feedback.services import moderation


class Cases(Endpoint):
    @extend_schema(
        operation_id="listCases",
        parameters=[
            OpenApiParameter("open", bool, description="only undecided ones"),
            OpenApiParameter("cursor", str),
            OpenApiParameter("page_size", str),
        ],
        responses=serializers.CaseOut(many=True),
    )
    def get(self, request: Request) -> Response:
        """Newest first, without texts."""
        cases = queries.list_cases()
        if read_flag(request, "open"):
            cases = cases.filter(decided_at=None)
        pages = NewestFirst()
        page = pages.paginate_queryset(cases, request, view=self)
        return pages.get_paginated_response(serializers.CaseOut(page, many=True).data)


class ClaimCase(Endpoint):
    @extend_schema(operation_id="claimCase", request=None, responses={200: serializers.ClaimedCaseOut, 204: None})
    def post(self, request: Request) -> Response:
        """The next case that the server hands out, with its claim token; 204 when none waits."""
        case = moderation.claim_next(self.person)
        return Response(status=204) if case is None else Response(serializers.ClaimedCaseOut(case).data)


class RevealCase(Endpoint):
    @extend_schema(
        operation_id="revealCase",
        request=serializers.TokenIn,
        responses={200: serializers.RevealedOut, 409: serializers.ErrorOut},
    )
    def post(self, request: Request, pk: int) -> Response:
        """The text, for the case's holder. Each look is recorded."""
        case = access.case_write(self.person, pk)
        token = serializers.TokenIn(data=request.data)
        token.is_valid(raise_exception=True)
        document = moderation.reveal(pk, token=token.validated_data["token"], by=self.person)
        seen = {
            "text": document.text,
            "text_hash": document.text_hash,
            "version": case.version,
            "prediction": document.prediction,
        }
        return Response(serializers.RevealedOut(seen).data)


class DecideCase(Endpoint):
    @extend_schema(
        operation_id="decideCase",
        request=serializers.CaseAnswerIn,
        responses={201: serializers.CaseDecisionOut, 409: serializers.ErrorOut},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Decide the case one holds, as one saw it. A stale claim gets 409 and nothing is written."""
        access.case_write(self.person, pk)
        given = serializers.CaseAnswerIn(data=request.data)
        given.is_valid(raise_exception=True)
        decision = moderation.decide_case(pk, moderation.CaseAnswer(**given.validated_data), by=self.person)
        return Response(serializers.CaseDecisionOut(decision).data, status=201)


class HandBackCase(Endpoint):
    @extend_schema(
        operation_id="handBackCase", request=serializers.TokenIn, responses={204: None, 409: serializers.ErrorOut}
    )
    def post(self, request: Request, pk: int) -> Response:
        """Put the case back in the queue; no reason is asked for."""
        access.case_write(self.person, pk)
        token = serializers.TokenIn(data=request.data)
        token.is_valid(raise_exception=True)
        moderation.hand_back(pk, token=token.validated_data["token"], by=self.person)
        return Response(status=204)
