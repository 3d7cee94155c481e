//! Which addresses a granted name opens.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http_body_util::{BodyExt as _, Empty};
use tokio::net::TcpListener;

use super::*;
use crate::host::addresses::tests::SPECIAL;

/// Asks for `http://HOST:PORT/` and tells whether the client connected to the listener behind PORT.
async fn ask(lookup: Lookup, host: &str) -> (Error, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let request = http::Request::get(format!("http://{host}:{port}/"))
        .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
        .expect("a request");
    let client = Client::with_lookup(lookup);
    let mut sent = std::pin::pin!(client.send(request, |_| {}));
    tokio::select! {
        result = &mut sent => (result.expect_err("no server answers"), false),
        connection = listener.accept() => {
            // Closed at once: the request fails.
            drop(connection);
            (sent.await.expect_err("no server answers"), true)
        }
    }
}

fn loopback(_: Name) -> Addresses {
    let addresses = ["127.0.0.1:0", "[::1]:0"].map(|text| text.parse().expect("an address"));
    Box::pin(std::future::ready(Ok(addresses.to_vec())))
}

fn private(_: Name) -> Addresses {
    let addresses = ["10.0.0.1:0", "169.254.169.254:0"].map(|text| text.parse().expect("good"));
    Box::pin(std::future::ready(Ok(addresses.to_vec())))
}

fn nothing(_: Name) -> Addresses {
    Box::pin(std::future::ready(Ok(Vec::new())))
}

#[tokio::test]
async fn a_public_name_that_resolves_to_an_inner_address_is_denied() {
    for lookup in [loopback as Lookup, private] {
        let (error, connected) = ask(lookup, "public.example").await;
        assert!(matches!(error, Error::HttpRequestDenied), "{error:?}");
        assert!(!connected);
    }
}

/// The first time a public address, and an inner one from then on.
fn rebinding(_: Name) -> Addresses {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let text = match ASKED.fetch_add(1, Relaxed) {
        0 => "8.8.8.8:0",
        _ => "127.0.0.1:0",
    };
    let address = text.parse().expect("an address");
    Box::pin(std::future::ready(Ok(vec![address])))
}

fn mixed(_: Name) -> Addresses {
    let addresses = ["127.0.0.1:0", "8.8.8.8:0", "[::1]:0"];
    let addresses = addresses.map(|text| text.parse().expect("an address"));
    Box::pin(std::future::ready(Ok(addresses.to_vec())))
}

/// What a connection may be made to. Nothing is connected here: the addresses are real ones.
async fn checked(lookup: Lookup) -> io::Result<Vec<String>> {
    use tower_service::Service as _;
    let name = "public.example".parse().expect("a name");
    let addresses = CheckedResolver(lookup).call(name).await?;
    Ok(addresses.map(|address| address.to_string()).collect())
}

#[tokio::test]
async fn a_name_that_changes_its_mind_or_has_two_minds_gains_nothing() {
    assert_eq!(checked(mixed).await.expect("one"), ["8.8.8.8:0"]);
    // Each lookup is checked, and its connection is made to what was checked.
    assert_eq!(checked(rebinding).await.expect("one"), ["8.8.8.8:0"]);
    let error = checked(rebinding).await.expect_err("none is left");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn localhost_opens_loopback_and_nothing_else() {
    for name in ["localhost", "LOCALHOST"] {
        let (error, connected) = ask(loopback, name).await;
        assert!(connected, "{name}: {error:?}");
    }
    let (error, _) = ask(private, "localhost").await;
    assert!(matches!(error, Error::HttpRequestDenied), "{error:?}");
}

#[tokio::test]
async fn an_address_needs_no_lookup_and_an_unknown_name_has_none() {
    let (_, connected) = ask(nothing, "127.0.0.1").await;
    assert!(connected);
    let (error, _) = ask(nothing, "absent.example").await;
    assert!(matches!(error, Error::DnsError { .. }), "{error:?}");
}

thread_local! {
    /// Where the name leads.
    static LEADS_TO: std::cell::RefCell<Vec<SocketAddr>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn leads(_: Name) -> Addresses {
    Box::pin(std::future::ready(Ok(LEADS_TO.with_borrow(Clone::clone))))
}

/// By both schemes.
#[tokio::test]
async fn dns_that_answers_any_special_address_opens_nothing_and_says_where_it_leads() {
    for text in SPECIAL {
        let address: IpAddr = text.parse().expect("an address");
        LEADS_TO.set(vec![(address, 0).into()]);
        for scheme in ["http", "https"] {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = http::Request::get(format!("{scheme}://public.example/")).body(body);
            let mut told = None;
            let client = Client::with_lookup(leads);
            let sent = client.send(request.expect("a request"), |address| told = Some(address));
            let error = sent.await.expect_err("no server answers");
            assert!(
                matches!(error, Error::HttpRequestDenied),
                "{text}: {error:?}"
            );
            assert_eq!(told, Some(address));
        }
    }
}
