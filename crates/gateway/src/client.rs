//! Which client an address belongs to, and what one client may have of the slots of a service.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};

use crate::forwarded::is_trusted;

/// The client at an address: an IPv4 address, or the /64 of an IPv6 address, because a client with
/// one address of a network has all 2⁶⁴.
///
/// `None` for those which no limit for a client holds for: trusted proxies, and loopback, which all
/// programs of this machine share, with a proxy in front of Sampan perhaps among them.
pub(crate) fn of(address: IpAddr, proxies: &[IpNet]) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() || is_trusted(address, proxies) => None,
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Some(IpAddr::V6(Ipv6Addr::from_bits(network)))
        }
        address => Some(address),
    }
}

/// How many of so many slots a share of so many percent is: one at least, if there is one.
pub(crate) fn share_of(slots: u64, percent: u32) -> u64 {
    (slots * u64::from(percent)).div_ceil(100)
}

/// Locks among which the clients of a service are spread, so that their requests do not wait for
/// each other.
const SHARDS: usize = 16;

/// How many slots of a service each client has.
#[derive(Debug, Default)]
pub(crate) struct Shares([Mutex<HashMap<IpAddr, u32>>; SHARDS]);

impl Shares {
    /// Notes one slot more for a client, if `may` agrees to that many.
    pub(crate) fn take(&self, client: Option<IpAddr>, may: impl FnOnce(u32) -> bool) -> bool {
        let Some(client) = client else {
            return true;
        };
        let mut held = self.shard(client);
        let count = held.get(&client).map_or(1, |count| count + 1);
        let is_taken = may(count);
        if is_taken {
            held.insert(client, count);
        }
        is_taken
    }

    /// Whether `may` agrees to one slot more for a client.
    pub(crate) fn could_take(&self, client: Option<IpAddr>, may: impl FnOnce(u32) -> bool) -> bool {
        client.is_none_or(|client| {
            let count = self.shard(client).get(&client).map_or(1, |count| count + 1);
            may(count)
        })
    }

    pub(crate) fn give_back(&self, client: Option<IpAddr>) {
        let Some(client) = client else {
            return;
        };
        let mut held = self.shard(client);
        match held.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&client)),
        }
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // The end of a network says more than its beginning.
        let end = match client {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u32,
        };
        let shard = &self.0[end as usize % SHARDS];
        shard.lock()
    }

    /// Whether no client has a slot.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|shard| shard.lock().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up() {
        for (places, percent, share) in [
            (0, 50, 0),
            (1, 50, 1),
            (1, 1, 1),
            (2, 50, 1),
            (3, 50, 2),
            (64, 50, 32),
            (64, 100, 64),
            (u64::from(u32::MAX), 100, u64::from(u32::MAX)),
        ] {
            assert_eq!(share_of(places, percent), share, "{percent}% of {places}");
        }
    }

    #[test]
    fn each_client_has_its_own_share_and_gives_it_back() {
        let shares = Shares::default();
        let [one, other] = [1, 2].map(|n| Some(IpAddr::from([192, 0, 2, n])));
        let at_most_two = |count| count <= 2;
        assert!(shares.take(one, at_most_two) && shares.take(one, at_most_two));
        assert!(!shares.take(one, at_most_two) && !shares.could_take(one, at_most_two));
        assert!(shares.take(other, at_most_two));
        assert!(shares.take(None, |_| false), "loopback has no limit");
        shares.give_back(one);
        assert!(shares.could_take(one, at_most_two));
        for client in [one, other, None] {
            shares.give_back(client);
        }
        assert!(shares.is_empty());
    }
}
