//! Looks for values in bytes, in every form that they are likely to have there.

use std::{fs, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// What is looked for, each with what it is a form of.
pub(super) struct Search(Vec<(String, Vec<u8>)>);

impl Search {
    /// Looks for these as they are, in hex digits, in base64 wherever it begins, as numbers in JSON, and
    /// escaped as in JSON, in a URL and by `Debug`.
    pub(super) fn of(values: &[&str]) -> Self {
        let mut forms = Vec::new();
        for value in values {
            let bytes = value.as_bytes();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
            let encoded: String = bytes
                .iter()
                .map(
                    |byte| match byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                        true => char::from(*byte).to_string(),
                        false => format!("%{byte:02X}"),
                    },
                )
                .collect();
            let quoted = |text: String| text[1..text.len() - 1].to_owned();
            let mut all = vec![
                ("plain", (*value).to_owned()),
                ("upper hex", hex.to_uppercase()),
                ("hex", hex),
                ("numbers", numbers.join(",")),
                ("numbers with spaces", numbers.join(", ")),
                ("escaped in a URL", encoded),
                (
                    "escaped in JSON",
                    quoted(serde_json::Value::from(*value).to_string()),
                ),
                ("escaped by Debug", quoted(format!("{value:?}"))),
                ("UTF-16", value.chars().flat_map(|it| [it, '\0']).collect()),
                ("backwards", value.chars().rev().collect()),
            ];
            for before in 0..3 {
                let shifted = [&[0; 3][..before], bytes].concat();
                // Only what comes of the value alone.
                let (from, to) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
                for (what, text) in [
                    ("base64", STANDARD_NO_PAD.encode(&shifted)),
                    ("base64 for URLs", URL_SAFE_NO_PAD.encode(&shifted)),
                ] {
                    all.push((what, text[from..to].to_owned()));
                }
            }
            let named =
                |(what, text): (&str, String)| (format!("{value} in {what}"), text.into_bytes());
            forms.extend(all.into_iter().map(named));
        }
        Self(forms)
    }

    /// The forms that are in the bytes.
    fn found(&self, bytes: &[u8]) -> Vec<&str> {
        let is_in = |form: &[u8]| bytes.windows(form.len()).any(|it| it == form);
        let found = self.0.iter().filter(|(_, form)| is_in(form));
        found.map(|(what, _)| what.as_str()).collect()
    }

    pub(super) fn none(&self, place: &str, bytes: &[u8]) {
        let found = self.found(bytes);
        let text = String::from_utf8_lossy(bytes);
        assert!(found.is_empty(), "{place} has {found:?}: {text}");
    }

    pub(super) fn some(&self, place: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        assert!(!self.found(bytes).is_empty(), "{place} has nothing: {text}");
    }

    /// Looks into all files below a directory, and at their names. Of those that are `opaque` only at
    /// their names.
    pub(super) fn in_files(&self, directory: &Path, opaque: &dyn Fn(&Path) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        let Ok(entries) = fs::read_dir(directory) else {
            return found;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let mut hits = self.found(path.as_os_str().as_encoded_bytes());
            let metadata = fs::symlink_metadata(&path);
            let kind = metadata.as_ref().map(fs::Metadata::file_type);
            if kind.as_ref().is_ok_and(|it| it.is_dir()) {
                found.extend(self.in_files(&path, opaque));
            } else if kind.is_ok_and(|it| it.is_file()) && !opaque(&path) {
                // A file of a database may go meanwhile.
                let bytes = fs::read(&path).unwrap_or_default();
                hits.extend(self.found(&bytes));
            }
            let told = hits
                .iter()
                .map(|what| format!("{}: {what}", path.display()));
            found.extend(told);
        }
        found
    }
}

/// A search that finds nothing says nothing unless it would have found something.
#[test]
fn a_search_finds_what_is_there_in_every_form() {
    let value = "pass/word?\"ü\\1234";
    let search = Search::of(&[value]);
    assert_eq!(search.0.len(), 16);
    for (what, form) in &search.0 {
        let bytes = [b"before ", &form[..], b" after"].concat();
        assert!(search.found(&bytes).contains(&what.as_str()), "{what}");
        assert!(
            search.found(&bytes[..bytes.len() - 7]).is_empty() || form.len() < 8,
            "{what}"
        );
    }
    // In base64 of something longer, wherever it begins.
    for before in 0..9 {
        let longer = [&b"012345678"[..before], value.as_bytes(), b" and more"].concat();
        for text in [
            STANDARD_NO_PAD.encode(&longer),
            URL_SAFE_NO_PAD.encode(&longer),
        ] {
            assert!(
                !search.found(text.as_bytes()).is_empty(),
                "{before}: {text}"
            );
        }
    }
    assert!(search.found(b"nothing of it").is_empty());
    let home = tempfile::tempdir().expect("a directory");
    fs::create_dir(home.path().join("deep")).expect("writable");
    fs::write(
        home.path().join("deep/file"),
        [&[0, 1, 2][..], value.as_bytes()].concat(),
    )
    .expect("writable");
    let found = search.in_files(home.path(), &|_| false);
    assert!(found[0].contains("deep/file: "), "{found:?}");
    assert_eq!(
        search.in_files(home.path(), &|_| true),
        Vec::<String>::new()
    );
}
