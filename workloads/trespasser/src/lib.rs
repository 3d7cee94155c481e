//! Tries what its pod may not have been granted, and says what it was told (WASI 0.2).
//!
//! An answer is 200 with what was got, or 403 with the name of the error, such as `NotPermitted`.
//!
//! | request | what is tried |
//! |---|---|
//! | `/env`, `/args`, `/stdin`, `/exit` | the process that it runs in |
//! | `/directories` | the directories that it sees, one a line |
//! | `/read`, `/write`, `/create`, `/truncate`, `/list`, `/stat`, `/readlink`, `/mkdir`, `/rmdir`, `/unlink`, `/touch`, `/resize` with `?path=…` | files, from its first directory on |
//! | `/symlink?to=…&path=…`, `/link?path=…&to=…`, `/rename?path=…&to=…` | names, from its first directory on; `into=N` is that the second name is in the directory of this number |
//! | `/bind`, `/listen`, `/connect` with `?at=ADDRESS:PORT` | a TCP socket |
//! | `/udp` | a UDP socket |
//! | `/lookup?name=…` | the first address of a name |

mod files;
mod sockets;

use request_target::Target;
use wasip2::cli::{environment, exit, stdin};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

/// What was got, or the name of the error.
type Told = Result<String, String>;

struct Trespasser;

wasip2::http::proxy::export!(Trespasser);

impl Guest for Trespasser {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target");
        };
        let told = match target.path.as_str() {
            "/env" => {
                let variables = environment::get_environment().into_iter();
                Ok(lines(
                    variables.map(|(name, value)| format!("{name}={value}")),
                ))
            }
            "/args" => Ok(lines(environment::get_arguments().into_iter())),
            "/stdin" => match stdin::get_stdin().blocking_read(4096) {
                Ok(bytes) => Ok(format!("{} bytes", bytes.len())),
                Err(StreamError::Closed) => Ok("0 bytes".to_owned()),
                Err(StreamError::LastOperationFailed(error)) => Err(error.to_debug_string()),
            },
            "/exit" => {
                exit::exit(Ok(()));
                Ok("still here".to_owned())
            }
            "/bind" | "/listen" | "/connect" | "/udp" | "/lookup" => sockets::reach(&target),
            _ => match files::reach(&target) {
                Some(told) => told,
                None => return answer(response_out, 404, "not found"),
            },
        };
        match told {
            Ok(got) => answer(response_out, 200, &got),
            Err(error) => answer(response_out, 403, &error),
        }
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// The name of an error as Rust writes it: `not-permitted` is `NotPermitted`.
fn name(error: &str) -> String {
    let words = error.split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect()
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
