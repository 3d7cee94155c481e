//! Tries what its pod may not have been granted, and says what it was told (WASI 0.3).
//!
//! It answers the requests of `trespasser` in the same way, and one more: `/call?url=…` is a request
//! to a server or to another service, whose body is the answer.

mod calls;
mod files;
mod sockets;

use request_target::Target;
use wasip3::cli::{environment, exit, stdin};
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode as HttpError, Fields, Request, Response};
use wasip3::wit_bindgen::rt::async_support::StreamResult;
use wasip3::wit_bindgen::{StreamReader, spawn_local};
use wasip3::{wit_future, wit_stream};

/// The most that is read, in bytes.
const PIECE: usize = 4096;

/// What was got, or the name of the error.
type Told = Result<String, String>;

struct Trespasser;

wasip3::http::service::export!(Trespasser);

impl Guest for Trespasser {
    async fn handle(request: Request) -> Result<Response, HttpError> {
        let target = Target::parse(&request.get_path_with_query().unwrap_or_default());
        let Some(target) = target else {
            return Ok(text(400, "bad request target"));
        };
        let told = match target.path.as_str() {
            "/env" => {
                let variables = environment::get_environment().into_iter();
                Ok(lines(
                    variables.map(|(name, value)| format!("{name}={value}")),
                ))
            }
            "/args" => Ok(lines(environment::get_arguments().into_iter())),
            "/stdin" => {
                let (input, ended) = stdin::read_via_stream();
                let read = all(input).await;
                let ended = ended.await.map_err(|error| name(&error));
                ended.map(|()| format!("{} bytes", read.len()))
            }
            "/exit" => {
                exit::exit(Ok(()));
                Ok("still here".to_owned())
            }
            "/call" => calls::call(target.value("url").unwrap_or_default()).await,
            "/bind" | "/listen" | "/connect" | "/udp" | "/lookup" => sockets::reach(&target).await,
            _ => match files::reach(&target).await {
                Some(told) => told,
                None => return Ok(text(404, "not found")),
            },
        };
        Ok(match told {
            Ok(got) => text(200, &got),
            Err(error) => text(403, &error),
        })
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// The name of an error without what comes with it: `ErrorCode::NotPermitted` is `NotPermitted`.
fn name(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let text = text.trim_start_matches("ErrorCode::");
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or(text)
        .to_owned()
}

/// All that a stream has.
async fn all(mut stream: StreamReader<u8>) -> Vec<u8> {
    let mut whole = Vec::new();
    let mut buffer = Vec::with_capacity(PIECE);
    while let (StreamResult::Complete(_), read) = stream.read(buffer).await {
        whole.extend_from_slice(&read);
        buffer = read;
        buffer.clear();
    }
    whole
}

fn text(status: u16, text: &str) -> Response {
    let (mut body, body_reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body_reader), no_trailers);
    let _ = response.set_status_code(status);
    let bytes = text.as_bytes().to_vec();
    spawn_local(async move {
        body.write_all(bytes).await;
    });
    response
}
