//! How a new node gets its certificate: one question and one answer over TLS, each a length of four
//! bytes and so much JSON. It is no HTTP, so there is no request that needs no certificate.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use sampan_core::name::Name;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::{
    failure::{chain, timed_out},
    identity::PublicKey,
    sensitive::Sensitive,
    tls,
    token::Token,
};

/// The most bytes of a question.
const MAX_QUESTION: usize = 16 << 10;
/// The most bytes of an answer: certificates and keys for the store are in it.
const MAX_ANSWER: usize = 256 << 10;
/// Time that a new node gives one address of its token to connect.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Time that it waits for the answer: the store writes meanwhile.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// What a new node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The number of its token.
    pub token: String,
    /// The secret of its token.
    pub secret: Sensitive,
    /// How it wants to be called.
    pub node: Name,
    /// Its public key, in hex.
    pub public_key: String,
    /// Where it will listen for other nodes.
    pub address: SocketAddr,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its version of Sampan.
    pub version: String,
}

/// What a node that has joined needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The number of the cluster.
    pub cluster: String,
    /// Its certificate (PEM).
    pub certificate: String,
    /// That of the authority (PEM), which the token's digest is of.
    pub ca: String,
    /// The secret of the cluster, in hex.
    pub secret: Sensitive,
    /// The key with which values of apps' secrets are sealed, in hex.
    pub secrets_key: Option<Sensitive>,
    /// The addresses of the store.
    pub store: Vec<String>,
    /// How to get into it, by what each is: files in the directory of a node.
    #[serde(default)]
    pub store_files: BTreeMap<String, Sensitive>,
}

/// Why a node may not join, for its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why joining has failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// None of the token's addresses has a node of the cluster.
    #[error("no node of the cluster can be reached: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// A node says no.
    #[error("the node at `{address}` does not let this one join: {reason}")]
    Refused {
        /// Which.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// It cannot be said whether it has worked.
    #[error("the node at `{address}` has not answered: {reason}")]
    Unanswered {
        /// Which.
        address: SocketAddr,
        /// What is known.
        reason: String,
    },
}

/// What is sent back.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Welcome(Box<JoinAnswer>),
    Refused { reason: String },
}

impl JoinRequest {
    /// What a node says that has this token.
    pub fn new(
        token: &Token,
        node: Name,
        key: &PublicKey,
        address: SocketAddr,
        labels: BTreeMap<String, String>,
        version: &str,
    ) -> Self {
        Self {
            token: token.id.clone(),
            secret: token.secret().clone(),
            node,
            public_key: key.to_hex(),
            address,
            labels,
            version: version.to_owned(),
        }
    }
}

/// Asks the nodes of a token, one after the other, until one can be reached. Nothing is sent before
/// that one has shown a certificate of the authority that the token names.
///
/// # Errors
///
/// If none can be reached, or one that can says no.
pub async fn join(token: &Token, request: &JoinRequest) -> Result<JoinAnswer, JoinError> {
    let mut unreachable = Vec::new();
    for &address in &token.addresses {
        let connected = timeout(CONNECT_TIME, connect(token, address)).await;
        let connected = connected.unwrap_or_else(|_| Err(timed_out(CONNECT_TIME)));
        let mut stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                unreachable.push(format!("`{address}`: {}", chain(&error)));
                continue;
            }
        };
        let asked = timeout(ANSWER_TIME, ask(&mut stream, request)).await;
        return match asked.unwrap_or_else(|_| Err(timed_out(ANSWER_TIME))) {
            Ok(Answer::Welcome(answer)) => Ok(*answer),
            Ok(Answer::Refused { reason }) => Err(JoinError::Refused { address, reason }),
            Err(error) => Err(JoinError::Unanswered {
                address,
                reason: chain(&error),
            }),
        };
    }
    Err(JoinError::Unreachable(unreachable))
}

type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(token: &Token, address: SocketAddr) -> io::Result<ClientStream> {
    let config = tls::joining(token.ca).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    // Any node of the cluster will do, so no name is asked for.
    let name = ServerName::from(address.ip());
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn ask(stream: &mut ClientStream, request: &JoinRequest) -> io::Result<Answer> {
    let question = Zeroizing::new(serde_json::to_vec(request)?);
    write(stream, &question).await?;
    let answer = read(stream, MAX_ANSWER).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Answers the one question of a new node: `admit` looks at the token, makes it useless, and makes a
/// certificate.
pub(crate) async fn answer<S, A>(
    stream: &mut S,
    admit: impl FnOnce(JoinRequest) -> A,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = Result<JoinAnswer, Refusal>>,
{
    let question = read(stream, MAX_QUESTION).await?;
    let answer = match serde_json::from_slice::<JoinRequest>(&question) {
        Ok(request) => match admit(request).await {
            Ok(answer) => Answer::Welcome(Box::new(answer)),
            Err(Refusal(reason)) => Answer::Refused { reason },
        },
        // Not what is wrong with it: that would quote what was sent.
        Err(_) => Answer::Refused {
            reason: "the node that was asked does not understand the question: are the two of the \
                     same version?"
                .to_owned(),
        },
    };
    let answer = Zeroizing::new(serde_json::to_vec(&answer)?);
    write(stream, &answer).await?;
    stream.shutdown().await
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    limit: usize,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        let text = format!("{length} bytes are more than the {limit} that may be said");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
