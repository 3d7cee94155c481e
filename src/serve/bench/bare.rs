//! A server with nothing in it but hyper: what the machine, the kernel and HTTP cost anyway.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::BenchError;

/// What it answers: the same as the guest that is built in.
const BODY: &[u8] = b"Hello from Sampan!\n";

/// The server. It ends when this is dropped.
pub(super) struct Bare {
    pub(super) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Bare {
    /// Starts it on a free port of loopback, on the threads of the caller.
    pub(super) async fn start() -> Result<Self, BenchError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self {
            address: listener.local_addr()?,
            accepting: tokio::spawn(accept(listener)),
        })
    }
}

async fn accept(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Where that is not possible answers are late, which is measured.
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream) {
    let answer = service_fn(async |_| {
        let body = Full::new(Bytes::from_static(BODY));
        let response = http::Response::builder().header("content-type", "text/plain");
        Ok::<_, Infallible>(response.body(body).expect("the parts are constants"))
    });
    // A client that leaves ends its connection, which is no failure here.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}
