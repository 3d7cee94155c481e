//! File descriptors of this process: how many connections the gateway and the API may have, so that
//! neither takes those of the other.
//!
//! Each has a share that it cannot exceed, and the shares together leave a quarter for everything
//! else: the database, components, compilers, what guests open and whom they call.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most connections at each of the two entrances of the API, its socket and its port.
const MAX_API_CONNECTIONS: usize = 128;
/// As far as the limit of the system is raised: more than a node can use.
const ENOUGH: u64 = 1 << 20;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// At the gateway.
    pub(super) gateway: usize,
    /// At each entrance of the API.
    pub(super) api: usize,
}

impl Shares {
    /// The shares of a gateway that is to have so many connections, after this process's limit has
    /// been raised as far as it goes.
    pub(super) fn take(connections: usize) -> Self {
        let total = raise();
        let shares = Self::of(total, connections);
        if shares.gateway < connections {
            let Self { gateway, .. } = shares;
            tracing::warn!(
                "`gateway.connections` is {connections}, but with {total} file descriptors there \
                 are at most {gateway}; raise the hard limit (`ulimit -Hn`)"
            );
        }
        shares
    }

    fn of(total: usize, connections: usize) -> Self {
        Self {
            gateway: connections.min(total / 8 * 5).max(1),
            api: (total / 16).clamp(2, MAX_API_CONNECTIONS),
        }
    }
}

/// Raises the soft limit on descriptors, and says what it is now.
fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        // Where that is forbidden the limit stays as it is, which is read below.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH);
    usize::try_from(current).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_and_the_api_leave_a_quarter_for_everything_else() {
        for total in (64..5000).chain([65_536, 1 << 20]) {
            for wanted in [1, 100, 10_000, 1_000_000] {
                let Shares { gateway, api } = Shares::of(total, wanted);
                assert!((1..=wanted).contains(&gateway));
                assert!((2..=MAX_API_CONNECTIONS).contains(&api));
                assert!(gateway + 2 * api <= total / 4 * 3 + 3, "{total} {wanted}");
            }
        }
    }

    #[test]
    fn what_is_configured_is_had_where_it_fits() {
        let all = Shares::of(1 << 20, 10_000);
        let (gateway, api) = (10_000, MAX_API_CONNECTIONS);
        assert_eq!(all, Shares { gateway, api });
        let few = Shares::of(1024, 10_000);
        assert_eq!(
            few,
            Shares {
                gateway: 640,
                api: 64
            }
        );
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let total = raise() as u64;
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(ENOUGH);
        assert!(total >= most.min(ENOUGH));
    }
}
