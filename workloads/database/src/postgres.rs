//! PostgreSQL's protocol, as far as it is needed: a user without a password, and simple queries.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

/// Version 3.0 of the protocol.
const VERSION: i32 = 3 << 16;

pub(crate) fn hello(stream: &mut TcpStream, user: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut body = VERSION.to_be_bytes().to_vec();
    for text in ["user", user, "database", "postgres", ""] {
        body.extend(text.bytes().chain([0]));
    }
    let length = i32::try_from(body.len() + 4).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &body].concat())?;
    answer(stream).map(drop)
}

/// Runs statements, and says what rows they gave.
pub(crate) fn query(stream: &mut TcpStream, sql: &str) -> io::Result<String> {
    let length = i32::try_from(sql.len() + 5).map_err(io::Error::other)?;
    let message = [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), &[0]].concat();
    stream.write_all(&message)?;
    answer(stream)
}

/// Reads until the server is ready for the next query.
fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let (mut rows, mut failed) = (String::new(), None);
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length.saturating_sub(4) as usize];
        stream.read_exact(&mut body)?;
        match head[0] {
            b'D' => row(&body, &mut rows)?,
            b'E' => failed = Some(message(&body)),
            b'R' if body != [0; 4] => return Err(io::Error::other("it wants a password")),
            b'Z' => return failed.map_or(Ok(rows), |text| Err(io::Error::other(text))),
            _ => {}
        }
    }
}

/// Columns of a row, each with its length; one without a value has the length -1.
fn row(mut body: &[u8], rows: &mut String) -> io::Result<()> {
    let mut take = |count: usize| {
        let (taken, rest) = body.split_at_checked(count)?;
        body = rest;
        Some(taken)
    };
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let count = take(2).ok_or_else(short)?;
    for column in 0..u16::from_be_bytes([count[0], count[1]]) {
        if column > 0 {
            rows.push('\t');
        }
        let length = take(4).ok_or_else(short)?;
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        if let Ok(length) = usize::try_from(length) {
            rows.push_str(&String::from_utf8_lossy(take(length).ok_or_else(short)?));
        }
    }
    rows.push('\n');
    Ok(())
}

/// The text for people in an error.
fn message(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let text = fields.filter_map(|field| field.strip_prefix(b"M")).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
