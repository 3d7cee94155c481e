//! A leaf that is a network: one address, or all addresses that begin alike.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use schemars::Schema;

use super::{
    leaf::{Leaf, Refusal, Scalar, Wanted},
    schema::text,
};
use crate::spec::problem::quoted;

/// Addresses of this machine's neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(pub(crate) IpNet);

impl Leaf for Network {
    fn wanted() -> Wanted {
        Wanted::new(
            "an address or a network",
            "write an IP address, as in \"192.0.2.7\", or a network, as in \"10.0.0.0/8\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let Ok(network) = text.parse::<IpNet>() else {
            let message = format!("{} is no IP address and no network", quoted(text));
            return Err(Refusal::value(message));
        };
        if network.prefix_len() == 0 {
            let message = format!("{} is every address there is", quoted(text));
            let hint =
                "name the addresses of the proxies: what all others say would be believed too";
            return Err(Refusal::with_hint(message, hint));
        }
        if network.trunc() != network {
            let message = format!(
                "{} has bits after the first {}",
                quoted(text),
                network.prefix_len()
            );
            let hint = format!("write \"{}\"", network.trunc());
            return Err(Refusal::with_hint(message, hint));
        }
        Ok(Self(network))
    }

    fn schema() -> Schema {
        text(
            "network",
            "^[0-9a-fA-F:.]+(/[0-9]+)?$",
            &["192.0.2.7", "10.0.0.0/8", "2001:db8::/32"],
        )
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
