//! Our keys among those of an etcd: all below one prefix.

use std::sync::Arc;

use super::message::KeyValue;
use crate::value::{Entry, Key, Revision, SessionId};

/// What keys begin with in etcd, and not in the store.
#[derive(Debug)]
pub(super) struct Space(String);

impl Space {
    pub(super) fn new(prefix: &str) -> Arc<Self> {
        Arc::new(Self(prefix.to_owned()))
    }

    /// A key in etcd.
    pub(super) fn inside(&self, key: &str) -> Vec<u8> {
        let mut inside = Vec::with_capacity(self.0.len() + key.len());
        inside.extend_from_slice(self.0.as_bytes());
        inside.extend_from_slice(key.as_bytes());
        inside
    }

    /// The range of all keys that begin so: the first one, and the one after the last.
    pub(super) fn below(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let first = self.inside(prefix);
        let mut end = first.clone();
        // Text has no byte of 255, and the prefix of all is not empty.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        (first, end)
    }

    /// A key as the store has it. `None` if it is not one of ours, or no text.
    pub(super) fn key(&self, inside: &[u8]) -> Option<Key> {
        let key = inside.strip_prefix(self.0.as_bytes())?;
        Some(std::str::from_utf8(key).ok()?.into())
    }

    /// An entry as the store has it.
    pub(super) fn entry(&self, kv: KeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.key(&kv.key)?,
            value: kv.value,
            created: Revision(kv.create_revision.cast_unsigned()),
            modified: Revision(kv.mod_revision.cast_unsigned()),
            session: (kv.lease != 0).then(|| SessionId(kv.lease.cast_unsigned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_behind_the_last_key_that_begins_so() {
        let space = Space::new("/sampan");
        let (first, end) = space.below("/pods/");
        assert_eq!(
            (&first[..], &end[..]),
            (&b"/sampan/pods/"[..], &b"/sampan/pods0"[..])
        );
        let (first, end) = space.below("\u{10ffff}");
        let last = space.inside("\u{10ffff}\u{10ffff}");
        assert!(first < last && last < end);
        assert!(space.inside("\u{10ffff}") < end);
        assert_eq!(space.key(b"/other"), None);
        assert_eq!(space.key(b"/sampan/\xff"), None);
        assert_eq!(space.key(b"/sampan/a").as_deref(), Some("/a"));
    }
}
