//! Talks to PostgreSQL, Redis and any other TCP server through plain `std` (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `GET /redis?at=HOST:PORT&get=KEY` | the number at the key, after one more in a transaction |
//! | `GET /postgres?at=HOST:PORT&user=NAME&sql=…` | the rows that the statements give, one a line, their columns with a tab between them |
//! | `GET /tcp?at=HOST:PORT` | `connected`, or why not |
//! | `GET /wait?at=HOST:PORT` | none, until the server says something or closes the connection |
//! | `GET /lookup?name=HOST` | the addresses of the name, one a line |
//! | `GET /many?at=HOST:PORT&count=N` | how many connections could be open at once |
//! | `GET /listen` | whether it may listen |
//!
//! With `isolation = "pod"` the connections to databases are kept from request to request, and made
//! again where the server has closed them.

mod postgres;
mod redis;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};

use request_target::Target;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Database;

wasip2::http::proxy::export!(Database);

thread_local! {
    /// Connections to PostgreSQL and Redis that are kept, by what they are to and the user.
    static KEPT: RefCell<BTreeMap<String, TcpStream>> = const { RefCell::new(BTreeMap::new()) };
}

impl Guest for Database {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target\n");
        };
        let text = |name: &str| target.value(name).unwrap_or_default().to_owned();
        let at = text("at");
        let done = match target.path.as_str() {
            "/redis" => kept(&at, redis::hello, |stream| {
                redis::add_one(stream, &text("get"))
            }),
            "/postgres" => {
                let (user, sql) = (text("user"), text("sql"));
                let hello = |stream: &mut TcpStream| postgres::hello(stream, &user);
                kept(&format!("{at} {user}"), hello, |stream| {
                    postgres::query(stream, &sql)
                })
            }
            "/tcp" => TcpStream::connect(&at).map(|_| "connected\n".to_owned()),
            "/wait" => wait(&at),
            "/lookup" => lookup(&text("name")),
            "/many" => many(&at, &text("count")),
            "/listen" => TcpListener::bind("0.0.0.0:0").map(|_| "listening\n".to_owned()),
            _ => return answer(response_out, 404, "not found\n"),
        };
        match done {
            Ok(text) => answer(response_out, 200, &text),
            Err(error) => answer(response_out, 502, &format!("{:?}: {error}\n", error.kind())),
        }
    }
}

/// Asks over the connection that is kept for `to`, which is an address and perhaps a user behind a
/// space; over another connection if that one has been closed.
fn kept(
    to: &str,
    hello: impl Fn(&mut TcpStream) -> io::Result<()>,
    ask: impl Fn(&mut TcpStream) -> io::Result<String>,
) -> io::Result<String> {
    let before = KEPT.with_borrow_mut(|kept| kept.remove(to));
    let asked = before.map(|mut stream| (ask(&mut stream), stream));
    let (text, stream) = match asked {
        Some((Ok(text), stream)) => (text, stream),
        Some((Err(error), _)) if error.kind() == io::ErrorKind::Other => return Err(error),
        Some((Err(_), _)) | None => {
            let at = to.split(' ').next().unwrap_or_default();
            let mut stream = TcpStream::connect(at)?;
            hello(&mut stream)?;
            (ask(&mut stream)?, stream)
        }
    };
    KEPT.with_borrow_mut(|kept| kept.insert(to.to_owned(), stream));
    Ok(text)
}

fn wait(at: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    let read = stream.read(&mut [0; 64])?;
    Ok(format!("{read} bytes\n"))
}

fn lookup(name: &str) -> io::Result<String> {
    let mut lines = String::new();
    for address in (name, 0).to_socket_addrs()? {
        let _ = writeln!(lines, "{}", address.ip());
    }
    Ok(lines)
}

fn many(at: &str, count: &str) -> io::Result<String> {
    let count = count.parse().unwrap_or(0);
    let streams: Vec<_> = (0..count)
        .map_while(|_| TcpStream::connect(at).ok())
        .collect();
    Ok(format!("{}\n", streams.len()))
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response
        .set_status_code(status)
        .expect("it is a status code");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(response_out, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    for part in text.as_bytes().chunks(4096) {
        // A client that has gone away needs no answer.
        let _ = stream.blocking_write_and_flush(part);
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
