//! What a store has of the nodes that share it.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::Boot;
use crate::name::Name;

/// The version of what these records say to nodes: one that knows only an earlier one stays out.
pub const CLUSTER_SCHEMA: u32 = 1;

/// The key of a record of a cluster. They are not objects of apps, and no part of the mirror of those.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterKey {
    /// [`Cluster`], of which there is one.
    Cluster,
    /// [`Node`]
    Node(Name),
    /// [`NodeSession`], in the session of the node.
    Session(Name),
    /// [`Leader`], of which there is one at most, in the session of the node that leads.
    Leader,
    /// [`JoinToken`], by its number.
    Token(String),
    /// [`VolumeKeeper`], by app and volume.
    Volume(Name, Name),
}

impl ClusterKey {
    /// Where the keys of nodes begin.
    pub const NODES: &str = "/nodes/";
    /// Where the keys of the nodes' sessions begin.
    pub const SESSIONS: &str = "/sessions/";
    /// Where the keys of tokens begin.
    pub const TOKENS: &str = "/tokens/";
    /// Where the keys of volumes begin.
    pub const VOLUMES: &str = "/volumes/";

    /// Reads what `Display` writes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let name = |text: &str| Name::parse(text).ok();
        match text {
            "/cluster" => Some(Self::Cluster),
            "/leader" => Some(Self::Leader),
            _ => None,
        }
        .or_else(|| Some(Self::Node(name(text.strip_prefix(Self::NODES)?)?)))
        .or_else(|| Some(Self::Session(name(text.strip_prefix(Self::SESSIONS)?)?)))
        .or_else(|| {
            let (app, volume) = text.strip_prefix(Self::VOLUMES)?.split_once('/')?;
            Some(Self::Volume(name(app)?, name(volume)?))
        })
        .or_else(|| {
            let id = text.strip_prefix(Self::TOKENS)?;
            let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let is_id = !id.is_empty() && id.bytes().all(digit);
            is_id.then(|| Self::Token(id.to_owned()))
        })
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("/cluster"),
            Self::Leader => f.write_str("/leader"),
            Self::Node(name) => write!(f, "{}{name}", Self::NODES),
            Self::Session(name) => write!(f, "{}{name}", Self::SESSIONS),
            Self::Token(id) => write!(f, "{}{id}", Self::TOKENS),
            Self::Volume(app, volume) => write!(f, "{}{app}/{volume}", Self::VOLUMES),
        }
    }
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its number, which is random.
    pub id: String,
    /// The certificate of its authority, as PEM.
    pub ca: String,
    /// The key of the authority, sealed with the secret of the cluster, in base64.
    pub sealed_key: String,
    /// What version its records have.
    pub schema: u32,
}

/// A node of a cluster, whether it runs or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What is wanted of it.
    pub spec: NodeSpec,
    /// What is known of it.
    pub status: NodeStatus,
}

/// What is wanted of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// What it is called by beside its name.
    pub labels: BTreeMap<String, String>,
    /// Since when it takes no more pods, because a user said so, in milliseconds since the beginning
    /// of 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned_ms: Option<u64>,
    /// Whether its pods are to run elsewhere, too: it is cordoned then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Where it listens for other nodes.
    pub address: SocketAddr,
    /// Its version of Sampan, when it ran last.
    pub version: String,
    /// When it joined, in milliseconds since the beginning of 1970.
    pub joined_ms: u64,
    /// What it has room for, as its last run found.
    #[serde(default, skip_serializing_if = "Capacity::is_unknown")]
    pub capacity: Capacity,
}

/// What a node has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Pods.
    pub pods: u32,
    /// Memory of pods, in bytes.
    pub memory: u64,
    /// Thousandths of a core.
    pub cpu_millis: u64,
}

impl Capacity {
    /// Whether the node has not run in a version that says it.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// A node that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSession {
    /// Which run of it this is.
    pub boot: Boot,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
    /// When it began, in milliseconds since the beginning of 1970.
    pub since_ms: u64,
    /// Whether it is about to end: its pods are to run elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
}

/// Where a volume of an app is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeKeeper {
    /// The node that keeps it: pods that mount the volume run there.
    pub node: Name,
}

/// The node that plans for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub node: Name,
    /// Which run of it.
    pub boot: Boot,
}

/// What is kept of a token for joining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The digest of its number and its secret, in hex.
    pub hash: String,
    /// When it ends, in milliseconds since the beginning of 1970.
    pub until_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let b = Name::parse("b").expect("a name");
        for (key, text) in [
            (ClusterKey::Cluster, "/cluster"),
            (ClusterKey::Node(b.clone()), "/nodes/b"),
            (ClusterKey::Session(b.clone()), "/sessions/b"),
            (ClusterKey::Leader, "/leader"),
            (ClusterKey::Token("0af9".to_owned()), "/tokens/0af9"),
            (
                ClusterKey::Volume(b.clone(), Name::parse("data").expect("a name")),
                "/volumes/b/data",
            ),
        ] {
            assert_eq!(key.to_string(), text);
            assert_eq!(ClusterKey::parse(text), Some(key));
            assert_eq!(crate::record::Key::parse(text), None, "{text} is no object");
        }
        for bad in [
            "",
            "/",
            "/nodes/",
            "/nodes/B",
            "/cluster/x",
            "/tokens/",
            "/tokens/../x",
            "/volumes/b",
            "/volumes/b/data/x",
            "/apps/b",
        ] {
            assert_eq!(ClusterKey::parse(bad), None, "{bad}");
        }
    }
}
