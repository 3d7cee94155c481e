//! Keeps rows in a SQLite database on a volume (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `POST /add?text=…` | the number of the row, once it is on the disk; 507 if there is no space for it |
//! | `GET /count` | how many rows there are, and the greatest number of one |
//! | `GET /check` | `ok`, or what SQLite finds wrong with the database |
//! | `GET /text?n=NUMBER` | the text of a row |
//!
//! WASI has no locks of files. So SQLite is told to use none (`unix-none`), and there is one pod with
//! `isolation = "pod"`: the instance is the only one that has the database open, for as long as it is
//! there.

use std::cell::RefCell;

use request_target::Target;
use rusqlite::ffi::ErrorCode;
use rusqlite::{Connection, Error, OpenFlags};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// On the volume.
const PATH: &str = "/data/rows.db";

/// `synchronous = FULL`: a transaction is on the disk before it is answered. The journal is truncated
/// after each, which is one change of a directory less than removing it.
const SETTINGS: &str = "PRAGMA journal_mode = TRUNCATE;
    PRAGMA synchronous = FULL;
    PRAGMA temp_store = MEMORY;
    CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL);";

struct Sqlite;

wasip2::http::proxy::export!(Sqlite);

thread_local! {
    /// The database, once it has been asked for.
    static OPEN: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

impl Guest for Sqlite {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target\n");
        };
        let text = target.value("text").unwrap_or_default();
        let number = target.number("n", 0).unwrap_or(0);
        let told = match (request.method(), target.path.as_str()) {
            (Method::Post, "/add") => asked(|it| add(it, text)),
            (Method::Get, "/count") => asked(count),
            (Method::Get, "/check") => asked(check),
            (Method::Get, "/text") => asked(|it| row(it, number)),
            _ => return answer(response_out, 404, "not found\n"),
        };
        match told {
            Ok(text) => answer(response_out, 200, &text),
            Err(Error::QueryReturnedNoRows) => answer(response_out, 404, "no such row\n"),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                answer(response_out, 507, &format!("{error}\n"));
            }
            Err(error) => answer(response_out, 500, &format!("{error}\n")),
        }
    }
}

/// Asks the database, which is opened first if it is not open.
fn asked(ask: impl FnOnce(&Connection) -> rusqlite::Result<String>) -> rusqlite::Result<String> {
    OPEN.with_borrow_mut(|open| {
        let connection = match open {
            Some(connection) => connection,
            None => open.insert(connect()?),
        };
        ask(connection)
    })
}

fn connect() -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(PATH, OpenFlags::default(), c"unix-none")?;
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

fn add(connection: &Connection, text: &str) -> rusqlite::Result<String> {
    connection.execute("INSERT INTO rows (text) VALUES (?1)", [text])?;
    Ok(format!("{}\n", connection.last_insert_rowid()))
}

fn count(connection: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT count(*), coalesce(max(n), 0) FROM rows";
    connection.query_row(sql, [], |row| {
        Ok(format!(
            "{} {}\n",
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?
        ))
    })
}

fn check(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA integrity_check", [], |row| {
        Ok(format!("{}\n", row.get::<_, String>(0)?))
    })
}

fn row(connection: &Connection, number: u64) -> rusqlite::Result<String> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    connection.query_row("SELECT text FROM rows WHERE n = ?1", [number], |row| {
        Ok(format!("{}\n", row.get::<_, String>(0)?))
    })
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response
        .set_status_code(status)
        .expect("it is a status code");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(response_out, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    // A client that has gone away needs no answer.
    let _ = stream.blocking_write_and_flush(text.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
