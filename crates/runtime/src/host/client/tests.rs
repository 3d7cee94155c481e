//! Which addresses a granted name opens.

use http_body_util::{BodyExt as _, Empty};
use tokio::net::TcpListener;

use super::*;

/// Asks for `http://HOST:PORT/` and tells whether somebody connected to the listener behind PORT.
async fn ask(lookup: Lookup, host: &str) -> (Error, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let request = http::Request::get(format!("http://{host}:{port}/"))
        .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
        .expect("a request");
    let client = Client::with_lookup(lookup);
    let mut sent = std::pin::pin!(client.send(request));
    tokio::select! {
        result = &mut sent => (result.expect_err("nobody answers"), false),
        connection = listener.accept() => {
            // Closed at once: the request fails.
            drop(connection);
            (sent.await.expect_err("nobody answers"), true)
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
