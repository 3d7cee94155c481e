//! What guests print: a bounded ring of lines that never makes a guest wait.

mod bucket;
mod hidden;
mod pod;
mod ring;

use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use bucket::TokenBucket;
pub(crate) use hidden::Hidden;
pub use pod::{MAX_BURST_NOTES, MAX_NOTES_A_SECOND};
pub(crate) use pod::{Note, PodLog};
pub use ring::{Batch, Level, Line, MAX_LINE_BYTES, MAX_RING_BYTES, Ring, Stream};

/// Cuts what a guest writes into lines.
#[derive(Debug)]
pub(crate) struct LineWriter {
    log: Arc<PodLog>,
    stream: Stream,
    request: Arc<CurrentRequest>,
    partial: Mutex<Vec<u8>>,
}

/// The request an instance is answering, when there is exactly one.
#[derive(Debug, Default)]
pub(crate) struct CurrentRequest(Mutex<Option<Arc<str>>>);

impl CurrentRequest {
    pub(crate) fn set(&self, request: Option<Arc<str>>) {
        *self.0.lock() = request;
    }

    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.0.lock().clone()
    }
}

impl LineWriter {
    pub(crate) fn new(log: Arc<PodLog>, stream: Stream, request: Arc<CurrentRequest>) -> Self {
        Self {
            log,
            stream,
            request,
            partial: Mutex::default(),
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut partial = self.partial.lock();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for chunk in text.chunks(MAX_LINE_BYTES) {
                partial.extend_from_slice(chunk);
                while partial.len() > MAX_LINE_BYTES {
                    let fits = last_boundary(&partial[..MAX_LINE_BYTES]);
                    let fits = self.log.hidden.cut(&partial, fits);
                    let rest = partial.split_off(fits);
                    self.emit(&partial, true);
                    *partial = rest;
                }
            }
            if ends {
                // A line may end as on Windows; elsewhere the character is shown.
                self.emit(partial.strip_suffix(b"\r").unwrap_or(&partial), false);
                partial.clear();
            }
        }
    }

    fn emit(&self, text: &[u8], partial: bool) {
        self.log
            .print(self.stream, self.request.get(), text, partial);
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        let partial = std::mem::take(self.partial.get_mut());
        if !partial.is_empty() {
            self.emit(&partial, false);
        }
    }
}

/// The length of the bytes without the first part of a character at their end.
fn last_boundary(text: &[u8]) -> usize {
    /// All of the longest character but its last byte.
    const MAX_CUT_BYTES: usize = 3;
    let is_cut = |at: &usize| {
        let rest = std::str::from_utf8(&text[*at..]);
        rest.is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    let from = text.len().saturating_sub(MAX_CUT_BYTES);
    (from..text.len()).find(is_cut).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use sampan_core::name::{PodName, ServiceKey};

    use super::*;

    fn writer(ring: &Arc<Ring>) -> LineWriter {
        let pod = PodName::new(&ServiceKey::parse("shop/web").expect("a key"), 1, 0);
        let log = PodLog::new(ring, pod, &Arc::default(), 1 << 20, &Arc::default());
        LineWriter::new(log, Stream::Stdout, Arc::default())
    }

    fn texts(batch: &Batch) -> Vec<&str> {
        batch.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn writes_become_lines_and_the_last_needs_no_end() {
        let ring = Arc::new(Ring::default());
        let writer = writer(&ring);
        for piece in ["one\ntw", "o\r\n\nthr", "ee"] {
            writer.write(piece.as_bytes());
        }
        drop(writer);
        assert_eq!(texts(&ring.read(0, 10)), ["one", "two", "", "three"]);
        assert_eq!(texts(&ring.read(2, 1)), [""]);
    }

    #[test]
    fn a_line_and_the_ring_are_bounded() {
        let ring = Arc::new(Ring::default());
        let writer = writer(&ring);
        writer.write(&vec![b'x'; MAX_LINE_BYTES * 2 + 1]);
        drop(writer);
        let lengths: Vec<_> = ring
            .read(0, 10)
            .lines
            .iter()
            .map(|line| line.text.len())
            .collect();
        assert_eq!(lengths, [MAX_LINE_BYTES, MAX_LINE_BYTES, 1]);
        let partial = ring.read(0, 10).lines.into_iter().map(|line| line.partial);
        assert_eq!(partial.collect::<Vec<_>>(), [true, true, false]);

        // Each by another pod, because one of them may not print so much.
        for _ in 0..400 {
            self::writer(&ring).write(&[&[b'y'; MAX_LINE_BYTES - 1][..], b"\n"].concat());
        }
        let batch = ring.read(0, usize::MAX);
        assert!(batch.missed > 200, "{}", batch.missed);
        assert_eq!(batch.missed + batch.lines.len() as u64, 403);
        assert!(batch.lines.len() * MAX_LINE_BYTES <= MAX_RING_BYTES + MAX_LINE_BYTES);
    }

    #[test]
    fn all_that_was_printed_is_there() {
        let ring = Arc::new(Ring::default());
        let writer = writer(&ring);
        for piece in [
            &b"50 %\r100 %\r\n"[..],
            b"nul \0 and bell \x07\n",
            b"caf\xe9 \xf0\x9f\n",
            b"in two \xe2",
            b"\x82\xac\n",
            b"no end\r",
        ] {
            writer.write(piece);
        }
        drop(writer);
        assert_eq!(
            texts(&ring.read(0, 10)),
            [
                "50 %\r100 %",
                "nul \0 and bell \x07",
                "caf\\xe9 \\xf0\\x9f",
                "in two €",
                "no end\r"
            ]
        );
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_loses_nothing() {
        for before in 0..4 {
            for euro in ["€", "ä", "🎉", "\u{301}"] {
                let ring = Arc::new(Ring::default());
                let writer = writer(&ring);
                let text = "x".repeat(before) + &euro.repeat(MAX_LINE_BYTES / 2);
                for piece in text.as_bytes().chunks(7000 + before) {
                    writer.write(piece);
                }
                drop(writer);
                let lines = ring.read(0, usize::MAX).lines;
                let longest = lines.iter().map(|line| line.text.len()).max();
                assert!(longest <= Some(MAX_LINE_BYTES));
                let whole: String = lines.iter().map(|line| line.text.as_str()).collect();
                assert_eq!(whole, text);
                let last = lines.iter().position(|line| !line.partial);
                assert_eq!(last, Some(lines.len() - 1));
            }
        }
    }

    #[test]
    fn a_tail_is_of_one_pod_and_as_long_as_asked() {
        let ring = Arc::new(Ring::default());
        let pod = PodName::new(&ServiceKey::parse("shop/api").expect("a key"), 1, 0);
        let log = PodLog::new(
            &ring,
            pod.clone(),
            &Arc::default(),
            1 << 20,
            &Arc::default(),
        );
        let api = LineWriter::new(log, Stream::Stdout, Arc::default());
        for n in 0..10 {
            writer(&ring).write(format!("not {n}\n").as_bytes());
            api.write(format!("line {n}\n").as_bytes());
        }
        let texts = |bytes| -> Vec<_> {
            let tail = ring.tail(&pod, bytes);
            tail.into_iter().map(|line| line.text).collect()
        };
        assert_eq!(texts(14), ["line 8", "line 9"]);
        assert_eq!(texts(13), ["line 9"]);
        assert_eq!(texts(1000).len(), 10);
    }

    #[tokio::test]
    async fn a_follower_wakes_for_a_new_line() {
        let ring = Arc::new(Ring::default());
        let follow = tokio::spawn({
            let ring = Arc::clone(&ring);
            async move { ring.follow(0, 10).await }
        });
        tokio::task::yield_now().await;
        writer(&ring).write(b"hello\n");
        assert_eq!(texts(&follow.await.expect("no panic")), ["hello"]);
    }
}
