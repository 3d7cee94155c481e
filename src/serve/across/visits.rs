//! What other nodes ask of the gateway of this one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{Request, Response, Uri, Version, request::Parts};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use sampan_core::{fault::Fault, name::Name};
use sampan_gateway::{BodyError, Gateway, Reservation, Turned};
use sampan_peer::{Body, NotBegun, RequestBody, full};
use tokio::{runtime::Handle, sync::watch, time::sleep};

use super::{
    offers::Offers,
    wire::{self, Asked, ENDPOINTS, HOP, RESERVE},
};
use crate::cluster::{Departure, Members};

/// How long a slot is kept for a request that is to come.
const RESERVED: Duration = Duration::from_secs(2);

/// What other nodes may ask.
pub(crate) struct Visits {
    gateway: Gateway,
    offers: Arc<Offers>,
    reserved: Arc<Mutex<Reserved>>,
}

/// The slots that are kept, and for which node.
#[derive(Default)]
struct Reserved {
    next: u64,
    slots: HashMap<u64, (Name, Reservation)>,
}

impl Visits {
    pub(super) fn new(
        gateway: Gateway,
        members: Arc<Members>,
        departure: watch::Receiver<Departure>,
        control: Handle,
    ) -> Arc<Self> {
        let offers = Offers::new(gateway.clone(), members, departure, control);
        Arc::new(Self {
            gateway,
            offers,
            reserved: Arc::default(),
        })
    }

    /// Whether a request is for a pod. Another limit of its body holds then, which its service has.
    pub(crate) fn is_for_pod(head: &Parts) -> bool {
        head.headers.contains_key(HOP)
    }

    /// Whether a request is asked of the gateway.
    pub(crate) fn takes<T>(request: &Request<T>) -> bool {
        request.headers().contains_key(HOP) || [ENDPOINTS, RESERVE].contains(&request.uri().path())
    }

    /// Answers what is asked of the gateway.
    pub(crate) async fn answer(
        &self,
        caller: &Name,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, NotBegun> {
        let (mut head, body) = request.into_parts();
        let is_for_pod = Self::is_for_pod(&head);
        if !is_for_pod && head.uri.path() == ENDPOINTS {
            return Ok(Response::new(self.offers.stream(caller)));
        }
        let Some(asked) = wire::asked(&mut head.headers) else {
            return Ok(failure(Fault::BadRequest, false));
        };
        if !is_for_pod {
            return self.reserve(caller, &asked);
        }
        head.uri = origin(head.uri);
        head.version = Version::HTTP_11;
        let request = Request::from_parts(head, body);
        self.forwarded(caller, asked, request).await
    }

    /// Keeps a slot for a node, for a while.
    fn reserve(&self, caller: &Name, asked: &Asked) -> Result<Response<Body>, NotBegun> {
        let slot = self.slot(caller, asked)?;
        let mut reserved = self.reserved.lock();
        let id = reserved.next;
        reserved.next += 1;
        reserved.slots.insert(id, (caller.clone(), slot));
        drop(reserved);
        let reserved = Arc::clone(&self.reserved);
        tokio::spawn(async move {
            sleep(RESERVED).await;
            let late = reserved.lock().slots.remove(&id);
            drop(late);
        });
        Ok(Response::new(full(id.to_string())))
    }

    async fn forwarded(
        &self,
        caller: &Name,
        asked: Asked,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, NotBegun> {
        let slot = match asked.reservation {
            None => self.slot(caller, &asked)?,
            Some(id) => {
                let kept = self.reserved.lock().slots.remove(&id);
                match kept.filter(|(owner, _)| owner == caller) {
                    Some((_, slot)) => slot,
                    None => return Ok(failure(Fault::Unavailable, false)),
                }
            }
        };
        // The other node has gone, or its client has.
        let request = request.map(|body| body.map_err(|_| BodyError::ClientGone).boxed_unsync());
        match slot.answer(request, &asked.context).await {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(Turned::NotBegun) if asked.reservation.is_none() => {
                self.offers.owe(caller, &asked.service);
                Err(NotBegun)
            }
            // Its body is here, and nowhere else.
            Err(Turned::NotBegun) => Ok(failure(Fault::Unavailable, false)),
            Err(Turned::Failed {
                kind,
                repeatable,
                by,
            }) => {
                let mut response = failure(kind, repeatable);
                if let Some(by) = by {
                    by.say(response.headers_mut());
                }
                Ok(response)
            }
        }
    }

    /// A slot for a request now. A node that gets none is told when there is one.
    fn slot(&self, caller: &Name, asked: &Asked) -> Result<Reservation, NotBegun> {
        self.gateway.reserve(&asked.service).ok_or_else(|| {
            self.offers.owe(caller, &asked.service);
            NotBegun
        })
    }
}

/// The target as its client has sent it.
fn origin(uri: Uri) -> Uri {
    let target = uri.into_parts().path_and_query;
    target.map_or_else(Uri::default, Uri::from)
}

fn failure(fault: Fault, repeatable: bool) -> Response<Body> {
    let mut response = Response::new(sampan_peer::empty());
    wire::fail(response.headers_mut(), fault, repeatable);
    response
}
