//! Reads its environment, its configuration and its files through plain `std` (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `GET /env` | the environment, one `NAME=value` a line, sorted |
//! | `GET /file/PATH` | the bytes of `/data/PATH` |
//! | `PUT /file/PATH` | 201 or 204, once the body is in `/data/PATH` |
//! | `GET /config/KEY` | the value of the key in `wasi:config` and a newline, or 404 |
//! | `GET /print?text=…` | 204, once the text is on stdout and on stderr, with a newline each |
//! | `GET /do?op=…&path=…&to=…` | does something with a file at any path of its own: `read`, `list`, `stat`, `rename`, `link`, `symlink`, `unlink`, `mkdir` |
//! | `GET /panic?env=NAME` | dies, with the value of the variable in its message |
//! | `GET /spin?env=NAME` | prints the value of the variable and computes for ever |
//!
//! It has no check of paths of its own: `/data` is all that the host lets it see.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};

use request_target::Target;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::ErrorCode;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// The bindings for `wit/world.wit`.
mod bindings {
    wit_bindgen::generate!({ path: "wit", generate_all });
}

use bindings::wasi::config::store;

struct EnvAndFiles;

wasip2::http::proxy::export!(EnvAndFiles);

impl Guest for EnvAndFiles {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target\n");
        };
        let path = target.path.trim_start_matches('/');
        let (route, rest) = path.split_once('/').unwrap_or((path, ""));
        match (request.method(), route) {
            (Method::Get, "env") => answer(response_out, 200, &environment()),
            (Method::Get, "file") => read_file(rest, response_out),
            (Method::Put, "file") => write_file(rest, &request, response_out),
            (Method::Get, "config") => config(rest, response_out),
            (Method::Get, "print") => print(&target, response_out),
            (Method::Get, "do") => match work(&target) {
                Ok(text) => answer(response_out, 200, &text),
                Err(error) => refuse(response_out, &error),
            },
            (Method::Get, "panic") => panic!("the variable is {}", variable(&target)),
            (Method::Get, "spin") => spin(&variable(&target)),
            (_, "env" | "file" | "config" | "print" | "do" | "panic" | "spin") => {
                answer(response_out, 405, "method not allowed\n");
            }
            _ => answer(response_out, 404, "not found\n"),
        }
    }
}

fn environment() -> String {
    let mut lines: Vec<String> = env::vars()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    lines.sort();
    lines.concat()
}

fn read_file(path: &str, response_out: ResponseOutparam) {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) => return refuse(response_out, &error),
    };
    let body = begin(response_out, 200, "application/octet-stream");
    let mut stream = body
        .write()
        .expect("the stream is taken for the first time");
    let copied = io::copy(&mut file, &mut stream);
    drop(stream);
    // Without `finish` the host cuts the answer off, so that the client knows it is not whole.
    if copied.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Opens a file to read. A directory could be opened too, but not read.
fn open(path: &str) -> io::Result<File> {
    let file = File::open(under_data(path))?;
    if file.metadata()?.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

fn write_file(path: &str, request: &IncomingRequest, response_out: ResponseOutparam) {
    let path = under_data(path);
    let status = if fs::exists(&path).unwrap_or(false) {
        204
    } else {
        201
    };
    let body = request
        .consume()
        .expect("the body is taken for the first time");
    let mut stream = body
        .stream()
        .expect("the stream is taken for the first time");
    match File::create(&path).and_then(|mut file| io::copy(&mut stream, &mut file)) {
        Ok(_) => answer(response_out, status, ""),
        Err(error) => refuse(response_out, &error),
    }
}

/// Joined as text, because `Path::join` would let an absolute path replace `/data`.
fn under_data(path: &str) -> String {
    format!("/data/{path}")
}

fn config(key: &str, response_out: ResponseOutparam) {
    match store::get(key) {
        Ok(Some(value)) => answer(response_out, 200, &format!("{value}\n")),
        Ok(None) => answer(response_out, 404, "no such key\n"),
        Err(store::Error::Upstream(error) | store::Error::Io(error)) => {
            answer(response_out, 500, &format!("{error}\n"));
        }
    }
}

fn print(target: &Target, response_out: ResponseOutparam) {
    let text = target.value("text").unwrap_or_default();
    println!("{text}");
    eprintln!("{text}");
    answer(response_out, 204, "");
}

/// The variable that the query names.
fn variable(target: &Target) -> String {
    env::var(target.value("env").unwrap_or_default()).unwrap_or_default()
}

fn spin(text: &str) -> ! {
    println!("spinning with {text}");
    let mut turns = 0_u64;
    loop {
        // Keeps the compiler from seeing that nothing comes of it.
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

/// Does what the query asks for.
fn work(target: &Target) -> io::Result<String> {
    let path = target.value("path").unwrap_or_default();
    let to = target.value("to").unwrap_or_default();
    match target.value("op").unwrap_or_default() {
        "read" => fs::read_to_string(path),
        "list" => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let kind = if entry.file_type()?.is_dir() { "/" } else { "" };
                names.push(format!("{}{kind}\n", entry.file_name().to_string_lossy()));
            }
            names.sort();
            Ok(names.concat())
        }
        "stat" => fs::metadata(path).map(|it| format!("{} bytes\n", it.len())),
        "rename" => fs::rename(path, to).map(|()| "done\n".to_owned()),
        "link" => fs::hard_link(path, to).map(|()| "done\n".to_owned()),
        "symlink" => symlink(path, to).map(|()| "done\n".to_owned()),
        "unlink" => fs::remove_file(path).map(|()| "done\n".to_owned()),
        "mkdir" => fs::create_dir(path).map(|()| "done\n".to_owned()),
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

/// Makes a link to `path`, whatever that is, at `to`. `std` has no function for it on this target.
fn symlink(path: &str, to: &str) -> io::Result<()> {
    let mut directories = get_directories();
    directories.sort_by_key(|(_, name)| usize::MAX - name.len());
    for (directory, name) in directories {
        let Some(inner) = to.strip_prefix(&format!("{}/", name.trim_end_matches('/'))) else {
            continue;
        };
        let made = directory.symlink_at(path, inner);
        return made.map_err(|code| match code {
            ErrorCode::NoEntry => ErrorKind::NotFound.into(),
            ErrorCode::NotPermitted | ErrorCode::Access => ErrorKind::PermissionDenied.into(),
            other => io::Error::other(format!("{other:?}")),
        });
    }
    Err(ErrorKind::NotFound.into())
}

/// What some releases of the libc of WASI say of a path in no directory that the host has granted
/// (`ENOTCAPABLE`), and others that there is no such file. `std` has no kind for it.
const NOT_GRANTED: i32 = 76;

/// Answers that the file system would not do it.
fn refuse(response_out: ResponseOutparam, error: &io::Error) {
    let status = match error.kind() {
        _ if error.raw_os_error() == Some(NOT_GRANTED) => 404,
        ErrorKind::NotFound => 404,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => 403,
        ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename => 400,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => 507,
        _ => 500,
    };
    answer(response_out, status, &format!("{error}\n"));
}

/// Hands the head to the host and returns the body, still to be written.
fn begin(response_out: ResponseOutparam, status: u16, content_type: &str) -> OutgoingBody {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[content_type.into()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response
        .body()
        .expect("the body is taken for the first time");
    ResponseOutparam::set(response_out, Ok(response));
    body
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let body = begin(response_out, status, "text/plain");
    let mut stream = body
        .write()
        .expect("the stream is taken for the first time");
    // A failed write means that the client has gone, and then nobody is left to tell.
    let _ = stream.write_all(text.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
