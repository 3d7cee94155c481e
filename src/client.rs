//! The API as seen from another process.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use sampan_core::view;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::file;

/// Names a socket, like `--api`.
const VARIABLE: &str = "SAMPAN_API";

/// Why the API has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing runs that could be asked.
    #[error(
        "nothing runs here: no socket in `{0}` answers; start `sampan up`, or name a socket with \
         `--api`"
    )]
    Nobody(PathBuf),
    /// Others could answer in place of what runs.
    #[error("others may write to `{0}`, where sockets are looked for; name one with `--api`")]
    Unsafe(PathBuf),
    /// More than one could be asked.
    #[error("more than one app runs here; name one with `--api`: {}", list(.0))]
    Several(Vec<PathBuf>),
    /// Nobody answers at the socket.
    #[error("cannot reach `{path}`")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The answer broke off or is none.
    #[error("`{path}` gives no proper answer: {reason}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was refused.
    #[error("{0}")]
    Refused(String),
}

fn list(paths: &[PathBuf]) -> String {
    let quoted = paths.iter().map(|path| format!("`{}`", path.display()));
    quoted.collect::<Vec<_>>().join(", ")
}

/// A socket at which an API is.
pub(crate) struct Client {
    path: PathBuf,
}

impl Client {
    /// The API that `asked` or the environment names, else the only one in `directory`.
    pub(crate) fn find(asked: Option<&Path>, directory: &Path) -> Result<Self, ClientError> {
        let named = asked.map(Path::to_owned);
        if let Some(path) = named.or_else(|| env::var_os(VARIABLE).map(PathBuf::from)) {
            return Ok(Self { path });
        }
        if !file::is_safe(directory).unwrap_or(true) {
            return Err(ClientError::Unsafe(directory.to_owned()));
        }
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let sockets = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it == "sock"));
        // One that nobody answers at was left behind by a process that was killed.
        let alive = |path: &PathBuf| std::os::unix::net::UnixStream::connect(path).is_ok();
        let mut alive: Vec<_> = sockets.filter(alive).collect();
        alive.sort();
        match alive.len() {
            0 => Err(ClientError::Nobody(directory.to_owned())),
            1 => Ok(Self {
                path: alive.remove(0),
            }),
            _ => Err(ClientError::Several(alive)),
        }
    }

    /// One JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let body = self.send(target).await?.into_body();
        let body = body.collect().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| self.broken(&error))
    }

    /// A stream of lines, each given to `line` as it comes.
    pub(crate) async fn lines(
        &self,
        target: &str,
        mut line: impl FnMut(&str),
    ) -> Result<(), ClientError> {
        let mut body = self.send(target).await?.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                line(&String::from_utf8_lossy(&rest[..end]));
                rest.drain(..=end);
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        target: &str,
    ) -> Result<http::Response<hyper::body::Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|source| ClientError::Unreachable {
            path: self.path.clone(),
            source,
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        // It ends with the answer, and what becomes of it shows there.
        tokio::spawn(async move { drop(connection.await) });
        let request = http::Request::get(target)
            .header(http::header::HOST, "sampan")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.broken(&error))?.to_bytes();
        Err(match serde_json::from_slice::<view::Error>(&body) {
            Ok(error) => ClientError::Refused(error.message),
            Err(_) => self.broken(&format!("status {status}")),
        })
    }

    fn broken(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}
