//! The token that lets a request in which does not come through the socket.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use subtle::ConstantTimeEq as _;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// A secret that a client must send.
#[derive(Clone)]
pub(crate) struct Token(Arc<str>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Others could have read it.
    #[error("others may read the token `{0}`: remove it, and another one is made")]
    Exposed(PathBuf),
    /// It is no token.
    #[error("`{0}` is not a token of 64 hex digits: remove it, and another one is made")]
    Malformed(PathBuf),
    /// It cannot be read or made.
    #[error("cannot read or make the token `{path}`")]
    Io {
        /// The path of its file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Token {
    /// The token in the file, which is made if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return make(path).map_err(failed);
            }
            Err(error) => return Err(failed(error)),
        };
        let found = file.metadata().map_err(failed)?;
        if found.mode() & 0o077 != 0 {
            return Err(TokenError::Exposed(path.to_owned()));
        }
        let mut text = String::new();
        // What is longer is no token.
        let mut bounded = (&mut file).take(2 * TOKEN_BYTES as u64 + 2);
        bounded.read_to_string(&mut text).map_err(failed)?;
        let token = text.trim_end();
        let good = token.len() == 2 * TOKEN_BYTES && token.bytes().all(|it| it.is_ascii_hexdigit());
        match good {
            true => Ok(Self(token.into())),
            false => Err(TokenError::Malformed(path.to_owned())),
        }
    }
}

impl Token {
    /// Compares in constant time.
    pub(super) fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// A token that a test knows.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.into())
    }
}

fn make(path: &Path) -> io::Result<Token> {
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random)?;
    let token = base16ct::lower::encode_string(&random);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    Ok(Token(token.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_for_this_user() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("token");
        let first = Token::open(&path).expect("made");
        assert_eq!(first.0.len(), 64);
        let mode = std::fs::metadata(&path).expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600);
        let again = Token::open(&path).expect("read");
        assert!(again.is(&first.0));
        for wrong in ["", &first.0[1..], &format!("{}0", first.0), &"0".repeat(64)] {
            assert!(!again.is(wrong), "{wrong}");
        }
        let open = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&path, open).expect("ours");
        assert!(matches!(Token::open(&path), Err(TokenError::Exposed(_))));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        for (number, text) in ["", "short", &"z".repeat(64), &"0".repeat(66)]
            .iter()
            .enumerate()
        {
            let path = home.path().join(number.to_string());
            std::fs::write(&path, text).expect("writable");
            let closed = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, closed).expect("ours");
            let error = Token::open(&path).err().expect("no token").to_string();
            assert!(error.contains("is not a token"), "{error}");
        }
    }
}
