//! Redis' protocol, as far as it is needed: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

pub(crate) fn hello(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    command(stream, &["PING"]).map(drop)
}

/// Adds one to the number at a key in a transaction, and says what it is then.
pub(crate) fn add_one(stream: &mut TcpStream, key: &str) -> io::Result<String> {
    command(stream, &["MULTI"])?;
    command(stream, &["INCR", key])?;
    command(stream, &["GET", key])?;
    let results = command(stream, &["EXEC"])?;
    let last = results.lines().last().unwrap_or_default();
    Ok(format!("{last}\n"))
}

fn command(stream: &mut TcpStream, words: &[&str]) -> io::Result<String> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(text.as_bytes())?;
    // Nothing is read ahead that belongs to the next answer: there is one question at a time.
    reply(&mut BufReader::new(stream))
}

fn reply(reader: &mut BufReader<&mut TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1);
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "$" => {
            let length: usize = rest.parse().map_err(io::Error::other)?;
            let mut text = vec![0; length + 2];
            reader.read_exact(&mut text)?;
            text.truncate(length);
            String::from_utf8(text).map_err(io::Error::other)
        }
        "*" => {
            let count: usize = rest.parse().map_err(io::Error::other)?;
            let replies: io::Result<Vec<_>> = (0..count).map(|_| reply(reader)).collect();
            Ok(replies?.join("\n"))
        }
        _ => Err(io::Error::other(rest.to_owned())),
    }
}
