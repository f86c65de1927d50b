"""Runs and releases."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import access, ml
from feedback.api import serializers
from feedback.api.endpoint import Endpoint
from feedback.api.pagination import NewestFirst
from feedback.services import retraining

PAGES = [OpenApiParameter("cursor", str), OpenApiParameter("page_size", str)]


class Runs(Endpoint):
    @extend_schema(operation_id="listRuns", parameters=PAGES, responses=serializers.RunOut(many=True))
    def get(self, request: Request) -> Response:
        """Newest first."""
        pages = NewestFirst()
        page = pages.paginate_queryset(ml.list_runs(), request, view=self)
        return pages.get_paginated_response(serializers.RunOut(page, many=True).data)

    @extend_schema(
        operation_id="launchRun",
        request=serializers.RunIn,
        responses={201: serializers.RunOut, 400: serializers.ErrorOut, 409: serializers.ErrorOut},
    )
    def post(self, request: Request) -> Response:
        """Freeze what people have said so far and queue a run on it."""
        given = serializers.RunIn(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = given.validated_data
        launch = retraining.Launch(
            wanted["kind"],
            options=wanted.get("options", {}),
            publishes=wanted["publishes"],
            snapshot_options=wanted.get("snapshot"),
            base=wanted["base"],
        )
        run = retraining.launch_run(launch, by=self.person)
        return Response(serializers.RunOut(run).data, status=201)


class OneRun(Endpoint):
    @extend_schema(operation_id="getRun", responses=serializers.RunOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.RunOut(access.run_read(self.person, pk)).data)


class CancelRun(Endpoint):
    @extend_schema(
        operation_id="cancelRun", request=None, responses={200: serializers.RunOut, 409: serializers.ErrorOut}
    )
    def post(self, request: Request, pk: int) -> Response:
        """A running job writes a checkpoint and stops; 409 when the run has ended."""
        run = retraining.cancel(access.run_write(self.person, pk), by=self.person)
        return Response(serializers.RunOut(run).data)


class Releases(Endpoint):
    @extend_schema(operation_id="listReleases", parameters=PAGES, responses=serializers.ReleaseOut(many=True))
    def get(self, request: Request) -> Response:
        """Newest first; the first one serves."""
        pages = NewestFirst()
        page = pages.paginate_queryset(ml.list_releases(), request, view=self)
        return pages.get_paginated_response(serializers.ReleaseOut(page, many=True).data)


class RollBack(Endpoint):
    @extend_schema(
        operation_id="rollBack",
        request=serializers.RollBackIn,
        responses={201: serializers.ReleaseOut, 409: serializers.ErrorOut},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Serve this release's bundle again, as a new release."""
        release = access.release_write(self.person, pk)
        given = serializers.RollBackIn(data=request.data)
        given.is_valid(raise_exception=True)
        restored = retraining.roll_back(release, reason=given.validated_data["reason"], by=self.person)
        return Response(serializers.ReleaseOut(restored).data, status=201)
