"""Talks to PostgreSQL through the driver `pg8000`, and to Redis (WASI 0.2).

| request | answer |
|---|---|
| `GET /postgres?at=HOST:PORT&user=NAME&sql=…` | the rows that the statements give, one a line, their columns with a tab between them |
| `GET /redis?at=HOST:PORT&get=KEY` | the number at the key, after one more in a transaction |

With `isolation = "pod"` the connections are kept from request to request, and made again where the
server has closed them.
"""

import contextlib
import encodings.idna  # noqa: F401  names are looked up through it, and later nothing can be imported
import socket
import sys
import types
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

# Python for WASI has no `ssl`, and the driver names two of its types.
sys.modules["ssl"] = ssl = types.ModuleType("ssl")
ssl.SSLObject = ssl.SSLSocket = type("SSLSocket", (), {})

from pg8000.exceptions import DatabaseError, InterfaceError  # noqa: E402
from pg8000.native import Connection  # noqa: E402

# Bytes that a stream takes at once.
PIECE = 4096
# Connections that are kept, by what they are to.
kept = {}


class Redis:
    """A connection to Redis. <https://redis.io/docs/latest/develop/reference/protocol-spec/>"""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.answers = self.socket.makefile("rb")

    def close(self) -> None:
        """Closes it."""
        self.answers.close()
        self.socket.close()

    def send(self, *commands: tuple[str, ...]) -> None:
        """Sends commands, without waiting for their answers."""
        message = b""
        for command in commands:
            message += b"*%d\r\n" % len(command)
            for word in map(str.encode, command):
                message += b"$%d\r\n%b\r\n" % (len(word), word)
        self.socket.sendall(message)

    def answer(self) -> object:
        """Reads one answer."""
        line = self.answers.readline()
        if not line:
            raise ConnectionResetError("the server has closed the connection")
        kind, value = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(value.decode())
        if kind == b"*":
            return [self.answer() for _ in range(int(value))]
        return int(value) if kind == b":" else value.decode()


def add_one(connection: Redis, key: str) -> str:
    """Adds one to a number, in a transaction."""
    connection.send(("MULTI",), ("INCR", key), ("EXEC",))
    _, _, (number,) = (connection.answer() for _ in range(3))
    return f"{number}\n"


def run(connection: Connection, sql: str) -> str:
    """Runs statements, and tells what the last one gives."""
    rows = connection.run(sql) or []
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def over_kept(to: tuple, connect, ask) -> str:
    """Asks over the connection that is kept, or over another one if that has been closed."""
    connection = kept.pop(to, None)
    try:
        told = ask(connection) if connection else None
    except (InterfaceError, OSError):
        told = None
        # A socket that is left to the collector ends the guest, if the server has closed it: Python
        # asks for its peer, and the C library of WASI aborts.
        with contextlib.suppress(InterfaceError, OSError):
            connection.close()
    if told is None:
        connection = connect()
        told = ask(connection)
    kept[to] = connection
    return told


def answer(target: str) -> tuple[int, str]:
    """The status and the text for a request target."""
    split = urlsplit(target)
    value = {name: values[0] for name, values in parse_qs(split.query).items()}
    host, _, port = value.get("at", "").rpartition(":")
    try:
        if split.path == "/redis":
            key = value["get"]
            to, connect = ("redis", host, port), lambda: Redis(host, int(port))
            return 200, over_kept(to, connect, lambda it: add_one(it, key))
        if split.path == "/postgres":
            user, sql = value["user"], value["sql"]
            to = ("postgres", host, port, user)

            def connect() -> Connection:
                return Connection(user, host, "postgres", int(port), ssl_context=False)

            return 200, over_kept(to, connect, lambda it: run(it, sql))
    except (DatabaseError, InterfaceError, OSError, RuntimeError) as error:
        return 502, f"{type(error).__name__}: {error}\n"
    return 404, "not found\n"


class IncomingHandler(exports.IncomingHandler):
    """Implements the export of the world."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        """Answers one request."""
        status, text = answer(request.path_with_query() or "/")
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        content = text.encode()
        with body.write() as stream:
            for start in range(0, len(content), PIECE):
                stream.blocking_write_and_flush(content[start : start + PIECE])
        OutgoingBody.finish(body, None)
