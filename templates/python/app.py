"""A web service: one `handle` for every request.

The module `wit_world` comes from `componentize-py`, which makes it of `wit/world.wit`.
"""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)


class IncomingHandler(exports.IncomingHandler):
    """Implements the export of the world."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        """Answers one request."""
        path = request.path_with_query() or "/"
        # Printed lines are the log of the pod: `sampan logs`.
        print(f"asked for {path}", flush=True)
        answer(response_out, 200, f"Hello from Python at {path}\n")


def answer(response_out: ResponseOutparam, status: int, text: str) -> None:
    """Answers with a text."""
    headers = Fields.from_list([("content-type", b"text/plain; charset=utf-8")])
    response = OutgoingResponse(headers)
    response.set_status_code(status)
    body = response.body()
    # From here on the host may send the head.
    ResponseOutparam.set(response_out, Ok(response))
    data = text.encode()
    # A body can be finished only when its stream is released.
    with body.write() as stream:
        for start in range(0, len(data), 4096):
            stream.blocking_write_and_flush(data[start : start + 4096])
    OutgoingBody.finish(body, None)
