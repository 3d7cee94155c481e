//! Records that an earlier version has written: `stored.json` has them by their keys in the store.
//!
//! A line of it is never changed, only added: a line for each new field, enum variant and kind, with
//! what the version that brings it writes.

use std::collections::{BTreeMap, BTreeSet};

use sampan_core::record::{
    App, Job, Key, Kind, Pod, Revision, Secret, Service,
    cluster::{Cluster, ClusterKey, JoinToken, Leader, Node, NodeSession, VolumeKeeper},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const REMEDY: &str = "a record of an earlier version has to stay what it is: give the new field \
                      `#[serde(default, skip_serializing_if = …)]` with a default that means what \
                      was so without it, and leave `stored.json` as it is (`record.rs` says why)";

fn records() -> BTreeMap<String, Value> {
    serde_json::from_str(include_str!("stored.json")).expect("an object")
}

/// What this version makes of a record, which it has to write again just as it was.
fn read<T: DeserializeOwned + Serialize>(key: &str, written: &Value) -> T {
    let record: T = serde_json::from_value(written.clone())
        .unwrap_or_else(|error| panic!("`{key}` cannot be read: {error}; {REMEDY}"));
    let again = serde_json::to_value(&record).expect("plain data");
    assert_eq!(again, *written, "`{key}` is written as another; {REMEDY}");
    record
}

#[test]
fn what_an_earlier_version_has_stored_is_read_and_written_as_it_was() {
    let mut kinds = BTreeSet::new();
    let mut of_clusters = BTreeSet::new();
    for (text, written) in records() {
        if let Some(key) = ClusterKey::parse(&text) {
            match key {
                ClusterKey::Cluster => drop(read::<Cluster>(&text, &written)),
                ClusterKey::Node(_) => drop(read::<Node>(&text, &written)),
                ClusterKey::Session(_) => drop(read::<NodeSession>(&text, &written)),
                ClusterKey::Leader => drop(read::<Leader>(&text, &written)),
                ClusterKey::Token(_) => drop(read::<JoinToken>(&text, &written)),
                ClusterKey::Volume(..) => drop(read::<VolumeKeeper>(&text, &written)),
            }
            of_clusters.insert(text);
            continue;
        }
        let key = Key::parse(&text).unwrap_or_else(|| panic!("`{text}` is no key"));
        kinds.insert(key.kind());
        match key.kind() {
            Kind::App => drop(read::<App>(&text, &written)),
            Kind::Service => drop(read::<Service>(&text, &written)),
            Kind::Job => drop(read::<Job>(&text, &written)),
            Kind::Revision => {
                let revision: Revision = read(&text, &written);
                let hash = revision.template.hash();
                assert_eq!(
                    hash, revision.hash,
                    "the template of `{text}` has another hash than before, so that the next \
                     apply would replace all pods of all services; {REMEDY}, and the order of \
                     fields too"
                );
            }
            Kind::Pod => drop(read::<Pod>(&text, &written)),
            Kind::Secret => drop(read::<Secret>(&text, &written)),
        }
    }
    assert_eq!(kinds, BTreeSet::from(Kind::ALL));
    assert_eq!(of_clusters.len(), 8, "{of_clusters:?}");
}
