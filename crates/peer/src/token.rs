//! What lets a node join: `sampan1.<hash of the CA's certificate>.<id>.<secret>@<addresses>`.
//!
//! The first part is public and tells the node whom to trust; the secret tells the cluster whom it
//! has invited. What the cluster keeps is a digest of the secret, so that a reader of the store
//! cannot join with it. A secret is 256 random bits, so a digest that is quick is enough.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use ring::digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::{
    identity::CaHash,
    random::{self, NoRandomness},
    sensitive::Sensitive,
};

/// How long a token is good for.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How a token begins: what it is, and in which form.
const PREFIX: &str = "sampan1";
/// Random bytes of the number of a token.
const ID_BYTES: usize = 8;
/// Random bytes of the secret of a token.
const SECRET_BYTES: usize = 32;
/// The most addresses in a token.
const MAX_ADDRESSES: usize = 16;

/// What a new node shows to join a cluster, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Which authority the cluster has.
    pub ca: CaHash,
    /// The number of the token, under which the cluster keeps its digest.
    pub id: String,
    /// Where nodes of the cluster listen for others.
    pub addresses: Vec<SocketAddr>,
    secret: Sensitive,
}

/// What a cluster keeps of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    /// The digest of its number and secret, in hex.
    pub hash: String,
    /// When it ends, in milliseconds since the beginning of 1970.
    pub until_ms: u64,
}

/// Why a token is no good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is cut off, or something else.
    #[error(
        "it is not a token for joining: `sampan cluster token` at a node of the cluster prints one"
    )]
    Malformed,
    /// There is none with this number, or its secret is another.
    #[error(
        "the cluster has no such token, or it has been used: `sampan cluster token` prints another"
    )]
    Unknown,
    /// It was made too long ago.
    #[error("the token has expired: `sampan cluster token` prints another")]
    Expired,
    /// The system gives no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl Token {
    /// Another token, and what the cluster keeps of it.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn draw(
        ca: CaHash,
        addresses: Vec<SocketAddr>,
        now: SystemTime,
    ) -> Result<(Self, StoredToken), TokenError> {
        let id = random::bytes::<ID_BYTES>()?;
        let secret = random::bytes::<SECRET_BYTES>()?;
        let token = Self {
            ca,
            id: base16ct::lower::encode_string(&*id),
            addresses: addresses.into_iter().take(MAX_ADDRESSES).collect(),
            secret: Sensitive::new(base16ct::lower::encode_string(&*secret)),
        };
        let stored = StoredToken {
            hash: hash(&token.id, token.secret.reveal()),
            until_ms: millis(now).saturating_add(TOKEN_LIFETIME.as_millis() as u64),
        };
        Ok((token, stored))
    }

    /// Reads a token that was printed.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        Self::read(text).ok_or(TokenError::Malformed)
    }

    fn read(text: &str) -> Option<Self> {
        let (token, addresses) = text.trim().split_once('@')?;
        let mut parts = token.split('.');
        if parts.next()? != PREFIX {
            return None;
        }
        let ca = CaHash::parse(parts.next()?)?;
        let id = digits(parts.next()?, ID_BYTES)?;
        let secret = Sensitive::new(digits(parts.next()?, SECRET_BYTES)?);
        if parts.next().is_some() {
            return None;
        }
        let addresses = addresses.split(',').map(|address| address.parse().ok());
        let addresses: Vec<SocketAddr> = addresses.collect::<Option<_>>()?;
        (addresses.len() <= MAX_ADDRESSES).then_some(Self {
            ca,
            id,
            addresses,
            secret,
        })
    }

    /// The token as a new node wants it.
    pub fn reveal(&self) -> Sensitive {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        Sensitive::new(format!(
            "{PREFIX}.{}.{}.{}@{}",
            self.ca,
            self.id,
            self.secret.reveal(),
            addresses.join(",")
        ))
    }

    /// Its secret, for the node that is asked.
    pub(crate) fn secret(&self) -> &Sensitive {
        &self.secret
    }
}

impl StoredToken {
    /// Whether this is what the cluster keeps of a token that is still good.
    ///
    /// # Errors
    ///
    /// If the secret is another, or the token too old. Who has another secret does not learn that.
    pub fn check(&self, id: &str, secret: &Sensitive, now: SystemTime) -> Result<(), TokenError> {
        let shown = hash(id, secret.reveal());
        if !bool::from(shown.as_bytes().ct_eq(self.hash.as_bytes())) {
            return Err(TokenError::Unknown);
        }
        if millis(now) >= self.until_ms {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

/// So many bytes as hex digits.
fn digits(text: &str, bytes: usize) -> Option<String> {
    let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == 2 * bytes && text.bytes().all(is_hex)).then(|| text.to_owned())
}

fn hash(id: &str, secret: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    // Neither has a NUL character, so no two tokens come to the same.
    for part in ["sampan token 1", id, secret] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    base16ct::lower::encode_string(context.finish().as_ref())
}

fn millis(at: SystemTime) -> u64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
