//! Values that only guests see.

use std::{collections::BTreeMap, fmt};

use zeroize::Zeroizing;

use crate::object::SecretUse;

/// The most bytes of one secret: a certificate with its chain, or a large key file.
pub const MAX_SECRET_BYTES: usize = 64 << 10;
/// The most bytes of all secrets of an app, which are sent along with its spec.
pub const MAX_SECRETS_BYTES: usize = 256 << 10;

/// The value of a secret. No way of printing shows it, it cannot be serialized, and its memory is
/// overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// The values of secrets, by what uses them.
pub type SecretValues = BTreeMap<SecretUse, SecretValue>;

impl SecretValue {
    /// The secret with these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// All of it, as a file has it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// All of it but the line end that editors put at the end of a file, as `$(cat FILE)` has it.
    pub fn trimmed(&self) -> &[u8] {
        let bytes = self.bytes();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }

    /// The value of a variable: [`Self::trimmed`] as text. `None` for what a variable cannot hold,
    /// which is anything but UTF-8 without NUL characters.
    pub fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(self.trimmed()).ok()?;
        (!text.contains('\0')).then_some(text)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(***)")
    }
}

impl fmt::Display for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &[u8]) -> SecretValue {
        SecretValue::new(text.to_owned())
    }

    #[test]
    fn a_secret_is_not_shown() {
        let value = secret(b"hunter2");
        for shown in [
            format!("{value}"),
            format!("{value:?}"),
            format!("{value:#?}"),
        ] {
            assert!(
                !shown.contains("hunter2") && shown.contains("***"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_variable_has_no_line_end_and_a_file_has_it() {
        for (bytes, text) in [
            (&b"hunter2"[..], Some("hunter2")),
            (b"hunter2\n", Some("hunter2")),
            (b"hunter2\r\n", Some("hunter2")),
            (b"hunter2\n\n", Some("hunter2\n")),
            (b"two\nlines\n", Some("two\nlines")),
            (b" spaces \t", Some(" spaces \t")),
            (b"\n", Some("")),
            (b"nul\0", None),
            (b"\xff", None),
        ] {
            let value = secret(bytes);
            assert_eq!((value.text(), value.bytes()), (text, bytes));
        }
    }
}
