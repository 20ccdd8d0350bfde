"""What a request is told that cannot be answered as it asks: RFC 9457, with what to do about it.

`detail` is where Airflow's clients look as well.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from trainflow import errors
from trainflow.metadata.transaction_retries import is_outage, is_refusal

MEDIA = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Why there is no other answer. `title`: the kind of problem, for programs; `detail`: what it is, in a sentence or
    two; `what_to_do`: what helps."""

    title: str
    status: int
    detail: str
    what_to_do: str


class RequestRefused(Exception):
    """A request that is answered by a problem."""

    def __init__(self, status: int, title: str, detail: str, what_to_do: str, **headers: str) -> None:
        super().__init__(detail)
        self.problem = Problem(title=title, status=status, detail=detail, what_to_do=what_to_do)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


#: status → what it means of every endpoint
OF_ALL = {
    400: "understood, and it cannot be done with what is given",
    401: "a token is needed, and none was shown, or an unknown one",
    403: "the token's role does not allow it, or a browser was sent here by another site",
    404: "there is no such thing",
    409: "it does not go with how things are now",
    421: "the request names another host",
    422: "not understood",
    429: "too many wrong tokens came from this address",
    503: "the database, the store or this server cannot answer now",
}
#: of those that take a body
OF_WRITES = {
    408: "the body did not come to an end",
    413: "the body is larger than any that is expected",
    415: "the body is no JSON",
}

_LOOK_AGAIN = "look at it again (GET), and decide by what it is now"
#: the first that an error is one of counts
_KINDS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.DagNotFound, 404, "GET /api/v1/dags lists what there is; an engine has to have read the file once"),
    (errors.DagRunNotFound, 404, "GET /api/v1/dags/{dag_id}/dagRuns lists the runs"),
    (errors.NotFound, 404, "the listing of its kind (GET /api/v1/chains, …/pools) says what there is"),
    (errors.CheckpointNotFound, 404, "GET /api/v1/chains/{pipeline}/{stage}/{branch}/checkpoints lists those kept"),
    (errors.DagRunAlreadyExists, 409, "give it another dag_run_id, or the conf that the run was made with"),
    (errors.StateError, 409, _LOOK_AGAIN),
    (errors.ChainMoved, 409, _LOOK_AGAIN),
    (errors.ChainStopped, 409, "decide with POST …/resume"),
    (errors.LedgerCorrupt, 409, "'trainflow audit PIPELINE' says what is wrong with the ledger"),
    (errors.ArtifactCorrupt, 409, "'trainflow checkpoints verify PIPELINE' says what is wrong with the files"),
    (errors.StoreFailure, 503, "see that the store can be reached and written from the host of this server"),
    (errors.SampleError, 503, "see that the samples can be reached from the host of this server"),
    (errors.DatabaseUnavailable, 503, "try again when the metadata database is back"),
    (errors.DatabaseDamaged, 503, "'trainflow db check' says what is wrong"),
    (errors.CheckpointError, 409, _LOOK_AGAIN),
    (errors.EngineError, 503, "see the log of the engine"),
    (errors.InputError, 400, "change what the message names; /openapi.json describes every field"),
    (errors.TrainflowError, 409, "see the log of this server"),
)


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]] | None:
    """What an error is told as, and headers; None: it is a fault of this server."""
    if isinstance(error, RequestRefused):
        return error.problem, error.headers
    for kind, status, what_to_do in _KINDS:
        if isinstance(error, kind):
            name = type(error).__name__
            headers = {"Retry-After": "1"} if status == 503 else {}
            return Problem(title=name, status=status, detail=_said(error), what_to_do=what_to_do), headers
    if is_outage(error):
        name, what_to_do = "DatabaseUnavailable", "try again when the metadata database is back"
        detail = f"the metadata database cannot be used: {_said(error)}"
        return Problem(title=name, status=503, detail=detail, what_to_do=what_to_do), {"Retry-After": "1"}
    if is_refusal(error):
        detail = "the metadata database does not take what is in this request"
        return Problem(title="NotUnderstood", status=422, detail=detail, what_to_do="leave out odd characters"), {}
    return None


def _said(error: Exception) -> str:
    from trainflow.observability.redaction import redact_text

    return redact_text(str(error)) or type(error).__name__


def not_understood(detail: str) -> RequestRefused:
    """A request of which a part is not of its type."""
    return RequestRefused(422, "NotUnderstood", detail, "/openapi.json says what every part of a request may be")


def problem_response(problem: Problem, headers: dict[str, str]) -> Response:
    """A problem as an answer."""
    given = {"cache-control": "no-store", **headers}
    return Response(msgspec.json.encode(problem), problem.status, given, MEDIA)
