//! Answers of guests that no client can be sent, and what is wrong with them.

use http::{HeaderMap, Response, StatusCode, header::CONTENT_LENGTH};

/// The longest head of an answer: clients and proxies refuse longer ones, most of them far shorter
/// ones, and do not say why.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// What stands around a header's name and value.
const HEADER_BYTES: usize = ": \r\n".len();

/// Why this head cannot be sent, if so.
pub(super) fn fault<B>(response: &Response<B>) -> Option<String> {
    let status = response.status();
    if status.is_informational() {
        return Some(format!(
            "the status {} announces another answer, and there is none; answer with one from 200 on",
            status.as_u16()
        ));
    }
    let headers = response.headers().iter();
    let bytes: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES)
        .sum();
    (bytes > MAX_HEAD_BYTES).then(|| {
        format!(
            "its headers have {bytes} bytes, of which clients take {} KiB at most; send what is \
             long in the body",
            MAX_HEAD_BYTES >> 10
        )
    })
}

/// How many bytes of body a head has promised.
#[derive(Debug)]
pub(super) struct Promise {
    of: u64,
    sent: u64,
}

impl Promise {
    /// What the head says, if a body of that length is to follow.
    pub(super) fn of<B>(response: &Response<B>, is_head: bool) -> Option<Self> {
        let has_body = !is_head
            && response.status() != StatusCode::NO_CONTENT
            && response.status() != StatusCode::NOT_MODIFIED;
        let of = length(response.headers()).filter(|_| has_body)?;
        Some(Self { of, sent: 0 })
    }

    /// Counts a part of the body. An error says what is wrong with it.
    pub(super) fn sent(&mut self, bytes: usize) -> Result<(), String> {
        self.sent = self.sent.saturating_add(bytes as u64);
        match self.sent <= self.of {
            true => Ok(()),
            false => Err(self.broken("is longer")),
        }
    }

    /// The body is over. An error says what is wrong with that.
    pub(super) fn over(&self) -> Result<(), String> {
        match self.sent == self.of {
            true => Ok(()),
            false => Err(self.broken(&format!("ends after {}", self.sent))),
        }
    }

    fn broken(&self, how: &str) -> String {
        format!(
            "its `content-length` is {} bytes, and the body {how}; leave the header out, and the \
             host writes it",
            self.of
        )
    }
}

/// The one length that the headers name, if they do.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (first, second) = (lengths.next()?, lengths.next());
    let text = first.to_str().ok().filter(|_| second.is_none())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, name: &str, value: &str) -> Response<()> {
        let response = Response::builder().status(status).header(name, value);
        response.body(()).expect("a response")
    }

    #[test]
    fn heads_that_cannot_be_sent_are_told() {
        let long = "x".repeat(MAX_HEAD_BYTES);
        let short = "x".repeat(MAX_HEAD_BYTES - 8);
        for (response, why) in [
            (response(100, "a", "b"), Some("the status 100 announces")),
            (response(103, "link", "x"), Some("the status 103 announces")),
            (
                response(200, "a", &long),
                Some("its headers have 65541 bytes"),
            ),
            (response(200, "a", &short), None),
            (response(204, "a", "b"), None),
            (response(599, "a", "b"), None),
        ] {
            let fault = fault(&response);
            match (&fault, why) {
                (None, None) => {}
                (Some(fault), Some(why)) => assert!(fault.contains(why), "{fault}"),
                _ => panic!("{fault:?}, not {why:?}"),
            }
        }
    }

    #[test]
    fn bodies_that_are_not_as_long_as_promised_are_told() {
        let promise = |status, value: &str, is_head| {
            Promise::of(&response(status, "content-length", value), is_head)
        };
        let mut five = promise(200, "5", false).expect("a promise");
        assert_eq!(five.sent(3), Ok(()));
        let short = five.over().expect_err("too short");
        assert!(
            short.contains("is 5 bytes, and the body ends after 3"),
            "{short}"
        );
        assert_eq!(five.sent(2), Ok(()));
        assert_eq!(five.over(), Ok(()));
        let long = five.sent(1).expect_err("too long");
        assert!(long.contains("the body is longer"), "{long}");
        // No body is to follow, or the head does not say how long it is.
        for (status, value, is_head) in [
            (200, "5", true),
            (204, "5", false),
            (304, "5", false),
            (200, "five", false),
        ] {
            assert!(
                promise(status, value, is_head).is_none(),
                "{status} {value}"
            );
        }
    }
}
