//! Who may ask what, and how.

use axum::http::HeaderValue;

use super::*;
use crate::api::{guard::Gate, token::Token};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn remote(rig: &Rig) -> Router {
    let gate = Gate::new(Token::of(TOKEN), [127, 0, 0, 1].into());
    rig.api.remote(gate)
}

async fn with(router: &Router, headers: &[(&str, &str)]) -> u16 {
    let mut request = Request::get("/v1/services");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = send(router, request.body(Body::empty()).expect("a request")).await;
    reply.status.as_u16()
}

#[tokio::test]
async fn a_port_wants_the_token() {
    let rig = Rig::new();
    let router = remote(&rig);
    let host = ("host", "127.0.0.1:9000");
    let bearer = format!("Bearer {TOKEN}");
    let lower = format!("bearer {TOKEN}");
    for good in [&bearer, &lower] {
        assert_eq!(with(&router, &[host, ("authorization", good)]).await, 200);
    }
    let short = format!("Bearer {}", &TOKEN[1..]);
    let long = format!("{bearer}0");
    let basic = format!("Basic {TOKEN}");
    for bad in [&short, &long, &basic, TOKEN, "Bearer", "Bearer ", ""] {
        assert_eq!(
            with(&router, &[host, ("authorization", bad)]).await,
            401,
            "{bad}"
        );
    }
    assert_eq!(with(&router, &[host]).await, 401);
    let twice = [host, ("authorization", &bearer), ("authorization", &bearer)];
    assert_eq!(with(&router, &twice).await, 401);
    // Nothing is told apart without it: neither paths nor methods.
    for (method, path) in [("GET", "/none"), ("POST", "/v1/apps"), ("GET", "/metrics")] {
        let request = Request::builder().method(method).uri(path);
        let reply = send(&router, request.body(Body::empty()).expect("a request")).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(reply.error(), @r"
            401 Unauthorized: no token, or a wrong one
            hint: `SAMPAN_TOKEN` or `--token-file` gives it to `sampan`
            ");
        }
    }
}

#[tokio::test]
async fn a_name_that_points_here_is_not_ours() {
    let rig = Rig::new();
    let router = remote(&rig);
    let bearer = format!("Bearer {TOKEN}");
    let token = ("authorization", bearer.as_str());
    for good in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]:9000",
        "[::1]",
    ] {
        assert_eq!(with(&router, &[token, ("host", good)]).await, 200, "{good}");
    }
    for bad in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "localhost@evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "",
        "127.0.0.1:80:80",
    ] {
        assert_eq!(with(&router, &[token, ("host", bad)]).await, 421, "{bad}");
    }
    assert_eq!(with(&router, &[token]).await, 421, "no host at all");
    let twice = [token, ("host", "localhost"), ("host", "localhost")];
    assert_eq!(with(&router, &twice).await, 421);
}

#[tokio::test]
async fn no_web_page_may_ask() {
    let rig = Rig::new();
    let router = remote(&rig);
    let bearer = format!("Bearer {TOKEN}");
    let base = [("authorization", bearer.as_str()), ("host", "localhost")];
    for (name, value, status) in [
        ("origin", "http://localhost:3000", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "none", 200),
        ("sec-fetch-site", "same-origin", 200),
    ] {
        let headers = [base[0], base[1], (name, value)];
        assert_eq!(with(&router, &headers).await, status, "{name}: {value}");
        assert_eq!(
            with(&rig.router, &[(name, value)]).await,
            status,
            "{name}: {value}"
        );
    }
}

#[tokio::test]
async fn a_body_has_a_type_a_form_and_a_size() {
    let rig = Rig::new();
    let scale = async |kind: Option<&str>, body: Vec<u8>| {
        let mut request = Request::put("/v1/apps/shop/services/web/scale");
        if let Some(kind) = kind {
            let kind = HeaderValue::from_str(kind).expect("a value");
            request = request.header(CONTENT_TYPE, kind);
        }
        send(
            &rig.router,
            request.body(Body::from(body)).expect("a request"),
        )
        .await
    };
    let json = Some("application/json");
    let mut said = String::new();
    for (kind, body) in [
        (Some("text/plain"), &b"{}"[..]),
        (Some("application/x-www-form-urlencoded"), b"replicas=3"),
        (None, b"{\"replicas\": 3}"),
        (json, b""),
        (json, b"{"),
        (json, b"[]"),
        (json, b"{}"),
        (json, b"{\"replicas\": -1}"),
        (json, b"{\"replicas\": 1e400}"),
        (json, b"{\"replicas\": 99999999999}"),
        (json, b"{\"replicas\": 3, \"force\": true}"),
        (json, b"{\"replicas\": 3, \"replicas\": 4}"),
        (json, b"\xff"),
    ] {
        said += &scale(kind, body.to_vec()).await.error();
        said += "\n";
    }
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    said += &scale(json, deep).await.error();
    said += "\n";
    said += &scale(json, vec![b' '; MAX_BODY_BYTES + 1]).await.error();
    insta::assert_snapshot!(said);
    let good = scale(
        Some("application/json; charset=utf-8"),
        b"{\"replicas\": 3}".to_vec(),
    )
    .await;
    assert_eq!(good.status, 404, "it is only the service that is not there");
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let rig = Rig::new();
    let mut said = String::new();
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/v2/apps"),
        (Method::POST, "/v1/apps"),
        (Method::GET, "/v1/apps/Shop"),
        (Method::GET, "/v1/apps/shop"),
        (Method::GET, "/v1/apps/shop/services/web"),
        (Method::GET, "/v1/pods/web-1-0"),
        (Method::GET, "/v1/services?ap=shop"),
        (Method::GET, "/v1/events?after=x"),
    ] {
        said += &rig.ask(method, path, None).await.error();
        said += "\n";
    }
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let address = open.parse().expect("an address");
        let error = Port::bind(address).err().expect("refused").to_string();
        assert!(error.contains("without TLS"), "{error}");
    }
    let port = Port::bind("127.0.0.1:0".parse().expect("an address")).expect("free");
    assert_ne!(port.address().port(), 0);
}

#[tokio::test]
async fn a_port_answers_over_the_network() {
    use http_body_util::Empty;
    use hyper_util::rt::TokioIo;

    let rig = Rig::new();
    let port = Port::bind("127.0.0.1:0".parse().expect("an address")).expect("free");
    let address = port.address();
    let serving = tokio::spawn(serve_port(port, Token::of(TOKEN), rig.api.clone()));
    for (token, status) in [(TOKEN, 200), ("wrong", 401)] {
        let stream = tokio::net::TcpStream::connect(address).await;
        let stream = TokioIo::new(stream.expect("it listens"));
        let spoken = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = spoken.expect("it speaks HTTP");
        let connection = tokio::spawn(connection);
        let request = Request::get("/v1/version")
            .header("host", address.to_string())
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new());
        let response = sender.send_request(request.expect("a request")).await;
        assert_eq!(response.expect("an answer").status(), status);
        drop(sender);
        connection.abort();
    }
    serving.abort();
}

#[test]
fn what_a_store_cannot_do_has_a_status() {
    use axum::response::IntoResponse as _;
    use sampan_store::StoreError;

    let (place, reason) = ("/data/sampan.db".to_owned(), "no space left".to_owned());
    let full = StoreError::Full {
        place: place.clone(),
        reason: reason.clone(),
    };
    let failed = StoreError::Failed { place, reason };
    for (error, status) in [(full, 507), (failed, 503), (StoreError::Closed, 503)] {
        let response = error::ApiError::from(error).into_response();
        assert_eq!(response.status().as_u16(), status);
    }
}
