//! Random bytes of the system.

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

/// The system gives no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// So many random bytes.
pub(crate) fn bytes<const BYTES: usize>() -> Result<Zeroizing<[u8; BYTES]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    let filled = SystemRandom::new().fill(&mut *bytes);
    filled.map_err(|_| NoRandomness)?;
    Ok(bytes)
}
