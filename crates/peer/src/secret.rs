//! The secret of a cluster, which every node has: it opens what is sealed in the store.

use std::{fmt, path::Path};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use zeroize::Zeroizing;

use crate::{
    file::{FileError, read_secret_file, write_secret_file},
    random::{self, NoRandomness},
    sensitive::Sensitive,
};

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// The secret of a cluster: 256 random bits.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(Zeroizing<[u8; SECRET_BYTES]>);

/// Why there is no secret of the cluster, or why it does not open something.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no secret.
    #[error("the secret of the cluster is not 64 hex digits")]
    Malformed,
    /// It was sealed with another secret, for something else, or was changed.
    #[error("it was not sealed with the secret of this cluster")]
    Foreign,
    /// The system gives no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl ClusterSecret {
    /// Another secret.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn draw() -> Result<Self, SecretError> {
        Ok(Self(random::bytes()?))
    }

    /// The secret with these 64 hex digits.
    ///
    /// # Errors
    ///
    /// If they are something else.
    pub fn from_hex(text: &str) -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        match base16ct::lower::decode(text, &mut *bytes) {
            Ok(decoded) if decoded.len() == SECRET_BYTES => {}
            Ok(_) | Err(_) => return Err(SecretError::Malformed),
        }
        Ok(Self(bytes))
    }

    /// Its hex digits, for a node that joins and for its file.
    pub fn to_hex(&self) -> Sensitive {
        Sensitive::new(base16ct::lower::encode_string(&*self.0))
    }

    /// Reads it from its file.
    ///
    /// # Errors
    ///
    /// If others may read the file, or it has something else.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let bytes = read_secret_file(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::Malformed)?;
        Self::from_hex(text.trim_end())
    }

    /// Writes it to a file that only this user may read.
    ///
    /// # Errors
    ///
    /// What the system says against it.
    pub fn write(&self, path: &Path) -> Result<(), SecretError> {
        let mut text = Zeroizing::new(self.to_hex().reveal().to_owned());
        text.push('\n');
        Ok(write_secret_file(path, text.as_bytes())?)
    }

    /// Seals bytes (AES-256-GCM). Only the same secret opens them again, for the same purpose.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn seal(&self, purpose: &str, bytes: &[u8]) -> Result<Vec<u8>, SecretError> {
        let nonce = random::bytes::<NONCE_LEN>()?;
        let mut text = Zeroizing::new(Vec::with_capacity(bytes.len() + AES_256_GCM.tag_len()));
        text.extend_from_slice(bytes);
        let unique = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(purpose.as_bytes());
        let sealed = self.key().seal_in_place_append_tag(unique, aad, &mut *text);
        sealed.expect("keys are far shorter than what a nonce can seal");
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] has sealed.
    ///
    /// # Errors
    ///
    /// If it was sealed otherwise.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let split = sealed.split_at_checked(NONCE_LEN);
        let (nonce, sealed) = split.ok_or(SecretError::Foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::Foreign)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let aad = Aad::from(purpose.as_bytes());
        let opened = self.key().open_in_place(nonce, aad, &mut text);
        let length = opened.map_err(|_| SecretError::Foreign)?.len();
        text.truncate(length);
        Ok(text)
    }

    /// The key that seals, which is another than the secret itself.
    fn key(&self) -> LessSafeKey {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sampan cluster");
        let from = salt.extract(&*self.0);
        let key = from.expand(&[b"seal"], &AES_256_GCM);
        LessSafeKey::new(UnboundKey::from(key.expect("a digest gives so many bytes")))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_alone_and_whole_alone() {
        let secret = ClusterSecret::draw().expect("a secret");
        let sealed = secret.seal("ca c1", b"the key").expect("sealed");
        assert!(!sealed.windows(7).any(|part| part == b"the key"));
        assert_eq!(
            &**secret.open("ca c1", &sealed).expect("opened"),
            b"the key"
        );
        assert_ne!(sealed, secret.seal("ca c1", b"the key").expect("sealed"));

        let other = ClusterSecret::draw().expect("a secret");
        assert!(matches!(
            other.open("ca c1", &sealed),
            Err(SecretError::Foreign)
        ));
        assert!(matches!(
            secret.open("ca c2", &sealed),
            Err(SecretError::Foreign)
        ));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(secret.open("ca c1", &changed).is_err(), "byte {at}");
            assert!(secret.open("ca c1", &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn its_digits_give_it_back_and_others_none() {
        let secret = ClusterSecret::draw().expect("a secret");
        let hex = secret.to_hex();
        assert_eq!(ClusterSecret::from_hex(hex.reveal()).expect("hex"), secret);
        for bad in [
            "",
            "00",
            &hex.reveal()[1..],
            &format!("{}00", hex.reveal()),
            &"g".repeat(64),
        ] {
            assert!(ClusterSecret::from_hex(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{secret:?} {hex:?}"), "ClusterSecret(***) ***");
    }
}
