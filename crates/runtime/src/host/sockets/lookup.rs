//! Lookups of names: what a guest may look up, and which of the addresses it is shown.
//!
//! The system's resolver cannot be stopped once a thread is in it. So the room of a lookup goes with
//! that thread, and not with the guest that waits: a guest that drops lookups has no more threads
//! than one that waits for them.

use std::{net::IpAddr, pin::Pin, sync::Arc};

use wasmtime_wasi::runtime::spawn_blocking;

use super::{Dialler, Permits, Sockets};

/// The longest name that the domain name system has, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// The reason why a lookup has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    Denied,
    /// The pod or the node has as many sockets and lookups as it may have.
    NoRoom,
    NoName,
    Unresolved,
}

pub(super) type Addresses = Result<Vec<IpAddr>, Failed>;
/// A lookup that has begun, and ends with the addresses that the guest may see.
pub(super) type Lookup = Pin<Box<dyn Future<Output = Addresses> + Send>>;

impl Sockets {
    /// Begins a lookup, unless it is refused.
    pub(super) fn look_up(&self, name: &str) -> Result<Lookup, Failed> {
        if !self.dialler.may_look_up(name) {
            return Err(Failed::Denied);
        }
        let permits = self.room().ok_or(Failed::NoRoom)?;
        let dialler = Arc::clone(&self.dialler);
        begin(dialler, name, permits)
    }
}

fn begin(dialler: Arc<Dialler>, name: &str, permits: Permits) -> Result<Lookup, Failed> {
    let literal = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let shown = |dialler: &Dialler, name: &str, mut addresses: Vec<IpAddr>| {
        addresses.retain(|address| dialler.show(name, *address));
        addresses
    };
    if let Ok(address) = literal.unwrap_or(name).parse::<IpAddr>() {
        let addresses = shown(&dialler, name, vec![address]);
        return Ok(Box::pin(std::future::ready(Ok(addresses))));
    }
    let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(part_of_name) {
        return Err(Failed::NoName);
    }
    let (name, ask) = (name.to_owned(), dialler.ask);
    let asked = {
        let name = name.clone();
        // From here on, and not only once it is polled.
        spawn_blocking(move || {
            let found = ask(&name);
            drop(permits);
            found
        })
    };
    Ok(Box::pin(async move {
        let found = asked.await.map_err(|error| {
            tracing::debug!(name, %error, "a guest's lookup found nothing");
            Failed::Unresolved
        })?;
        Ok(shown(&dialler, &name, found))
    }))
}

#[cfg(test)]
mod tests;
