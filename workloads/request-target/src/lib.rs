//! Takes apart the request target of an HTTP request: the path and the query, percent-decoded.
//!
//! Enough for these guests, in a few kilobytes of WebAssembly; a real service would use the crate `url`.

/// The path and query of a request, from the origin form of
/// [RFC 9112, section 3.2.1](https://www.rfc-editor.org/rfc/rfc9112#section-3.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The path, percent-decoded, with its leading `/`.
    pub path: String,
    /// The pairs of the query in their order, percent-decoded, `+` read as a space.
    pub query: Vec<(String, String)>,
}

impl Target {
    /// Reads `path?query`. Returns `None` if a `%` is not followed by two hexadecimal digits
    /// or if what results is not UTF-8: such a request deserves a 400.
    pub fn parse(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(key, true)?, decode(value, true)?))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            path: decode(path, false)?,
            query,
        })
    }

    /// The first value of `key` in the query.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of `key` in the query as a number, `default` if the query has none.
    /// Returns `None` if it is there and is not a number: such a request deserves a 400.
    pub fn number(&self, key: &str, default: u64) -> Option<u64> {
        self.value(key)
            .map_or(Some(default), |value| value.parse().ok())
    }
}

fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn path_and_query_are_taken_apart_and_decoded() {
        let target = Target::parse("/a%2Fb+c?text=x+y%21&n=5&flag&text=z").unwrap();
        assert_eq!(target.path, "/a/b+c");
        assert_eq!(target.value("text"), Some("x y!"));
        assert_eq!(target.value("flag"), Some(""));
        assert_eq!(target.value("absent"), None);
        assert_eq!(target.number("n", 1), Some(5));
        assert_eq!(target.number("m", 1), Some(1));
        assert_eq!(target.number("text", 1), None);
    }

    #[test]
    fn broken_escapes_are_refused() {
        for target in ["/%", "/%4", "/%zz", "/%ff", "/?a=%", "/?%+=1"] {
            assert_eq!(Target::parse(target), None, "{target}");
        }
    }
}
