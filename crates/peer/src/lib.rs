//! The nodes of a cluster among one another.
//!
//! A cluster has a certificate authority ([`Authority`]), and every node a certificate of it with
//! its name ([`Identity`]). Nodes speak HTTP/2 over TLS 1.3 ([`Server`], [`Client`]): both show a
//! certificate, the client checks that it has reached the node it means, and the server that the
//! node that calls is one of the cluster. What has no certificate is closed before HTTP.
//!
//! A new node has a [`Token`], with which it joins ([`join()`]): over TLS as well, by a protocol of one
//! question and one answer that has nothing to do with HTTP, once it has seen that the node it has
//! reached belongs to the authority that the token names.
//!
//! The authority's key and what opens it ([`ClusterSecret`]) are known to all nodes, because nodes
//! are equal. No way of printing shows a key or a secret.

mod authority;
mod client;
mod failure;
mod file;
mod identity;
mod join;
mod node_name;
mod places;
mod random;
mod secret;
mod sensitive;
mod server;
mod stream;
mod tls;
mod token;

pub use authority::{Authority, IssueError};
pub use client::{Client, ClientLimits, Remote};
pub use failure::PeerError;
pub use file::{FileError, read_secret_file, write_file, write_secret_file};
pub use identity::{
    CERTIFICATE_LIFETIME, CaHash, Certificate, Identity, IdentityError, NodeKey, PublicKey,
};
pub use join::{JoinAnswer, JoinError, JoinRequest, Refusal, join};
pub use places::{Limits, STREAMS};
pub use random::NoRandomness;
pub use secret::{ClusterSecret, SecretError};
pub use sensitive::Sensitive;
pub use server::{Body, BoxError, Door, NotBegun, RequestBody, Server, empty, full};
pub use stream::{AnswerBody, AnswerError};
pub use tls::Credentials;
pub use token::{StoredToken, TOKEN_LIFETIME, Token, TokenError};
