"""How often each service of the platform was healthy when it was looked at."""

import json
import time
import traceback
from urllib.parse import urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import database_sync as sql
from wit_world.imports import exprsn_sql_types as sql_types
from wit_world.imports import outgoing_handler
from wit_world.imports import wasi_http_types as http
from wit_world.imports.exprsn_sql_types import Value_Integer, Value_Text
from wit_world.imports.streams import StreamError_Closed

CHUNK_BYTES = 64 * 1024
WRITE_BYTES_MAX = 4096


class Problem(Exception):
    """Why there is no better answer (RFC 9457)."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status
        self.detail = detail


class IncomingHandler(exports.IncomingHandler):
    """What the host calls with each request."""

    def handle(self, request: http.IncomingRequest, response_out: http.ResponseOutparam) -> None:
        try:
            status, answer = route(request)
            kind = "application/json"
        except Exception as error:
            problem = as_problem(error)
            status, answer = problem.status, {"status": problem.status, "detail": problem.detail}
            kind = "application/problem+json"
        respond(response_out, status, kind, json.dumps(answer).encode())


def route(request: http.IncomingRequest):
    path = urlsplit(request.path_with_query() or "/").path
    match request.method(), path:
        case http.Method_Get(), "/health":
            return 200, {"status": "healthy"}
        case http.Method_Get(), "/api/uptime":
            return 200, uptime()
        case http.Method_Post(), "/api/checks":
            return 201, check()
        case _:
            raise Problem(404, "there is nothing here")


def uptime():
    found = sql.query(
        """SELECT service, COUNT(*), SUM(healthy), MAX(checked_at) FROM checks
           GROUP BY service ORDER BY service""",
        [],
    )
    return [
        {
            "service": service.value,
            "checks": checks.value,
            "healthyPercent": round(100 * healthy.value / checks.value, 2),
            "lastCheckedAt": last.value,
        }
        for service, checks, healthy, last in found.rows
    ]


def check():
    """Looks at every service, writes down how it is, and announces the check: all of it, or nothing."""
    now = int(time.time() * 1000)
    services = get("exprsn-setup", "/api/registry/services")
    seen = [(service["name"], service["status"] == "healthy") for service in services]
    with sql.Transaction.begin() as transaction:
        for name, healthy in seen:
            transaction.execute(
                "INSERT INTO checks (service, checked_at, healthy) VALUES ($1, $2, $3)",
                [Value_Text(name), Value_Integer(now), Value_Integer(int(healthy))],
            )
        summary = {"services": len(seen), "healthy": sum(healthy for _, healthy in seen)}
        transaction.publish(
            sql_types.OutboxEvent(id=None, topic="statuspage.checked", subject=None, data=json.dumps(summary))
        )
        transaction.commit()
    return summary


def get(host: str, path: str):
    """Asks a service of the platform and reads its JSON."""
    request = http.OutgoingRequest(http.Fields())
    request.set_scheme(http.Scheme_Http())
    request.set_authority(host)
    request.set_path_with_query(path)
    try:
        future = outgoing_handler.handle(request, None)
        with future.subscribe() as ready:
            ready.block()
        response = unwrap(unwrap(future.get()))
    except Err as error:
        if isinstance(error.value, http.ErrorCode_HttpRequestDenied):
            raise Problem(403, f"access-denied: the call of {host} is not granted")
        raise Problem(502, f"{host}: {type(error.value).__name__}")
    body = read(response)
    if response.status() != 200:
        raise Problem(502, f"{host} answered {response.status()}")
    return json.loads(body)


def unwrap(result):
    if isinstance(result, Ok):
        return result.value
    raise result


def read(response: http.IncomingResponse) -> bytes:
    body = bytearray()
    with response.consume() as content, content.stream() as stream:
        try:
            while True:
                body += stream.blocking_read(CHUNK_BYTES)
        except Err as error:
            if not isinstance(error.value, StreamError_Closed):
                raise Problem(502, "the answer broke off")
    return bytes(body)


def respond(response_out: http.ResponseOutparam, status: int, kind: str, body: bytes) -> None:
    response = http.OutgoingResponse(http.Fields.from_list([("content-type", kind.encode())]))
    response.set_status_code(status)
    content = response.body()
    http.ResponseOutparam.set(response_out, Ok(response))
    with content.write() as stream:
        for start in range(0, len(body), WRITE_BYTES_MAX):
            stream.blocking_write_and_flush(body[start : start + WRITE_BYTES_MAX])
    http.OutgoingBody.finish(content, None)


def as_problem(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case Err(value=sql_types.Error_AccessDenied(value=detail)):
            return Problem(403, f"access-denied: {detail}")
        case Err(value=value):
            return Problem(503, f"{type(value).__name__}: {getattr(value, 'value', '')}")
    traceback.print_exception(error)
    return Problem(500, "an error of statuspage; its log says which")
