//! The bytes of an HTTP/1 connection on their way to hyper, read along for what hyper does not tell.
//!
//! A request that says its length in two ways, with `Content-Length` and with `Transfer-Encoding`, is
//! for hyper a chunked one: it drops the length, as RFC 9112 §6.3 allows, and nothing behind it can see
//! that there were two. And a `Content-Length` that is no number of 64 bits hyper answers by itself,
//! with the status of a head that is too large. So each head is looked at here before.
//!
//! [`Wire`] follows only what is well formed, line by line. At everything else it looks no further:
//! hyper refuses that and closes the connection, so no request comes behind it. What it finds is only
//! ever a reason to refuse; how a request is framed is hyper's word alone.

/// Bytes of a line that are kept. No field that matters here is longer.
const MAX_LINE: usize = 256;
/// Digits of a number that surely fits into 64 bits.
const SAFE_DIGITS: usize = 18;
/// How the connection of a client begins that speaks HTTP/2.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// What comes next on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A line of a head.
    Head(Head),
    /// So many bytes of a body, or of a chunk and the end of its line.
    Bytes { left: u64, is_chunk: bool },
    /// The line with the size of a chunk.
    ChunkSize,
    /// A line behind the last chunk.
    Trailer,
    /// What is of no interest any more.
    Blind,
}

/// What a head has said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    begun: bool,
    length: Option<u64>,
    is_coded: bool,
}

/// The client's side of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    at: At,
    /// The beginning of a line of which the end has not come yet.
    line: Vec<u8>,
    /// Heads that have ended.
    heads: u64,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self {
            at: At::Head(Head::default()),
            line: Vec::new(),
            heads: 0,
        }
    }

    /// Looks at what has come in. Returns the number of the request, counted from 1, that says its
    /// length in two ways; none comes behind it. A length with more digits than a number of 64 bits
    /// becomes the largest that hyper hands on: larger than any service allows.
    pub(super) fn read(&mut self, mut bytes: &mut [u8]) -> Option<u64> {
        while !bytes.is_empty() {
            match self.at {
                At::Blind => return None,
                At::Bytes { left, is_chunk } => {
                    let taken = left.min(bytes.len() as u64);
                    self.at = match (left - taken, is_chunk) {
                        (0, true) => At::ChunkSize,
                        (0, false) => At::Head(Head::default()),
                        (left, is_chunk) => At::Bytes { left, is_chunk },
                    };
                    bytes = &mut bytes[taken as usize..];
                }
                At::Head(_) | At::ChunkSize | At::Trailer => {
                    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                        self.keep(bytes);
                        return None;
                    };
                    let (line, rest) = bytes.split_at_mut(end + 1);
                    bytes = rest;
                    if self.line.is_empty() {
                        self.line_ended(line);
                    } else {
                        self.keep(line);
                        let mut line = std::mem::take(&mut self.line);
                        self.line_ended(&mut line);
                        line.clear();
                        self.line = line;
                    }
                    if let At::Head(Head {
                        is_coded: true,
                        length: Some(_),
                        ..
                    }) = self.at
                    {
                        self.at = At::Blind;
                        return Some(self.heads + 1);
                    }
                }
            }
        }
        None
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line_ended(&mut self, line: &mut [u8]) {
        let end = line.trim_ascii_end().len();
        let is_whole = line.ends_with(b"\n");
        let line = &mut line[..end];
        self.at = match self.at {
            At::Head(head) if line.is_empty() => self.head_ended(head),
            At::Head(head) if head.begun => field(head, line, is_whole),
            At::Head(head) if !line.starts_with(H2_PREFACE) => At::Head(Head {
                begun: true,
                ..head
            }),
            At::ChunkSize => match chunk_size(line) {
                Some(0) => At::Trailer,
                // Behind its bytes the line ends.
                Some(size) => At::Bytes {
                    left: size.saturating_add(2),
                    is_chunk: true,
                },
                None => At::Blind,
            },
            At::Trailer if line.is_empty() => At::Head(Head::default()),
            At::Trailer => At::Trailer,
            At::Head(_) | At::Bytes { .. } | At::Blind => At::Blind,
        };
    }

    fn head_ended(&mut self, head: Head) -> At {
        // Empty lines before a request are none of it: RFC 9112 §2.2.
        if !head.begun {
            return At::Head(head);
        }
        self.heads += 1;
        match (head.is_coded, head.length) {
            (true, _) => At::ChunkSize,
            (false, None | Some(0)) => At::Head(Head::default()),
            (false, Some(left)) => At::Bytes {
                left,
                is_chunk: false,
            },
        }
    }
}

/// The head with this field. A line that is not `whole` has been cut off.
fn field(mut head: Head, line: &mut [u8], is_whole: bool) -> At {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return At::Blind;
    };
    let (name, value) = line.split_at_mut(colon);
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        head.is_coded = true;
    } else if name.eq_ignore_ascii_case(b"content-length") {
        match length(&mut value[1..]) {
            Some(length) if is_whole => head.length = Some(length),
            _ => return At::Blind,
        }
    }
    At::Head(head)
}

/// The value of a `Content-Length`. One that is too large to be counted is made smaller.
fn length(value: &mut [u8]) -> Option<u64> {
    let blanks = value.len() - value.trim_ascii_start().len();
    let digits = &mut value[blanks..];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    if digits.len() - zeros > SAFE_DIGITS {
        let (high, low) = digits.split_at_mut(digits.len() - SAFE_DIGITS);
        high.fill(b'0');
        low.fill(b'9');
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The size of a chunk: RFC 9112 §7.1.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, given all at once and byte by byte, and what hyper gets of the first.
    fn read(text: &str) -> (Option<u64>, String) {
        let mut bytes = text.as_bytes().to_vec();
        let found = Wire::new().read(&mut bytes);
        let mut wire = Wire::new();
        let piecewise = text.bytes().find_map(|byte| wire.read(&mut [byte]));
        assert_eq!(found, piecewise, "{text}");
        (found, String::from_utf8(bytes).expect("text"))
    }

    const TWO: &str = "POST / HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn two_lengths_are_found_wherever_they_are() {
        for (before, number) in [
            ("", 1),
            ("\r\n\r\n", 1),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
            ("GET / HTTP/1.1\nHost: a\n\n", 2),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 2),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 2),
            ("POST / HTTP/1.1\r\ncontent-length:3 \r\n\r\n\n\n\n", 2),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nx: y\r\n\r\n",
                2,
            ),
            (
                "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                4,
            ),
        ] {
            assert_eq!(read(&format!("{before}{TWO}")).0, Some(number), "{before}");
        }
        let other_way =
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nX: y\r\nCONTENT-LENGTH: 0\r\n\r\n";
        assert_eq!(read(other_way).0, Some(1));
    }

    #[test]
    fn what_is_no_head_is_none() {
        for text in [
            "POST / HTTP/1.1\r\nContent-Length: 90\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5a\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "no colon HTTP/1.1\r\nnone\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nG\r\n",
        ] {
            assert_eq!(read(&format!("{text}{TWO}")).0, None, "{text}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n{TWO}", "x".repeat(10_000));
        assert_eq!(read(&long).0, Some(2));
    }

    #[test]
    fn a_length_that_cannot_be_counted_is_one_that_no_service_allows() {
        let head = |length: &str| format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        for (length, passed) in [
            ("0", "0"),
            ("999999999999999999", "999999999999999999"),
            ("1000000000000000000", "0999999999999999999"),
            ("18446744073709551615", "00999999999999999999"),
            ("18446744073709551616", "00999999999999999999"),
            ("000000000000000000000001", "000000000000000000000001"),
            ("-1", "-1"),
            ("0x5", "0x5"),
            ("1, 1", "1, 1"),
        ] {
            assert_eq!(read(&head(length)), (None, head(passed)));
        }
    }
}
