//! Answers every request with the line that the guest `hello` answers: `peer-hyper PORT`.

use std::{convert::Infallible, net::Ipv4Addr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Runtime};

const BODY: &[u8] = b"Hello from Sampan!\n";

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|it| it.parse().ok());
    let port: u16 = port.expect("the first argument is a port");
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = service_fn(async |_| {
                let body = Full::new(Bytes::from_static(BODY));
                let response = Response::builder().header("content-type", "text/plain");
                Ok::<_, Infallible>(response.body(body).expect("the parts are constants"))
            });
            tokio::spawn(async move {
                // A client that leaves ends its connection, which is no failure here.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    })
}
