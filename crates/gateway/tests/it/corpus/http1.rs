//! HTTP/1: bytes on a connection, the statuses that come back, and how many requests a pod sees.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A request that nothing is wrong with.
pub(super) const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A request that hides behind another one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

pub(super) struct Case {
    pub(super) name: &'static str,
    /// `{S}` stands for the smuggled request, `{N*c}` for so many of a character.
    text: &'static str,
    /// Of all answers, in their order. None: the connection closes without a word.
    pub(super) wanted: &'static [u16],
    /// Whole requests that reach the pod.
    pub(super) seen: usize,
}

impl Case {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = self.text;
        while let Some((before, after)) = rest.split_once('{') {
            latin1(before, &mut bytes);
            let Some((hole, after)) = after.split_once('}') else {
                panic!("{}: an open brace", self.name);
            };
            match hole.split_once('*') {
                None => bytes.extend_from_slice(SMUGGLED.as_bytes()),
                Some((count, what)) => {
                    let count = count.parse().expect("a number");
                    (0..count).for_each(|_| latin1(what, &mut bytes));
                }
            }
            rest = after;
        }
        latin1(rest, &mut bytes);
        bytes
    }
}

/// One byte for each character, so that a case can have any byte.
fn latin1(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend(
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).expect("a byte")),
    );
}

/// Sends bytes, says that no more come, and reads the status of each answer.
pub(super) async fn statuses(address: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    // It may stop reading in the middle.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    let starts = text.split("HTTP/1.").skip(1);
    starts
        .map(|answer| answer[2..5].parse().expect("a status"))
        .collect()
}

const fn case(name: &'static str, text: &'static str, wanted: &'static [u16], seen: usize) -> Case {
    Case {
        name,
        text,
        wanted,
        seen,
    }
}

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    // Lengths: RFC 9112 §6.
    case("length and chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("chunked and length, the other way round",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("length that covers the smuggled request, and chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("length and chunked behind another request",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[200, 400], 1),
    case("length and chunked behind a body",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n{S}", &[200, 400], 1),
    case("length and chunked behind chunks",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[200, 400], 1),
    case("length and chunked on a GET",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("both in a body are no fields",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 55\r\n\r\nX: y\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n", &[200], 1),
    case("two lengths that differ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 35\r\n\r\n{S}", &[400], 0),
    case("a list of lengths that differ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 35\r\n\r\n{S}", &[400], 0),
    case("a list of equal lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", &[400], 0),
    case("a length with a plus sign",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde", &[400], 0),
    case("a negative length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{S}", &[400], 0),
    case("a hexadecimal length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nabcde", &[400], 0),
    case("a length with a fraction",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nabcde", &[400], 0),
    case("an empty length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n{S}", &[400], 0),
    case("a length with a space in it",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n{S}", &[400], 0),
    case("a length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n{S}", &[413], 0),
    case("a length of 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n{S}", &[413], 0),
    case("a length of forty digits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {40*9}\r\n\r\n{S}", &[413], 0),
    case("a length larger than the service allows",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n{S}", &[413], 0),
    case("a length with Arabic digits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \u{d9}\u{a1}\r\n\r\n{S}", &[400], 0),
    case("a length with quotes",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nabcde", &[400], 0),
    case("a body shorter than its length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", &[400], 0),
    case("a length on a GET, with a request as its body",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\nConnection: close\r\n\r\n{S}", &[200], 1),
    // Transfer codings: RFC 9112 §6.1 and §7.
    case("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n{S}", &[400], 0),
    case("chunked is not the last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("a coding before chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{S}", &[501], 0),
    case("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("chunked with a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("chunked in quotes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("chunked behind a vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("chunked behind a no-break space", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{a0}chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("an empty coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n{S}", &[400], 0),
    case("two fields, identity last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("two fields, identity first", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[501], 0),
    case("chunked on HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("the name with an underscore", "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n{S}", &[400], 0),
    case("the name with a space before its colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("the name with a tab before its colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("the name behind a space", "POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("the name behind a NUL", "POST / HTTP/1.1\r\nHost: a\r\n\u{0}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    case("a folded value", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{S}", &[400], 0),
    // Chunks: RFC 9112 §7.1.
    case("a chunk size with 0x", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", &[400], 0),
    case("a negative chunk size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", &[400], 0),
    case("a chunk size with a plus sign", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", &[400], 0),
    case("no chunk size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", &[400], 0),
    case("a chunk size that is no number", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nG\r\nabc\r\n0\r\n\r\n", &[400], 0),
    case("a chunk size beyond 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", &[400], 0),
    case("a chunk longer than its size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", &[400], 0),
    case("a chunk without an end", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n", &[400], 0),
    case("a chunk with a bare line feed", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", &[400], 0),
    case("a chunk that ends in a bare carriage return", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n", &[400], 0),
    case("a chunk extension with a bare line feed", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\nabc\r\n0\r\n\r\n", &[400], 0),
    case("chunk extensions without end", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;{40000*x}\r\nabc\r\n0\r\n\r\n", &[400], 0),
    case("a chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\n\r\n", &[200], 1),
    case("no last chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", &[400], 0),
    case("trailers that reframe", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n", &[200], 1),
    case("trailers without end", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{3000*x: y\r\n}\r\n", &[400], 0),
    case("a trailer without a colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nnonsense\r\n\r\n", &[400], 0),
    // The request line: RFC 9112 §3.
    case("no version", "GET /\r\nHost: a\r\n\r\n", &[400], 0),
    case("version 0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", &[400], 0),
    case("version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", &[400], 0),
    case("version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", &[400], 0),
    case("version 9.9", "GET / HTTP/9.9\r\nHost: a\r\n\r\n", &[400], 0),
    case("a version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a version with more digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", &[400], 0),
    case("something behind the version", "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", &[400], 0),
    case("two spaces before the target", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("two spaces behind the target", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a tab for a space", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("no method", "/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a method that is no token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a method with a control character", "GE\u{1}T / HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a method in lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("a method that looks like an option", "-bl / HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("a method too long to be one", "{25*A} / HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n{S}", &[405], 0),
    case("CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[405], 0),
    case("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\n{S}", &[405], 0),
    case("the preface of HTTP/2 in the middle", "GET / HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[200], 1),
    // Targets: RFC 9112 §3.2, RFC 3986 §3.
    case("an asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("an asterisk with OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("an authority alone", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("a relative path", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("a file", "GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("user information", "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("an absolute target goes before another host", "GET http://a/ HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n", &[200], 1),
    case("raw UTF-8", "GET /caf\u{c3}\u{a9} HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("a NUL in the target", "GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n", &[400], 0),
    case("a DEL in the target", "GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("a fragment goes no further", "GET /a#b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200], 1),
    case("a target that is too long", "GET /{9000*x} HTTP/1.1\r\nHost: a\r\n\r\n{S}", &[414], 0),
    case("a target longer than any buffer", "GET /{80000*x} HTTP/1.1\r\nHost: a\r\n\r\n", &[431], 0),
    // Hosts: RFC 9112 §3.2.
    case("no host", "GET / HTTP/1.1\r\n\r\n{S}", &[400], 0),
    case("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n{S}", &[400], 0),
    case("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{S}", &[400], 0),
    case("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n{S}", &[400], 0),
    case("a host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n{S}", &[400], 0),
    case("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n{S}", &[400], 0),
    case("a host with a user and a path", "GET / HTTP/1.1\r\nHost: a@b/c\r\n\r\n{S}", &[400], 0),
    case("a host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n{S}", &[400], 0),
    case("a host with a query", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n{S}", &[400], 0),
    case("a host with a backslash", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n{S}", &[400], 0),
    case("a port beyond 16 bits", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n{S}", &[400], 0),
    case("a port that is no number", "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n{S}", &[400], 0),
    case("an address without its bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n{S}", &[400], 0),
    case("a bracket without an address", "GET / HTTP/1.1\r\nHost: []\r\n\r\n{S}", &[400], 0),
    case("a host that is not ASCII", "GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n{S}", &[400], 0),
    case("a host longer than a name may be", "GET / HTTP/1.1\r\nHost: {256*a}\r\n\r\n{S}", &[400], 0),
    // Fields: RFC 9112 §5.
    case("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", &[400], 0),
    case("no name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", &[400], 0),
    case("a name with a space", "GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", &[400], 0),
    case("a name with a slash", "GET / HTTP/1.1\r\nHost: a\r\nX/Y: z\r\n\r\n", &[400], 0),
    case("a name that is not ASCII", "GET / HTTP/1.1\r\nHost: a\r\n\u{e4}: z\r\n\r\n", &[400], 0),
    case("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{0}b\r\n\r\n", &[400], 0),
    case("a carriage return in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", &[400], 0),
    case("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", &[400], 0),
    case("a folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", &[400], 0),
    case("a field behind a bare carriage return", "GET / HTTP/1.1\r\nHost: a\r\rX: b\r\n\r\n", &[400], 0),
    case("101 fields", "GET / HTTP/1.1\r\nHost: a\r\n{100*x: y\r\n}\r\n", &[431], 0),
    case("more fields than anybody counts", "GET / HTTP/1.1\r\nHost: a\r\n{2000*x: y\r\n}\r\n", &[431], 0),
    case("a field of 64 KB", "GET / HTTP/1.1\r\nHost: a\r\nX: {65536*x}\r\n\r\n", &[431], 0),
    case("a head that ends in the middle", "GET / HTTP/1.1\r\nHost: a\r\nX: y", &[], 0),
    // Tunnels and upgrades: RFC 9110 §7.8.
    case("an upgrade, and a request behind it",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200, 200], 2),
    case("an upgrade to HTTP/2 without TLS",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", &[200], 1),
    case("a web socket", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", &[501], 0),
    case("a web socket among other upgrades, and a request behind it",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c, WebSocket\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[501], 0),
    // Without `Connection`, or in HTTP/1.0, the field asks for nothing: RFC 9110 §7.8.
    case("a web socket that the connection does not name", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUpgrade: websocket\r\n\r\n", &[200], 1),
    case("a web socket over HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", &[200], 1),
    case("Connection that names the host and the length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close, Host, Content-Length\r\n\r\nabc", &[200], 1),
    // Not HTTP at all.
    case("a TLS hello", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}", &[400], 0),
    case("an SSH banner", "SSH-2.0-OpenSSH_9.6\r\n", &[400], 0),
    case("only line ends", "\r\n\r\n\r\n\r\n", &[], 0),
    case("zeros", "{64*\u{0}}", &[400], 0),
    case("a JSON document", "[1, 2]\n", &[400], 0),
];
