//! Equal paths and hosts as one text: RFC 3986, section 6.2.2.
//!
//! Routing compares what these functions return. Otherwise a request could pass by the service that
//! guards a prefix: `/%61dmin` and `/x/../admin` are `/admin` for a guest that decodes its path.

use std::{borrow::Cow, net::Ipv6Addr};

/// A path in its normal form, so that equal paths are equal texts.
///
/// Percent-encoded unreserved characters are decoded, other percent-encodings have upper-case
/// digits, and what may not stand in a path is percent-encoded, also a `%` that encodes nothing.
/// Then the parts `.` and `..` are resolved. Slashes stay as they are: `//` is not `/`, and `%2F`
/// is none. A text that does not begin with `/` is no path and stays as it is.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    if !path.starts_with('/') || is_plain(path.as_bytes()) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(without_dots(&normal_escapes(path)))
}

/// Whether a path is certainly in its normal form, found in one pass.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        if !is_path_byte(byte) || after_slash && byte == b'.' {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

/// A host in its normal form: without a final dot, lower case, an IPv6 address in the form of
/// RFC 5952, and percent-encoded unreserved characters decoded.
pub fn normal_host(host: &str) -> Cow<'_, str> {
    if let Some(inside) = host.strip_prefix('[') {
        let address = inside.strip_suffix(']').unwrap_or(inside);
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Cow::Owned(format!("[{address}]")),
            Err(_) => Cow::Borrowed(host),
        };
    }
    let is_plain = !host
        .bytes()
        .any(|byte| byte.is_ascii_uppercase() || byte == b'%');
    if is_plain {
        return Cow::Borrowed(host.strip_suffix('.').unwrap_or(host));
    }
    // Only the hex digits of an encoding that stays become lower case with the rest.
    let mut plain = normal_escapes(host).to_ascii_lowercase();
    if plain.ends_with('.') {
        plain.pop();
    }
    Cow::Owned(plain)
}

/// The byte that a `%` and two hex digits at the start of a text stand for.
pub(crate) fn escaped_byte(text: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// The text with each character either unescaped or escaped, never both ways.
pub(crate) fn normal_escapes(text: &str) -> String {
    let mut rest = text.as_bytes();
    let mut normal = String::with_capacity(text.len());
    while let [first, after @ ..] = rest {
        let (byte, stays) = match escaped_byte(rest) {
            Some(byte) => (byte, is_unreserved(byte)),
            None => (*first, is_path_byte(*first)),
        };
        rest = match escaped_byte(rest) {
            Some(_) => &rest[3..],
            None => after,
        };
        if stays {
            normal.push(char::from(byte));
        } else {
            normal.push_str(&format!("%{byte:02X}"));
        }
    }
    normal
}

/// RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut parts = Vec::new();
    let mut given = path.split('/').skip(1).peekable();
    while let Some(part) = given.next() {
        if part == ".." {
            parts.pop();
        }
        match part {
            // What stands for a directory ends with a slash.
            "." | ".." if given.peek().is_none() => parts.push(""),
            "." | ".." => {}
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Unreserved characters of RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a path as itself: RFC 3986, section 3.3.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_paths_have_one_form() {
        for (path, normal) in [
            ("/", "/"),
            ("*", "*"),
            ("", ""),
            ("/a/b/", "/a/b/"),
            ("/%61", "/a"),
            ("/%7Euser/%2d%2E%5f", "/~user/-._"),
            ("/%2f%2F", "/%2F%2F"),
            ("/a%3ab%2a", "/a%3Ab%2A"),
            ("/%25", "/%25"),
            ("/%2561", "/%2561"),
            ("/%", "/%25"),
            ("/%6", "/%256"),
            ("/%%36%31", "/%2561"),
            ("/{id}", "/%7Bid%7D"),
            ("/a\\b|c", "/a%5Cb%7Cc"),
            ("/ä", "/%C3%A4"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../..", "/"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/../b", "/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e", "/"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
            ("//", "//"),
            ("/...", "/..."),
            ("/.well-known", "/.well-known"),
            ("/a..", "/a.."),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
        }
    }

    #[test]
    fn equal_hosts_have_one_form() {
        for (host, normal) in [
            ("shop.localhost", "shop.localhost"),
            ("Shop.LOCALHOST.", "shop.localhost"),
            ("sh%6Fp.localhost%2E", "shop.localhost"),
            ("a%20b", "a%20b"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8::0:1]", "[2001:db8::1]"),
            ("[x]", "[x]"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(normal_host(host), normal, "{host}");
        }
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec("(/|\\.|%2[eEfF5]|%6[1-9a-fA-F]|%|[a-c:*{~]|ä|\\PC)", 0..16)
            .prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(path in path(), host in "([a-zA-Z.%\\[\\]:0-9]|%[24][eE1]){0,12}") {
            let once = normal_path(&path);
            prop_assert_eq!(normal_path(&once), once.as_ref());
            let is_dots = |part: &str| matches!(part, "." | "..");
            prop_assert!(once.starts_with('/') && !once.split('/').any(is_dots), "{}", once);
            let once = normal_host(&host);
            // Of several dots at the end one is taken each time, and such a host is no name.
            prop_assume!(!once.ends_with('.'));
            prop_assert_eq!(normal_host(&once), once.as_ref());
        }

        #[test]
        fn an_unreserved_character_is_the_same_escaped(path in path(), at in any::<prop::sample::Index>()) {
            let at = at.index(path.len());
            prop_assume!(path.is_char_boundary(at));
            let Some(c) = path[..at].chars().next_back().filter(|&c| is_unreserved(c as u8) && c.is_ascii()) else {
                return Ok(());
            };
            // The digits of an escape are no characters of their own.
            prop_assume!(!path[..at].bytes().rev().skip(1).take(2).any(|byte| byte == b'%'));
            let escaped = format!("{}%{:02x}{}", &path[..at - 1], c as u32, &path[at..]);
            prop_assert_eq!(normal_path(&escaped), normal_path(&path));
        }
    }
}
