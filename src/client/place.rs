//! Where an API answers: a socket of this user, or a port of this machine.

use std::{
    env, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::uri::Authority;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::ClientError;
use crate::{
    config::address::{self, ApiPlace},
    file,
};

/// Names a socket or a port, like `--api`.
const VARIABLE: &str = "SAMPAN_API";
/// Has the token for a port.
const TOKEN: &str = "SAMPAN_TOKEN";
/// The socket of `sampan serve`.
const SERVE: &str = "sampan.sock";

/// What is sent with a request, a piece at a time.
pub(super) type Sent = UnsyncBoxBody<Bytes, io::Error>;

/// Whatever answers as an API, by where that is.
pub(crate) enum Client {
    Socket(PathBuf),
    Port {
        authority: Authority,
        token: Option<String>,
    },
}

impl Client {
    /// Whether the environment names one.
    pub(crate) fn is_asked() -> bool {
        env::var(VARIABLE).is_ok_and(|asked| !asked.is_empty())
    }

    /// The API that `asked` or the environment names; else the socket of `sampan serve` in
    /// `directory`, else the only one there. Through a port the token is that of the environment or
    /// in `token_file`.
    pub(crate) fn find(
        asked: Option<&str>,
        token_file: Option<&Path>,
        directory: &Path,
    ) -> Result<Self, ClientError> {
        let asked = asked.map(str::to_owned).or_else(|| env::var(VARIABLE).ok());
        if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
            return match address::api(&asked)? {
                ApiPlace::Port(authority) => Self::port(&authority, token_file),
                ApiPlace::Socket(path) => Ok(Self::Socket(path.to_owned())),
            };
        }
        if !file::is_safe(directory).unwrap_or(true) {
            return Err(ClientError::Unsafe(directory.to_owned()));
        }
        // A socket without a listener was left behind by a process that was killed.
        let alive = |path: &PathBuf| std::os::unix::net::UnixStream::connect(path).is_ok();
        let serve = directory.join(SERVE);
        if alive(&serve) {
            return Ok(Self::Socket(serve));
        }
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let sockets = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it == "sock"));
        let mut alive: Vec<_> = sockets.filter(alive).collect();
        alive.sort();
        match alive.len() {
            0 => Err(ClientError::NoDaemon(directory.to_owned())),
            1 => Ok(Self::Socket(alive.remove(0))),
            _ => Err(ClientError::Several(alive)),
        }
    }

    fn port(text: &str, token_file: Option<&Path>) -> Result<Self, ClientError> {
        let elsewhere = || ClientError::Elsewhere(format!("http://{text}"));
        let authority = Authority::try_from(text);
        let authority = authority.map_err(|_| elsewhere())?;
        let host = bare_host(&authority);
        let ours = host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
        if !ours || authority.as_str().contains('@') {
            return Err(elsewhere());
        }
        let token = match token_file {
            Some(path) => {
                let text = file::text(path).map_err(|source| ClientError::NoToken {
                    path: path.to_owned(),
                    source,
                })?;
                Some(text.trim().to_owned())
            }
            None => env::var(TOKEN).ok(),
        };
        Ok(Self::Port { authority, token })
    }

    pub(super) fn token(&self) -> Option<&str> {
        match self {
            Self::Socket(_) => None,
            Self::Port { token, .. } => token.as_deref(),
        }
    }

    /// What stands in `Host`.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "sampan",
            Self::Port { authority, .. } => authority.as_str(),
        }
    }

    pub(super) async fn connect(&self) -> Result<SendRequest<Sent>, ClientError> {
        match self {
            Self::Socket(path) => self.speak(UnixStream::connect(path).await).await,
            Self::Port { authority, .. } => {
                let port = authority.port_u16().unwrap_or(80);
                let stream = TcpStream::connect((bare_host(authority), port)).await;
                self.speak(stream).await
            }
        }
    }

    async fn speak(
        &self,
        stream: io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    ) -> Result<SendRequest<Sent>, ClientError> {
        let stream = stream.map_err(|source| ClientError::Unreachable {
            place: self.to_string(),
            source,
        })?;
        let spoken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = spoken.map_err(|error| self.broken(&error))?;
        // It ends with the answer, and what becomes of it shows there.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    pub(super) fn broken(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken {
            place: self.to_string(),
            reason: reason.to_string(),
        }
    }
}

/// The host without the brackets of an address of IP version 6.
fn bare_host(authority: &Authority) -> &str {
    let host = authority.host();
    host.trim_start_matches('[').trim_end_matches(']')
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Port { authority, .. } => write!(f, "http://{authority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn find(asked: Option<&str>, directory: &Path) -> Result<String, String> {
        let found = Client::find(asked, None, directory);
        found.map(|it| it.to_string()).map_err(|it| it.to_string())
    }

    #[test]
    fn the_socket_of_serve_comes_first() {
        let home = tempfile::tempdir().expect("a directory");
        let none = find(None, home.path()).expect_err("no daemon");
        assert!(none.starts_with("no daemon is running"), "{none}");
        let bind = |name: &str| UnixListener::bind(home.path().join(name)).expect("free");
        let _shop = bind("shop.sock");
        let path = |name: &str| Ok(home.path().join(name).display().to_string());
        assert_eq!(find(None, home.path()), path("shop.sock"));
        let _blog = bind("blog.sock");
        let several = find(None, home.path()).expect_err("several");
        assert!(
            several.starts_with("more than one app runs here"),
            "{several}"
        );
        let _serve = bind(SERVE);
        assert_eq!(find(None, home.path()), path(SERVE));
    }

    #[test]
    fn a_port_is_one_of_this_machine() {
        let nowhere = Path::new("/nonexistent");
        for good in [
            "http://127.0.0.1:9000",
            "http://[::1]:9000",
            "http://localhost:1",
        ] {
            assert_eq!(find(Some(good), nowhere), Ok(good.to_owned()));
            let bare = good.strip_prefix("http://");
            assert_eq!(find(bare, nowhere), Ok(good.to_owned()));
        }
        for bare in [":9000", "9000", "http://127.0.0.1:9000/"] {
            let found = find(Some(bare), nowhere);
            assert_eq!(found, Ok("http://127.0.0.1:9000".to_owned()));
        }
        for bad in [
            "http://10.0.0.1:1",
            "10.0.0.1:1",
            "example.com:80",
            "http://example.com",
            "http://a@localhost",
            "http://",
        ] {
            let error = find(Some(bad), nowhere).expect_err(bad);
            assert!(
                error.contains("is not an address of this machine"),
                "{error}"
            );
        }
        assert_eq!(
            find(Some("/run/x.sock"), nowhere),
            Ok("/run/x.sock".to_owned())
        );
    }
}
