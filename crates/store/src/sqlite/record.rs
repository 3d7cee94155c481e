//! How rows are checked, and how a transaction of the history is written down.
//!
//! Each row has a checksum of all that it says. SQLite notices damage to its own structure, but
//! not a bit that has flipped in a value.

use bytes::Bytes;
use crc32fast::Hasher;

use crate::value::{Batch, Change, Entry, Key, Revision};

/// What the first byte of a change says.
const DELETED: u8 = 0;
const PUT: u8 = 1;

/// The checksum of an entry.
pub(super) fn entry_sum(entry: &Entry) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&(entry.key.len() as u64).to_le_bytes());
    hasher.update(entry.key.as_bytes());
    hasher.update(&entry.created.0.to_le_bytes());
    hasher.update(&entry.modified.0.to_le_bytes());
    hasher.update(&entry.value);
    hasher.finalize()
}

/// What an entry adds to the sum of all, in which it counts whether it is in a session.
pub(super) fn weight(entry: &Entry) -> u64 {
    let session = entry
        .session
        .map_or(0, |_| crc32fast::hash(entry.key.as_bytes()));
    u64::from(entry_sum(entry)) + u64::from(session)
}

/// The checksum of a transaction of the history.
pub(super) fn batch_sum(revision: Revision, changes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&revision.0.to_le_bytes());
    hasher.update(changes);
    hasher.finalize()
}

/// The checksum of some numbers.
pub(super) fn numbers_sum(numbers: &[u64]) -> u32 {
    let mut hasher = Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize()
}

/// The changes of a transaction as bytes.
pub(super) fn encode(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in &batch.changes {
        bytes.push(match change.entry {
            None => DELETED,
            Some(_) => PUT,
        });
        encode_bytes(&mut bytes, change.key.as_bytes());
        if let Some(entry) = &change.entry {
            bytes.extend(entry.created.0.to_le_bytes());
            encode_bytes(&mut bytes, &entry.value);
        }
    }
    bytes
}

fn encode_bytes(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend((part.len() as u64).to_le_bytes());
    bytes.extend(part);
}

/// Reads what [`encode`] wrote; `None` if it is anything else.
pub(super) fn decode(revision: Revision, mut bytes: &[u8]) -> Option<Batch> {
    let mut changes = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        let key = decode_bytes(&mut bytes)?;
        let key: Key = std::str::from_utf8(key).ok()?.into();
        let entry = match *kind {
            DELETED => None,
            PUT => Some(Entry {
                key: key.clone(),
                created: Revision(decode_number(&mut bytes)?),
                modified: revision,
                value: Bytes::copy_from_slice(decode_bytes(&mut bytes)?),
                session: None,
            }),
            _ => return None,
        };
        changes.push(Change { key, entry });
    }
    (!changes.is_empty()).then_some(Batch { revision, changes })
}

fn decode_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn decode_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_number(bytes)?).ok()?;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let key: Key = "/ü".into();
        let entry = Entry {
            key: key.clone(),
            value: Bytes::from_static(b"\0\xff"),
            created: Revision(3),
            modified: Revision(7),
            session: None,
        };
        let put = Change {
            key,
            entry: Some(entry),
        };
        let deleted = Change {
            key: "/b".into(),
            entry: None,
        };
        Batch {
            revision: Revision(7),
            changes: vec![put, deleted],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(Revision(7), &encode(&batch())), Some(batch()));
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let bytes = encode(&batch());
        let first = 1 + 8 + 3 + 8 + 8 + 2;
        for length in (0..bytes.len()).filter(|length| *length != first) {
            assert_eq!(decode(Revision(7), &bytes[..length]), None, "{length}");
        }
        assert_eq!(decode(Revision(7), &[2; 40]), None);
        assert_eq!(decode(Revision(7), &[0xff; 40]), None);
    }

    #[test]
    fn every_bit_counts() {
        let bytes = encode(&batch());
        let sum = batch_sum(Revision(7), &bytes);
        assert_ne!(sum, batch_sum(Revision(6), &bytes));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum, batch_sum(Revision(7), &flipped), "bit {bit}");
        }
    }
}
