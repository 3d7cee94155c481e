//! How many connections each client has.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    Limits,
    client::{self, Shares},
};

/// Connections by client.
#[derive(Debug)]
pub(super) struct Clients {
    limit: usize,
    proxies: Vec<IpNet>,
    held: Shares,
}

/// One connection of a client, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    client: Option<IpAddr>,
}

impl Clients {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            limit: limits.connections_per_client,
            proxies: limits.trusted_proxies.clone(),
            held: Shares::default(),
        })
    }

    /// A place for one more connection of a client, if it may have one.
    pub(super) fn place(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = client::of(address, &self.proxies);
        let may = |count| count as usize <= self.limit;
        let clients = Arc::clone(self);
        let is_taken = self.held.take(client, may);
        is_taken.then(|| Place { clients, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.held.give_back(self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(connections_per_client: usize) -> Arc<Clients> {
        Clients::new(&Limits {
            connections_per_client,
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_has_so_many_and_gets_them_back() {
        let clients = clients(2);
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ] {
            let first = clients.place(ip(one)).expect("a place");
            let second = clients.place(ip(same)).expect("a place");
            assert!(clients.place(ip(one)).is_none());
            let elsewhere = clients.place(ip(other)).expect("a place");
            drop(first);
            drop(clients.place(ip(same)).expect("a place"));
            drop((second, elsewhere));
            assert!(clients.held.is_empty());
        }
    }

    #[test]
    fn loopback_and_trusted_proxies_have_no_limit() {
        let clients = clients(0);
        for address in [
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "::ffff:127.0.0.1",
            "10.1.2.3",
        ] {
            assert!(clients.place(ip(address)).is_some(), "{address}");
        }
        assert!(clients.place(ip("192.0.2.1")).is_none());
    }
}
