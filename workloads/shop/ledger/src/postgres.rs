//! A connection to PostgreSQL: the messages are those of `postgres-protocol`, which needs no runtime.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;

/// Parameters and results are texts.
const TEXT: i16 = 0;

/// A connection whose user is known to the server.
pub(crate) struct Postgres {
    stream: TcpStream,
    received: BytesMut,
}

impl Postgres {
    /// Connects, and proves the user by the password if the server asks for it.
    pub(crate) fn connect(
        server: (&str, u16),
        user: &str,
        database: &str,
        password: &str,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        let mut server = Self {
            stream,
            received: BytesMut::new(),
        };
        let names = [("user", user), ("database", database)];
        server.send(|buffer| frontend::startup_message(names, buffer))?;
        loop {
            match server.next()? {
                Message::AuthenticationCleartextPassword => server.password(password.as_bytes())?,
                Message::AuthenticationMd5Password(asked) => {
                    let hash = md5_hash(user.as_bytes(), password.as_bytes(), asked.salt());
                    server.password(hash.as_bytes())?;
                }
                Message::AuthenticationSasl(asked) => server.scram(&asked, password)?,
                Message::ErrorResponse(error) => return Err(refused(&error)),
                Message::ReadyForQuery(_) => return Ok(server),
                _ => {}
            }
        }
    }

    /// Runs a statement with parameters, and says how many rows it changed.
    pub(crate) fn run(&mut self, statement: &str, parameters: &[&str]) -> io::Result<u64> {
        self.send(|buffer| {
            frontend::parse("", statement, [], buffer)?;
            let write = |text: &&str, buffer: &mut BytesMut| {
                buffer.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            };
            frontend::bind("", "", [TEXT], parameters, write, [TEXT], buffer)
                .map_err(|_| io::Error::other("a parameter is too long"))?;
            frontend::execute("", 0, buffer)?;
            frontend::sync(buffer);
            Ok(())
        })?;
        let (mut rows, mut failed) = (0, None);
        loop {
            match self.next()? {
                Message::ErrorResponse(error) => failed = Some(refused(&error)),
                Message::CommandComplete(done) => {
                    // `INSERT 0 1`: the last word is the count, if there is one.
                    let count = done.tag()?.rsplit(' ').next().map(str::parse);
                    rows = count.and_then(Result::ok).unwrap_or(0);
                }
                Message::ReadyForQuery(_) => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    fn password(&mut self, password: &[u8]) -> io::Result<()> {
        self.send(|buffer| frontend::password_message(password, buffer))
    }

    /// SCRAM-SHA-256, [RFC 7677](https://www.rfc-editor.org/rfc/rfc7677).
    fn scram(&mut self, asked: &AuthenticationSaslBody, password: &str) -> io::Result<()> {
        if !asked.mechanisms().any(|name| Ok(name == SCRAM_SHA_256))? {
            return Err(io::Error::other("the server asks for no SCRAM-SHA-256"));
        }
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        self.send(|buffer| {
            frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), buffer)
        })?;
        match self.next()? {
            Message::AuthenticationSaslContinue(told) => scram.update(told.data())?,
            Message::ErrorResponse(error) => return Err(refused(&error)),
            _ => return Err(unexpected()),
        }
        self.send(|buffer| frontend::sasl_response(scram.message(), buffer))?;
        match self.next()? {
            Message::AuthenticationSaslFinal(told) => scram.finish(told.data()),
            Message::ErrorResponse(error) => Err(refused(&error)),
            _ => Err(unexpected()),
        }
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        write(&mut buffer)?;
        self.stream.write_all(&buffer)
    }

    fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.received)? {
                return Ok(message);
            }
            let mut piece = [0; 8192];
            let count = self.stream.read(&mut piece)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&piece[..count]);
        }
    }
}

fn refused(error: &ErrorResponseBody) -> io::Error {
    let text = error.fields().find(|field| Ok(field.type_() == b'M'));
    match text {
        Ok(Some(field)) => {
            io::Error::other(String::from_utf8_lossy(field.value_bytes()).into_owned())
        }
        Ok(None) => unexpected(),
        Err(error) => error,
    }
}

fn unexpected() -> io::Error {
    io::Error::other("the server does not keep to the protocol")
}
