//! HTTP/2: frames made by hand, and how their stream or connection ends.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The stream was answered. Statuses besides 200 and 400 are 0.
    Status(u16),
    /// The stream was reset.
    Reset,
    /// The connection was ended.
    Closed,
}

use End::{Closed, Reset, Status};

pub(super) struct Case {
    pub(super) name: &'static str,
    head: &'static [(&'static str, &'static str)],
    /// What comes behind the head; without it the head ends the stream.
    body: Option<&'static [Frame]>,
    pub(super) wanted: End,
}

/// Type, flags, stream, payload.
type Frame = (u8, u8, u32, &'static [u8]);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const M: (&str, &str) = (":method", "GET");
const S: (&str, &str) = (":scheme", "http");
const A: (&str, &str) = (":authority", "a");
const P: (&str, &str) = (":path", "/");
const POST: (&str, &str) = (":method", "POST");

/// A request that nothing is wrong with.
pub(super) const GOOD: Case = head("good", &[M, S, A, P], Status(200));

const fn head(
    name: &'static str,
    head: &'static [(&'static str, &'static str)],
    wanted: End,
) -> Case {
    Case {
        name,
        head,
        body: None,
        wanted,
    }
}

const fn body(name: &'static str, body: &'static [Frame], wanted: End) -> Case {
    Case {
        name,
        head: &[POST, S, A, P],
        body: Some(body),
        wanted,
    }
}

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    // Heads: RFC 9113 §8.2 and §8.3.
    head("an upper-case name", &[M, S, A, P, ("X-Upper", "y")], Closed),
    head("a line end in a value", &[M, S, A, P, ("x", "a\r\nhost: b")], Closed),
    head("a line end in a name", &[M, S, A, P, ("x\r\ny", "z")], Closed),
    head("a NUL in a value", &[M, S, A, P, ("x", "a\0b")], Closed),
    head("a colon in a name", &[M, S, A, P, ("x:y", "z")], Closed),
    head("a space in a name", &[M, S, A, P, ("x y", "z")], Closed),
    head("an underscore in a name", &[M, S, A, P, ("transfer_encoding", "chunked")], Status(400)),
    head("connection", &[M, S, A, P, ("connection", "close")], Reset),
    head("keep-alive", &[M, S, A, P, ("keep-alive", "timeout=5")], Reset),
    head("proxy-connection", &[M, S, A, P, ("proxy-connection", "close")], Reset),
    head("transfer-encoding", &[POST, S, A, P, ("transfer-encoding", "chunked")], Reset),
    head("upgrade", &[M, S, A, P, ("upgrade", "h2c")], Reset),
    head("te besides trailers", &[M, S, A, P, ("te", "gzip")], Reset),
    head("te: trailers", &[M, S, A, P, ("te", "trailers")], Status(200)),
    head("no method", &[S, A, P], Reset),
    head("no scheme", &[M, A, P], Reset),
    head("no path", &[M, S, A], Reset),
    head("an empty path", &[M, S, A, (":path", "")], Reset),
    head("a relative path", &[M, S, A, (":path", "a")], Reset),
    head("an asterisk", &[M, S, A, (":path", "*")], Status(400)),
    head("a space in the path", &[M, S, A, (":path", "/a b")], Reset),
    head("raw UTF-8 in the path", &[M, S, A, (":path", "/\u{e9}")], Closed),
    head("a whole request in the path", &[M, S, A, (":path", "/ HTTP/1.1\r\nHost: b\r\n\r\nGET /x")], Reset),
    head("a whole request in the method", &[(":method", "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"), S, A, P], Closed),
    head("a method in lower case", &[(":method", "get"), S, A, P], Status(400)),
    head("TRACE", &[(":method", "TRACE"), S, A, P], Status(0)),
    head("CONNECT", &[(":method", "CONNECT"), A], Status(0)),
    head("two methods", &[M, POST, S, A, P], Reset),
    head("two paths", &[M, S, A, P, (":path", "/b")], Reset),
    head("two authorities", &[M, S, A, (":authority", "b"), P], Reset),
    head("a pseudo-field behind a field", &[M, S, ("x", "y"), A, P], Reset),
    head("an unknown pseudo-field", &[M, S, A, P, (":x", "y")], Closed),
    head("a status in a request", &[M, S, A, P, (":status", "200")], Reset),
    head("no host at all", &[M, S, P], Status(400)),
    head("a host that differs from the authority", &[M, S, A, P, ("host", "b")], Status(400)),
    head("the same host as the authority", &[M, S, A, P, ("host", "a")], Status(200)),
    head("two host fields", &[M, S, A, P, ("host", "a"), ("host", "a")], Status(400)),
    head("an authority with a user", &[M, S, (":authority", "u@a"), P], Status(400)),
    head("an authority with a path", &[M, S, (":authority", "a/b"), P], Reset),
    head("another scheme", &[M, (":scheme", "ftp"), A, P], Status(400)),
    // Bodies and lengths: RFC 9113 §8.1.
    Case {
        name: "a length that is not that of the body",
        head: &[POST, S, A, P, ("content-length", "3")],
        body: Some(&[(DATA, END_STREAM, 1, b"abcd")]),
        wanted: Reset,
    },
    Case {
        name: "a length and no body",
        head: &[POST, S, A, P, ("content-length", "3")],
        body: Some(&[(DATA, END_STREAM, 1, b"")]),
        wanted: Reset,
    },
    Case {
        name: "two lengths",
        head: &[POST, S, A, P, ("content-length", "3"), ("content-length", "4")],
        body: Some(&[(DATA, END_STREAM, 1, b"abc")]),
        wanted: Reset,
    },
    body("a body that looks like a request", &[(DATA, END_STREAM, 1, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")], Status(200)),
    // Frames: RFC 9113 §4 to §6.
    body("data on stream 0", &[(DATA, END_STREAM, 0, b"x")], Closed),
    body("data on a stream that is not open", &[(DATA, END_STREAM, 7, b"x")], Closed),
    body("data with more padding than data", &[(DATA, END_STREAM | 8, 1, b"\x09x")], Closed),
    body("headers on an even stream", &[(HEADERS, END_STREAM | END_HEADERS, 2, b"\x82")], Closed),
    body("headers on stream 0", &[(HEADERS, END_STREAM | END_HEADERS, 0, b"\x82")], Closed),
    body("a continuation of nothing", &[(CONTINUATION, END_HEADERS, 1, b"\x82")], Closed),
    body("a promise from a client", &[(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82")], Closed),
    body("settings on a stream", &[(SETTINGS, 0, 1, b"")], Closed),
    body("settings of half a field", &[(SETTINGS, 0, 0, b"\0\x04\0")], Closed),
    body("settings with a window beyond 31 bits", &[(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff")], Closed),
    body("settings with a frame size that is too small", &[(SETTINGS, 0, 0, b"\0\x05\0\0\0\x01")], Closed),
    body("a ping on a stream", &[(PING, 0, 1, b"12345678")], Closed),
    body("a ping of seven bytes", &[(PING, 0, 0, b"1234567")], Closed),
    body("a window update of nothing", &[(WINDOW_UPDATE, 0, 0, b"\0\0\0\0")], Closed),
    body("a window update of nothing, on the stream", &[(WINDOW_UPDATE, 0, 1, b"\0\0\0\0")], Closed),
    body("a window update of three bytes", &[(WINDOW_UPDATE, 0, 0, b"\0\0\x01")], Closed),
    body("a window beyond 31 bits", &[(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")], Closed),
    body("a reset of a stream that is not open", &[(RST_STREAM, 0, 9, b"\0\0\0\x08")], Closed),
    body("a reset of three bytes", &[(RST_STREAM, 0, 1, b"\0\0\x08")], Closed),
    body("a goodbye on a stream", &[(GOAWAY, 0, 1, b"\0\0\0\0\0\0\0\0")], Closed),
    body("a priority of four bytes", &[(PRIORITY, 0, 1, b"\0\0\0\0")], Closed),
    body("a stream that depends on itself", &[(PRIORITY, 0, 1, b"\0\0\0\x01\x10")], Reset),
    body("a frame larger than was allowed", &[(DATA, END_STREAM, 1, &[0; 16_385])], Closed),
    body("pseudo-fields in trailers go no further", &[(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82")], Status(200)),
    body("trailers that do not end the stream", &[(HEADERS, END_HEADERS, 1, b"\0\x01x\x01y"), (DATA, END_STREAM, 1, b"x")], Reset),
    body("an index into nothing", &[(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff\xff\xff\x7f")], Closed),
];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("24 bits").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that no table keeps: RFC 7541 §6.2.3. One byte for each character.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let bytes = text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).expect("a byte"));
        let bytes: Vec<_> = bytes.collect();
        let length = u8::try_from(bytes.len()).expect("short");
        assert!(length < 127);
        [vec![length], bytes].concat()
    };
    [vec![0x10], text(name), text(value)].concat()
}

/// Sends a case on stream 1 of a connection of its own and reads how that ends.
pub(super) async fn end_of(address: SocketAddr, case: &Case) -> End {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    let fields: Vec<_> = case.head.iter().flat_map(|(n, v)| field(n, v)).collect();
    let last = if case.body.is_none() { END_STREAM } else { 0 };
    bytes.extend(frame(HEADERS, END_HEADERS | last, 1, &fields));
    for (kind, flags, stream, payload) in case.body.unwrap_or_default() {
        bytes.extend(frame(*kind, *flags, *stream, payload));
    }
    let mut connection = TcpStream::connect(address).await.expect("it accepts");
    // It may stop reading in the middle.
    let _ = connection.write_all(&bytes).await;
    loop {
        let mut head = [0; 9];
        if connection.read_exact(&mut head).await.is_err() {
            return Closed;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if connection.read_exact(&mut payload).await.is_err() {
            return Closed;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], stream) {
            (GOAWAY, _) => return Closed,
            (RST_STREAM, 1) => return Reset,
            // The first field is the status; those of RFC 7541 appendix A take one byte.
            (HEADERS, 1) => {
                return Status(match payload.first() {
                    Some(0x88) => 200,
                    Some(0x8c) => 400,
                    _ => 0,
                });
            }
            _ => {}
        }
    }
}
