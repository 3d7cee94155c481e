//! Request ids and W3C trace context (level 2).

use std::fmt;

use http::HeaderValue;

/// The longest `X-Request-Id` taken from a client, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id of a request: 1 to 128 visible ASCII characters. Cheap to clone, also into a header. The
/// runtime, which knows no header and writes the id beside lines of logs, has it as a text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id a client sent, if it is 1 to 128 visible ASCII characters.
    pub fn accept(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let fits = (1..=MAX_REQUEST_ID_BYTES).contains(&bytes.len());
        (fits && bytes.iter().all(u8::is_ascii_graphic)).then(|| Self(value.clone()))
    }

    /// A new id: 128 random bits as 32 lower-case hex digits.
    pub fn random() -> Self {
        let text = format!("{:032x}", fastrand::u128(..));
        Self(HeaderValue::try_from(text).expect("hex digits are a field value"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0
            .to_str()
            .expect("only visible ASCII characters get in")
    }

    pub(crate) fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A `traceparent` of version 00: <https://www.w3.org/TR/trace-context-2/#traceparent-header>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

impl TraceParent {
    /// Bytes of the text form.
    const LEN: usize = 55;
    /// The flag that says the caller may have recorded the trace.
    const SAMPLED: u8 = 1;
    /// The flag that says the trace id is random.
    const RANDOM: u8 = 2;

    /// The root of a new trace: random ids, the random flag set, not sampled.
    pub fn random() -> Self {
        Self {
            trace_id: fastrand::u128(1..),
            parent_id: fastrand::u64(1..),
            flags: Self::RANDOM,
        }
    }

    /// Reads a `traceparent`. A version above 00 is read as far as version 00 goes, as the
    /// standard asks. `None` if it is invalid.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let head = text.get(..Self::LEN)?;
        let version = parse_hex(&head[..2])?;
        match version {
            0xff => return None,
            0 if text.len() != Self::LEN => return None,
            _ => {}
        }
        if text.get(Self::LEN).is_some_and(|&next| next != b'-') {
            return None;
        }
        if [head[2], head[35], head[52]] != [b'-'; 3] {
            return None;
        }
        let trace_id = parse_hex(&head[3..35])?;
        let parent_id = u64::try_from(parse_hex(&head[36..52])?).ok()?;
        let flags = u8::try_from(parse_hex(&head[53..55])?).ok()?;
        let flags = flags & (Self::SAMPLED | Self::RANDOM);
        (trace_id != 0 && parent_id != 0).then_some(Self {
            trace_id,
            parent_id,
            flags,
        })
    }

    /// The same trace and flags with a new parent id.
    pub fn child(self) -> Self {
        Self {
            parent_id: fastrand::u64(1..),
            ..self
        }
    }

    /// The id of the whole trace.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The id of the span that sends this `traceparent`.
    pub fn parent_id(self) -> u64 {
        self.parent_id
    }

    /// Whether the caller may have recorded the trace.
    pub fn sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    pub(crate) fn to_header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("hex and hyphens are a field value")
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent, flags) = (self.trace_id, self.parent_id, self.flags);
        write!(f, "00-{trace:032x}-{parent:016x}-{flags:02x}")
    }
}

/// Reads at most 32 lower-case hex digits.
fn parse_hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |value: u128, &c| {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_good_traceparent_round_trips() {
        for text in [
            GOOD,
            "00-00000000000000000000000000000001-0000000000000001-03",
        ] {
            assert_eq!(
                TraceParent::parse(text.as_bytes()).expect(text).to_string(),
                text
            );
        }
        let random = TraceParent::random();
        assert_eq!(
            TraceParent::parse(random.to_string().as_bytes()),
            Some(random)
        );
        assert!(random.to_string().ends_with("-02"));
    }

    #[test]
    fn a_child_keeps_trace_and_flags() {
        let parent = TraceParent::parse(GOOD.as_bytes()).expect("good");
        let child = parent.child();
        assert_eq!(
            (child.trace_id(), child.sampled()),
            (parent.trace_id(), true)
        );
        assert_ne!(child.parent_id(), parent.parent_id());
    }

    #[test]
    fn a_later_version_is_read_as_version_00_and_unknown_flags_are_dropped() {
        for text in [
            GOOD.replacen("00", "cc", 1),
            GOOD.replacen("00", "01", 1) + "-what=ever",
        ] {
            assert_eq!(
                TraceParent::parse(text.as_bytes())
                    .expect(&text)
                    .to_string(),
                GOOD
            );
        }
        let flags = GOOD.replace("-01", "-ff");
        assert!(
            TraceParent::parse(flags.as_bytes())
                .expect("good")
                .to_string()
                .ends_with("-03")
        );
    }

    #[test]
    fn a_bad_traceparent_is_refused() {
        let long = format!("{GOOD}-");
        let tail = GOOD.replacen("00", "01", 1) + "x";
        for text in [
            "",
            "00",
            &GOOD[..54],
            &long,
            &tail,
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &GOOD.replace("b7", "g7"),
            &GOOD.replace("01", "é"),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_request_id_is_visible_ascii() {
        for good in ["a", "A-1_{}~\"\\", &"x".repeat(128)] {
            let value = HeaderValue::from_str(good).expect("a field value");
            let id = RequestId::accept(&value).expect(good);
            assert_eq!((id.as_str(), id.to_header()), (good, value));
        }
        for bad in ["", "a b", "a\tb", "é", &"x".repeat(129)] {
            let value = HeaderValue::from_bytes(bad.as_bytes()).expect("a field value");
            assert_eq!(RequestId::accept(&value), None, "{bad}");
        }
        let random = RequestId::random();
        assert_eq!(random.as_str().len(), 32);
        assert!(
            random
                .as_str()
                .bytes()
                .all(|c| b"0123456789abcdef".contains(&c))
        );
        assert_ne!(random, RequestId::random());
    }
}
