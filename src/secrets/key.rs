//! The key of a node: seals values of secrets, and names their versions.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};
use sampan_core::{name::Name, object::SecretUse, record::Secret, secret::SecretValue};
use zeroize::Zeroizing;

/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of the digest that names a version of a secret.
const VERSION_BYTES: usize = 16;
/// Bytes of the digest that names a key.
const ID_BYTES: usize = 8;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// There is no file.
    #[error(
        "there is no `{0}`, with which the node's secrets are sealed: put the file back, or apply \
         the apps with secrets again"
    )]
    Absent(PathBuf),
    /// Others could have read it.
    #[error("others may read the key of secrets `{0}`: `chmod 600` keeps it to this user")]
    Exposed(PathBuf),
    /// It is no key.
    #[error(
        "`{0}` is not a key of 64 hex digits: put the right file back, or remove it and apply the \
         apps with secrets again"
    )]
    Malformed(PathBuf),
    /// It cannot be read or made.
    #[error("cannot read or make the key of secrets `{path}`")]
    Io {
        /// The path of its file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no random bytes.
    #[error("cannot draw a key for secrets: the system gives no random bytes")]
    Random,
}

/// A key, as those that are made from it.
pub(super) struct NodeKey {
    sealing: LessSafeKey,
    versions: hmac::Key,
    id: String,
}

/// The length of a key that is made from another.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl NodeKey {
    fn of(random: &[u8; KEY_BYTES]) -> Self {
        let from = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sampan secrets").extract(random);
        let sealing = derived::<KEY_BYTES>(&from, b"seal");
        let versions = derived::<KEY_BYTES>(&from, b"version");
        let id = derived::<ID_BYTES>(&from, b"id");
        let sealing = UnboundKey::new(&AES_256_GCM, &*sealing);
        Self {
            sealing: LessSafeKey::new(sealing.expect("the length is that of the algorithm")),
            versions: hmac::Key::new(hmac::HMAC_SHA256, &*versions),
            id: base16ct::lower::encode_string(&*id),
        }
    }

    /// Another key, in memory alone.
    pub(super) fn draw() -> Result<Self, KeyError> {
        Ok(Self::of(&*random()?))
    }

    /// The key in a file.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Absent(path.to_owned()),
            _ => KeyError::Io {
                path: path.to_owned(),
                source,
            },
        };
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(KeyError::Exposed(path.to_owned()));
        }
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 2));
        // What is longer is no key.
        let mut bounded = (&mut file).take(2 * KEY_BYTES as u64 + 2);
        let malformed = || KeyError::Malformed(path.to_owned());
        match bounded.read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(malformed()),
            read => read.map_err(failed)?,
        };
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let decoded = base16ct::lower::decode(text.trim_end(), &mut *bytes);
        match decoded {
            Ok(decoded) if decoded.len() == KEY_BYTES => Ok(Self::of(&bytes)),
            Ok(_) | Err(_) => Err(malformed()),
        }
    }

    /// Another key, in a file that is made for it. Of two processes that do it at once the key of one
    /// wins for both.
    pub(super) fn make(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let random = random()?;
        let digits = Zeroizing::new(base16ct::lower::encode_string(&*random));
        let directory = path.parent().unwrap_or(Path::new("."));
        // Whole under its name, or not there: a key that was cut off would be none for ever. The file
        // beside it has a name of its own, and is for this user alone.
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(digits.as_bytes())?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            match file.persist_noclobber(path) {
                Err(failed) if failed.error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(failed.error)
                }
                _ => Ok(()),
            }
        };
        write().map_err(failed)?;
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed)?;
        Self::read(path)
    }

    /// The version of a value: the same for the same secret with the same value, and of no use to who
    /// wants to guess it.
    pub(super) fn version(&self, app: &Name, name: &Name, value: &SecretValue) -> String {
        let mut digest = hmac::Context::with_key(&self.versions);
        // Names have no NUL character, so no two secrets come to the same.
        for part in [app.as_str(), name.as_str()] {
            digest.update(part.as_bytes());
            digest.update(&[0]);
        }
        digest.update(value.bytes());
        base16ct::lower::encode_string(&digest.sign().as_ref()[..VERSION_BYTES])
    }

    /// Seals a value. Only the secret and version that it is of open it again.
    pub(super) fn seal(
        &self,
        app: &Name,
        secret: &SecretUse,
        value: &SecretValue,
    ) -> Result<Secret, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let mut text = Zeroizing::new(Vec::with_capacity(
            value.bytes().len() + AES_256_GCM.tag_len(),
        ));
        text.extend_from_slice(value.bytes());
        let (unique, of) = (Nonce::assume_unique_for_key(nonce), whose(app, secret));
        let sealed = self
            .sealing
            .seal_in_place_append_tag(unique, Aad::from(of), &mut *text);
        sealed.expect("a secret is short");
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&text);
        Ok(Secret {
            key: self.id.clone(),
            sealed: STANDARD.encode(sealed),
        })
    }

    /// Whether a value was sealed with this key.
    pub(super) fn has_sealed(&self, record: &Secret) -> bool {
        record.key == self.id
    }

    /// The value; `None` if it is another than what was sealed.
    pub(super) fn open(
        &self,
        app: &Name,
        secret: &SecretUse,
        record: &Secret,
    ) -> Option<SecretValue> {
        let sealed = STANDARD.decode(&record.sealed).ok()?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let of = Aad::from(whose(app, secret));
        let value = self.sealing.open_in_place(nonce, of, &mut text).ok()?;
        Some(SecretValue::new(value.to_vec()))
    }
}

/// What is bound to a sealed value: of which app, secret and version it is.
fn whose(app: &Name, secret: &SecretUse) -> Vec<u8> {
    format!(
        "sampan secret 1\0{app}\0{}\0{}",
        secret.name, secret.version
    )
    .into_bytes()
}

/// A key that is made from another, for one purpose.
fn derived<const BYTES: usize>(from: &hkdf::Prk, purpose: &[u8]) -> Zeroizing<[u8; BYTES]> {
    let mut key = Zeroizing::new([0; BYTES]);
    let purpose = [purpose];
    let expanded = from.expand(&purpose, Length(BYTES));
    let filled = expanded.and_then(|expanded| expanded.fill(&mut *key));
    filled.expect("a digest gives so many bytes");
    key
}

fn random() -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    let mut random = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(&mut *random).map_err(|_| KeyError::Random)?;
    Ok(random)
}

/// Keeps the system from writing the memory of this process into a file when it crashes: from now on
/// secrets are in it. An operator may allow it again with `prlimit`.
pub(super) fn keep_out_of_core_dumps() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    let none = Rlimit {
        current: Some(0),
        maximum,
    };
    // A limit can always be made lower.
    let _ = setrlimit(Resource::Core, none);
}
