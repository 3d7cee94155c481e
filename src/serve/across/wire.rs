//! How nodes say to one another what they have, what is asked, and how it went.

use std::{collections::BTreeMap, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::InvalidHeaderValue};
use sampan_core::{fault::Fault, name::ServiceKey};
use sampan_gateway::{Offer, RequestContext, RequestId, TraceParent};
use serde::{Deserialize, Serialize};

/// Where a node opens the stream of what another one has.
pub(super) const ENDPOINTS: &str = "/peer/endpoints";
/// Where a node asks for a slot.
pub(super) const RESERVE: &str = "/peer/reserve";

/// A request that has come over one node. No request comes over two.
pub(super) const HOP: HeaderName = HeaderName::from_static("sampan-hop");
/// The service that it is for.
const SERVICE: HeaderName = HeaderName::from_static("sampan-service");
/// The client that it is from.
const CLIENT: HeaderName = HeaderName::from_static("sampan-client");
/// The slot that is reserved for it.
const RESERVATION: HeaderName = HeaderName::from_static("sampan-reservation");
/// In the place of an answer: the fault, and whether the request may be repeated.
const ERROR: HeaderName = HeaderName::from_static("sampan-error");
const REPEATABLE: &str = "; repeatable";

/// What a node says: all that has changed of its services.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Line {
    /// Ready pods, requests that these take at once, and how many more now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    services: BTreeMap<String, [u32; 3]>,
}

impl Line {
    pub(super) fn set(&mut self, service: &ServiceKey, offer: Offer) {
        let numbers = [offer.ready, offer.capacity, offer.free];
        self.services.insert(service.to_string(), numbers);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// What it says of services whose names are names.
    pub(super) fn offers(self) -> impl Iterator<Item = (ServiceKey, Offer)> {
        let services = self.services.into_iter();
        services.filter_map(|(service, [ready, capacity, free])| {
            let offer = Offer {
                ready,
                capacity,
                free,
            };
            Some((ServiceKey::parse(&service).ok()?, offer))
        })
    }
}

/// What a request says for the other node, beside what its pod is to see.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) service: ServiceKey,
    pub(super) reservation: Option<u64>,
    pub(super) context: RequestContext,
}

/// Says in the fields of a request what the other node is to know.
pub(super) fn ask(
    headers: &mut HeaderMap,
    service: &ServiceKey,
    client: Option<SocketAddr>,
    reservation: Option<u64>,
) -> Result<(), InvalidHeaderValue> {
    take_out(headers);
    headers.insert(HOP, HeaderValue::from_static("1"));
    headers.insert(SERVICE, HeaderValue::from_str(&service.to_string())?);
    if let Some(client) = client {
        headers.insert(CLIENT, HeaderValue::from_str(&client.to_string())?);
    }
    if let Some(reservation) = reservation {
        headers.insert(RESERVATION, reservation.into());
    }
    Ok(())
}

/// Says the same of a request for a slot, which no pod gets.
pub(super) fn ask_for_slot(
    headers: &mut HeaderMap,
    service: &ServiceKey,
) -> Result<(), InvalidHeaderValue> {
    ask(headers, service, None, None)?;
    headers.remove(HOP);
    Ok(())
}

/// What the fields of a request of another node say, which its pod does not see.
pub(super) fn asked(headers: &mut HeaderMap) -> Option<Asked> {
    let service = ServiceKey::parse(text(headers, &SERVICE)?).ok()?;
    let mut context = RequestContext::fresh();
    context.client = text(headers, &CLIENT).and_then(|text| text.parse().ok());
    let id = headers.get("x-request-id").and_then(RequestId::accept);
    if let Some(id) = id {
        context.request_id = id;
    }
    let trace = headers.get("traceparent").map(HeaderValue::as_bytes);
    if let Some(trace) = trace.and_then(TraceParent::parse) {
        context.traceparent = trace;
    }
    let reservation = text(headers, &RESERVATION).map(str::parse);
    let reservation = reservation.transpose().ok()?;
    take_out(headers);
    Some(Asked {
        service,
        reservation,
        context,
    })
}

fn take_out(headers: &mut HeaderMap) {
    for name in [HOP, SERVICE, CLIENT, RESERVATION] {
        headers.remove(name);
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Says how a request failed.
pub(super) fn fail(headers: &mut HeaderMap, fault: Fault, repeatable: bool) {
    let said = format!("{fault}{}", if repeatable { REPEATABLE } else { "" });
    let said = HeaderValue::from_str(&said).expect("a word is visible ASCII");
    headers.insert(ERROR, said);
}

/// How a request failed, and whether it may be repeated, if the answer says that it failed. A fault
/// that is not known here is one of a later version.
pub(super) fn failed(headers: &HeaderMap) -> Option<(Fault, bool)> {
    let said = text(headers, &ERROR)?;
    let (word, repeatable) = match said.strip_suffix(REPEATABLE) {
        Some(word) => (word, true),
        None => (said, false),
    };
    Some((Fault::parse(word).unwrap_or(Fault::NoResponse), repeatable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_arrives_and_no_pod_sees_it() {
        let service = ServiceKey::parse("shop/web").expect("a key");
        let client = SocketAddr::from(([192, 0, 2, 1], 4711));
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("r1"));
        // What a client has got past the gateway is not believed.
        headers.insert(RESERVATION, HeaderValue::from_static("7"));
        ask(&mut headers, &service, Some(client), None).expect("names");
        let asked = asked(&mut headers).expect("it says all");
        assert_eq!((asked.service, asked.reservation), (service, None));
        assert_eq!(asked.context.client, Some(client));
        assert_eq!(asked.context.request_id.as_str(), "r1");
        assert_eq!(headers.len(), 1, "{headers:?}");
    }

    #[test]
    fn a_failure_arrives() {
        for (fault, repeatable) in [(Fault::TimedOut, true), (Fault::Unavailable, false)] {
            let mut headers = HeaderMap::new();
            assert_eq!(failed(&headers), None);
            fail(&mut headers, fault, repeatable);
            assert_eq!(failed(&headers), Some((fault, repeatable)));
        }
        let later = [(ERROR, HeaderValue::from_static("Later"))];
        let later = failed(&later.into_iter().collect());
        assert_eq!(later, Some((Fault::NoResponse, false)));
    }

    #[test]
    fn a_line_says_what_has_changed() {
        let mut line = Line::default();
        assert_eq!(serde_json::to_string(&line).expect("JSON"), "{}");
        let (web, offer) = (
            ServiceKey::parse("shop/web").expect("a key"),
            Offer {
                ready: 1,
                capacity: 8,
                free: 3,
            },
        );
        line.set(&web, offer);
        let text = serde_json::to_string(&line).expect("JSON");
        assert_eq!(text, r#"{"services":{"shop/web":[1,8,3]}}"#);
        let read: Line = serde_json::from_str(&text).expect("a line");
        assert_eq!(read.offers().collect::<Vec<_>>(), [(web, offer)]);
    }
}
