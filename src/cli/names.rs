//! Names of apps and services, of what is named otherwise.

use std::{fs, path::Path};

use sampan_core::name::{MAX_NAME_BYTES, Name};

/// The name of the directory as that of an app, as far as it can be one.
pub(super) fn app_name(directory: &Path) -> Name {
    let path = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    named(&name).unwrap_or_else(|| Name::parse("app").expect("the name is a constant"))
}

/// The name that is nearest to a text, if there is anything in it that can be in a name.
pub(super) fn named(text: &str) -> Option<Name> {
    let fit = |letter: char| match letter.to_ascii_lowercase() {
        letter if letter.is_ascii_alphanumeric() => letter,
        _ => '-',
    };
    let name: String = text.chars().map(fit).take(MAX_NAME_BYTES).collect();
    Name::parse(name.trim_matches('-')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_name_to_the_app() {
        for (text, name) in [
            ("shop", Some("shop")),
            ("My Shop_2", Some("my-shop-2")),
            ("_private_", Some("private")),
            ("…", None),
        ] {
            assert_eq!(named(text).as_ref().map(Name::as_str), name, "{text}");
        }
    }
}
