//! The configuration of a node: limits that hold for everything that runs on it.
//!
//! It is a TOML file like a spec, read with the same strictness. What it does not say has the
//! defaults of `raw::node`, which are in force without a file too.

use std::path::PathBuf;

use serde_json::Value as Json;

pub use super::raw::node::{CompileLimits, GatewayLimits, GuestLimits, KeyValueLimits, LogLimits};
use super::{
    Problems, parse,
    problem::{Place, Report},
    raw::{
        decode::Decoder,
        node::{self as raw, Plain as _},
    },
    schema,
};
use crate::plan::quota::{Quota, Usage};

/// What a node decides for everything that runs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Limits on clients.
    pub gateway: GatewayLimits,
    /// Limits on guests that hold whatever their spec says.
    pub guest: GuestLimits,
    /// Limits on compiling one component.
    pub compile: CompileLimits,
    /// Limits on key-value stores.
    pub keyvalue: KeyValueLimits,
    /// What is kept of what guests print.
    pub logs: LogLimits,
    /// How much there may be of what is applied to the node.
    pub quota: Quota,
    /// Directories in and below which guests may be lent directories.
    pub volumes: Vec<PathBuf>,
    /// Pods that run on the node at most, where it is one of several.
    pub pods: u32,
    /// Bytes that pods may reserve there, if not what the machine has.
    pub memory: Option<u64>,
}

impl Default for Node {
    fn default() -> Self {
        plain(&raw::defaults())
    }
}

impl Default for Quota {
    fn default() -> Self {
        quota(&raw::defaults())
    }
}

/// Parses and checks the configuration of a node. `path` is the file's name, for messages;
/// `environment` looks up variables, for `${NAME}`.
///
/// # Errors
///
/// All problems of the file.
pub fn load(
    path: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Node, Problems> {
    let mut decoder = Decoder::new(environment, Report::new(path, text));
    let node = parse::parse(text, &mut decoder.report)
        .map(|root| plain(&raw::Node::from_table(&root, Place::root(), &mut decoder)));
    decoder.report.finish(node)
}

/// The JSON Schema of a node's configuration, draft 2020-12.
pub fn json_schema() -> Json {
    schema::of::<raw::Node>("node.toml")
}

fn plain(raw: &raw::Node) -> Node {
    Node {
        gateway: GatewayLimits::from(&raw.gateway),
        guest: GuestLimits::from(&raw.guest),
        compile: CompileLimits::from(&raw.compile),
        keyvalue: KeyValueLimits::from(&raw.keyvalue),
        logs: LogLimits::from(&raw.logs),
        quota: quota(&raw.quota),
        volumes: raw.node.volumes.plain(),
        pods: raw.node.pods.value.0,
        memory: raw.node.memory.as_ref().map(|memory| memory.value.0.0),
    }
}

fn quota(raw: &raw::Quota) -> Quota {
    Quota {
        node: Usage {
            apps: raw.apps.value.0.into(),
            services: raw.services.value.0.into(),
            jobs: raw.jobs.value.0.into(),
            pods: raw.pods.value.0.into(),
            memory: raw.memory.value.0.0,
        },
        app: Usage {
            apps: 1,
            services: raw.app.services.value.0.into(),
            jobs: raw.app.jobs.value.0.into(),
            pods: raw.app.pods.value.0.into(),
            memory: raw.app.memory.value.0.0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Node, String> {
        super::load("node.toml", text, &|_| None).map_err(|problems| problems.to_plain())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(load(""), Ok(Node::default()));
        let node = load("[gateway]\nhead = '64KiB'\n[guest]\nlog_rate = '2MiB'\n");
        let node = node.expect("a good file");
        assert_eq!(node.gateway.header_bytes, 64 << 10);
        assert_eq!(node.gateway.headers, GatewayLimits::default().headers);
        assert_eq!(node.guest.log_rate, 2 << 20);
        assert_eq!(node.compile.address_space_bytes, 2 << 30);
        let node = load("[quota]\npods = 7\napp.pods = 3\n").expect("a good file");
        assert_eq!((node.quota.node.pods, node.quota.app.pods), (7, 3));
        assert_eq!(node.quota.node.services, Quota::default().node.services);
    }

    #[test]
    fn every_value_has_a_bound_on_both_sides() {
        for (good, bad) in [
            ("[gateway]\nhead = '8KiB'", "[gateway]\nhead = '8191B'"),
            ("[gateway]\nhead = '1MiB'", "[gateway]\nhead = '1025KiB'"),
            ("[gateway]\nfields = 1", "[gateway]\nfields = 0"),
            (
                "[gateway]\nconnections = 1000000",
                "[gateway]\nconnections = 1000001",
            ),
            ("[gateway]\ndrain = '0s'", "[gateway]\nidle_timeout = '0s'"),
            ("[guest]\nhandles = 1", "[guest]\nhandles = -1"),
            ("[guest]\ncoredump = '4GiB'", "[guest]\ncoredump = '5GiB'"),
            ("[guest]\nhostcall = '1GiB'", "[guest]\nhostcall = '2GiB'"),
            ("[compile]\ncpu = '1s'", "[compile]\ncpu = '999ms'"),
            ("[keyvalue]\nkey = '64KiB'", "[keyvalue]\nkey = '65KiB'"),
            ("[keyvalue]\nbytes = '1KiB'", "[keyvalue]\nbytes = '1B'"),
            ("[logs]\nbytes = '1MiB'", "[logs]\nbytes = '1023KiB'"),
            ("[logs]\nkeep = '1s'", "[logs]\nkeep = '999ms'"),
            ("[quota]\npods = 10000000", "[quota]\npods = 10000001"),
            ("[quota]\napps = 1\njobs = 0", "[quota]\napps = 0"),
            (
                "[quota.app]\nservices = 3000",
                "[quota.app]\nservices = 3001",
            ),
            (
                "[quota]\napp = { memory = '1024TiB' }",
                "[quota]\nmemory = '1023KiB'",
            ),
            (
                "[compile]\nmemory = '256MiB'",
                "[compile]\nmemory = '255MiB'",
            ),
        ] {
            assert!(load(good).is_ok(), "{good}");
            assert!(load(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_a_remedy() {
        let said = load("[gateway]\nconections = 5\n[guest]\nhandles = 'many'\n");
        let said = said.expect_err("two problems");
        for part in [
            "node.toml:2:1",
            "unknown key `conections`",
            "did you mean `connections`?",
            "node.toml:4",
            "`many`",
        ] {
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
    }

    #[test]
    fn proxies_are_named_one_by_one_or_by_network() {
        let node = load(
            "[gateway]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"2001:db8::/32\", \"::ffff:192.0.2.1\"]\n",
        );
        let proxies = node.expect("it is good").gateway.trusted_proxies;
        let proxies: Vec<_> = proxies.iter().map(ToString::to_string).collect();
        assert_eq!(
            proxies,
            [
                "127.0.0.1/32",
                "10.0.0.0/8",
                "2001:db8::/32",
                "192.0.2.1/32"
            ]
        );
        assert!(GatewayLimits::default().trusted_proxies.is_empty());
        for (text, part) in [
            ("\"10.0.0.1/8\"", "write \"10.0.0.0/8\""),
            ("\"0.0.0.0/0\"", "every address there is"),
            ("\"::/0\"", "every address there is"),
            ("\"localhost\"", "no IP address and no network"),
            ("\"10.0.0.0/33\"", "no IP address and no network"),
            ("\"\"", "no IP address and no network"),
            ("7", "an address or a network"),
        ] {
            let said = load(&format!("[gateway]\ntrusted_proxies = [{text}]\n")).unwrap_err();
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
    }
}
