"""A web service in Python (WASI 0.2): every request is answered with one line of text.

The module `wit_world` comes from `componentize-py`, which generates it from `wit/world.wit`.
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
        headers = Fields.from_list([("content-type", b"text/plain")])
        response = OutgoingResponse(headers)
        body = response.body()
        # From here on the host may send the head: status and headers are settled.
        ResponseOutparam.set(response_out, Ok(response))
        # A body can be finished only when its stream is released.
        with body.write() as stream:
            stream.blocking_write_and_flush(b"Hello from Sampan, in Python!\n")
        OutgoingBody.finish(body, None)
