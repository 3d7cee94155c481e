//! Conversations made of a seed: requests of HTTP/1.0, 1.1 and 2 as a client may send them, and the
//! same with some bytes changed.

use fastrand::Rng;

const METHODS: [&str; 14] = [
    "GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH",
    "PROPFIND", "CONNECT", "get",
];
const AUTHORITIES: [&str; 14] = [
    "test",
    "test",
    "test:8080",
    "[::1]",
    "[::1]:80",
    "127.0.0.1",
    "a.b.c",
    "",
    "a b",
    "user@test",
    "[::1",
    "test:http",
    "xn--bcher-kva",
    "TEST.",
];
/// What stands behind the path of a service.
const SUFFIXES: [&str; 14] = [
    "", "", "", "/", "?a=b", "/a/b?c", "?", "/%41", "/%", "/%00", "//", "/../x", "/;x", "?\u{e9}",
];
/// Fields with values that mean something to a server.
const FIELDS: [(&str, &str); 34] = [
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, br"),
    ("Authorization", "Basic dTpw"),
    ("Connection", "close"),
    ("Connection", "keep-alive"),
    ("Connection", "close, X-Own, Host"),
    ("Connection", "upgrade"),
    ("Content-Encoding", "gzip"),
    ("Content-Length", "0"),
    ("Content-Length", "5"),
    ("Content-Length", "18446744073709551615"),
    ("Content-Length", "-1"),
    ("Content-Type", "text/plain"),
    ("Cookie", "a=b; c"),
    ("Date", "never"),
    ("Expect", "100-continue"),
    ("Expect", "something"),
    ("Forwarded", "for=1.2.3.4"),
    ("Host", "other"),
    ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ("If-None-Match", "*"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Range", "bytes=0-1"),
    ("TE", "trailers"),
    ("Trailer", "x-sum"),
    ("Transfer-Encoding", "chunked"),
    ("Transfer-Encoding", "gzip, chunked"),
    ("Upgrade", "websocket"),
    ("Upgrade", "h2c"),
    ("X-Own", "\u{e4}\u{1}"),
    ("X-Request-Id", "0123"),
    ("X-Forwarded-For", "1.2.3.4"),
    ("x_under", "score"),
];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Says behind all others that the connection is to be closed.
const LAST: &str = "GET /fresh HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
/// The field `:status: 200` as the static table of HPACK has it: RFC 7541, appendix A.
const STATUS_200: u8 = 0x88;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client sends on one connection.
pub(super) struct Conversation {
    pub(super) bytes: Vec<u8>,
    /// Whether it closes its end at once.
    pub(super) is_cut: bool,
    /// Streams that a whole answer ends; none over HTTP/1, where the connection ends.
    streams: Option<usize>,
}

/// A request before it has a form.
struct Request {
    method: &'static str,
    target: String,
    authority: Option<&'static str>,
    fields: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Conversation {
    /// The conversation of this seed, with these services.
    pub(super) fn of(seed: u64, services: &[&str]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let count = rng.usize(1..=3);
        let (mut bytes, streams) = match rng.u8(..3) {
            0 => (http2(&mut rng, services, count), Some(count)),
            version => (http1(&mut rng, services, count, version == 1), None),
        };
        if rng.bool() {
            for _ in 0..rng.usize(1..=3) {
                mutate(&mut rng, &mut bytes);
            }
        }
        if streams.is_none() {
            bytes.extend_from_slice(LAST.as_bytes());
        }
        let is_cut = rng.u8(..10) == 0;
        if is_cut {
            bytes.truncate(rng.usize(1..=bytes.len()));
        }
        Self {
            bytes,
            is_cut,
            streams,
        }
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self, answer: &[u8]) -> bool {
        let Some(streams) = self.streams else {
            return false;
        };
        let is_last = |frame: &Frame<'_>| match frame.kind {
            DATA | HEADERS => frame.flags & END_STREAM != 0,
            kind => kind == RST_STREAM,
        };
        let mut ended = 0;
        frames(answer).any(|frame| {
            ended += usize::from(is_last(&frame));
            ended >= streams || frame.kind == GOAWAY
        })
    }

    /// How many of the answers are good, and how many are not.
    pub(super) fn answers(&self, answer: &[u8]) -> (u64, u64) {
        let mut counts = (0, 0);
        let mut count = |is_good| match is_good {
            true => counts.0 += 1,
            false => counts.1 += 1,
        };
        match self.streams {
            None => {
                let text = String::from_utf8_lossy(answer);
                let heads = text.split("HTTP/1.").skip(1);
                heads.for_each(|head| count(head.get(2..5) == Some("200")));
            }
            Some(_) => frames(answer).for_each(|frame| match frame.kind {
                HEADERS => count(frame.payload.first() == Some(&STATUS_200)),
                RST_STREAM | GOAWAY => count(false),
                _ => {}
            }),
        }
        counts
    }
}

fn request(rng: &mut Rng, services: &[&str]) -> Request {
    let method = METHODS[rng.usize(..METHODS.len())];
    let suffix = SUFFIXES[rng.usize(..SUFFIXES.len())];
    // Most are fine, so that more than the first of a connection is read.
    let is_plain = rng.u8(..4) > 0;
    let authority = match is_plain {
        true => AUTHORITIES[0],
        false => AUTHORITIES[rng.usize(..AUTHORITIES.len())],
    };
    let service = services[rng.usize(..services.len())];
    let target = match rng.u8(..20) {
        0 => "*".to_owned(),
        1 => format!("http://{authority}/{service}{suffix}"),
        2 => format!("ftp://{authority}/{service}"),
        3 => authority.to_owned(),
        4 => format!("/{service}/{}", "x".repeat(rng.usize(..10_000))),
        _ => format!("/{service}{suffix}"),
    };
    let count = if is_plain { 0 } else { rng.usize(..5) };
    let fields = (0..count)
        .map(|_| FIELDS[rng.usize(..FIELDS.len())])
        .collect();
    Request {
        method,
        target,
        authority: (rng.u8(..8) > 0).then_some(authority),
        fields,
        body: match rng.u8(..3) {
            0 => (0..rng.usize(..2_000)).map(|_| rng.u8(..)).collect(),
            _ => Vec::new(),
        },
    }
}

fn http1(rng: &mut Rng, services: &[&str], count: usize, is_old: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let request = request(rng, services);
        let version = if is_old { "1.0" } else { "1.1" };
        let mut head = format!("{} {} HTTP/{version}\r\n", request.method, request.target);
        if let Some(authority) = request.authority {
            head += &format!("Host: {authority}\r\n");
        }
        for (name, value) in request.fields {
            head += &format!("{name}: {value}\r\n");
        }
        let body = request.body;
        let is_chunked = !is_old && rng.bool();
        match (body.is_empty(), is_chunked) {
            (true, _) => head += "\r\n",
            (false, true) => head += "Transfer-Encoding: chunked\r\n\r\n",
            (false, false) => head += &format!("Content-Length: {}\r\n\r\n", body.len()),
        }
        bytes.extend_from_slice(head.as_bytes());
        match (body.is_empty(), is_chunked) {
            (false, true) => {
                for chunk in body.chunks(rng.usize(1..=500)) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                let trailers = ["", "x-sum: 1\r\n", "Content-Length: 3\r\nHost: b\r\n"];
                let trailers = trailers[rng.usize(..trailers.len())];
                bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            }
            _ => bytes.extend_from_slice(&body),
        }
    }
    bytes
}

fn http2(rng: &mut Rng, services: &[&str], count: usize) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    for stream in (1..).step_by(2).take(count) {
        let request = request(rng, services);
        let mut block = Vec::new();
        field(&mut block, ":method", request.method);
        field(
            &mut block,
            ":scheme",
            if rng.u8(..8) > 0 { "http" } else { "ftp" },
        );
        field(&mut block, ":path", &request.target);
        if let Some(authority) = request.authority {
            field(&mut block, ":authority", authority);
        }
        for (name, value) in request.fields {
            // With capitals it is malformed.
            match rng.u8(..20) {
                0 => field(&mut block, name, value),
                _ => field(&mut block, &name.to_lowercase(), value),
            }
        }
        let has_body = !request.body.is_empty();
        let end = if has_body { 0 } else { END_STREAM };
        frame(&mut bytes, HEADERS, END_HEADERS | end, stream, &block);
        if !has_body {
            continue;
        }
        let with_trailers = rng.bool();
        let end = if with_trailers { 0 } else { END_STREAM };
        frame(&mut bytes, DATA, end, stream, &request.body);
        if with_trailers {
            let mut block = Vec::new();
            field(&mut block, "x-sum", "1");
            if rng.bool() {
                field(&mut block, "content-length", "3");
            }
            frame(
                &mut bytes,
                HEADERS,
                END_HEADERS | END_STREAM,
                stream,
                &block,
            );
        }
    }
    bytes
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng
        .usize(..bytes.len().max(1))
        .min(bytes.len().saturating_sub(1));
    let end = (at + rng.usize(1..=16)).min(bytes.len());
    match rng.u8(..6) {
        0 => bytes.insert(at, rng.u8(..)),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        3 => {
            const SPECIAL: &[u8] = b"\r\n\0 :\t,;/%#?@[]\x7f\xff";
            bytes[at] = SPECIAL[rng.usize(..SPECIAL.len())];
        }
        4 => bytes[at] ^= 1 << rng.u8(..8),
        _ => bytes[at..end].reverse(),
    }
    if bytes.is_empty() {
        bytes.push(b'x');
    }
}

/// A literal field without indexing: RFC 7541 §6.2.2.
fn field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            block.push(length as u8);
        } else {
            block.push(127);
            length -= 127;
            while length >= 128 {
                block.push((length % 128) as u8 | 128);
                length /= 128;
            }
            block.push(length as u8);
        }
        block.extend_from_slice(text.as_bytes());
    }
}

/// RFC 9113 §4.1.
fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    payload: &'a [u8],
}

/// The whole frames in what a server has said.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            payload,
        })
    })
}
