//! Several nodes on one store: what a node keeps of its cluster, how it comes in, and what it knows of
//! the others.
//!
//! | part | what |
//! |---|---|
//! | `place` | the files of a node: which cluster, its certificate, the secret |
//! | `registrar` | makes clusters and tokens, lets nodes join and leave |
//! | `members` | the nodes, their sessions and the leader, as the store says |
//! | `presence` | the session of this node, and whether it leads |
//! | `peers` | asks other nodes |
//! | `reports` | what other nodes say that they measured |
//! | `calls` | the services at zero that other nodes have requests for |

mod calls;
mod etcd;
mod members;
mod peers;
mod place;
mod presence;
mod registrar;
mod reports;

pub(crate) use {
    calls::Calls,
    etcd::{files as etcd_files, open as open_etcd},
    members::{Members, Roster},
    peers::Peers,
    place::{ClusterError, ClusterFile, Place},
    presence::{Departure, Presence, Standing},
    registrar::{
        Found, Registrar, RegistrarError, hand_over, make_secrets_key, newcomer, take_along,
    },
    reports::Reports,
};
