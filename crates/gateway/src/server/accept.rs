//! Where connections come from.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A source of connections.
pub trait Accept: Send + 'static {
    /// A connection.
    type Io: Transport;

    /// Waits for the next connection and says where it comes from. Dropping the future loses
    /// none.
    ///
    /// # Errors
    ///
    /// Whatever keeps one connection, or any for now, from being accepted. The server pauses and
    /// tries again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

/// A byte stream that can be ended in a way the other side cannot take for an orderly end.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Makes the stream end with a reset when it is dropped.
    fn reset_on_drop(&mut self);
}

/// Accepts TCP connections, with `TCP_NODELAY`.
#[derive(Debug)]
pub struct TcpAccept(TcpListener);

impl TcpAccept {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Accept for TcpAccept {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, address))
    }
}

impl Transport for TcpStream {
    fn reset_on_drop(&mut self) {
        // If it fails, the connection is gone already.
        let _ = self.set_zero_linger();
    }
}
