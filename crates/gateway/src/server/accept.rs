//! Where connections come from.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A source of connections.
pub trait Accept: Send + 'static {
    /// A connection that no thread has yet.
    type Accepted: Send + 'static;

    /// A connection.
    type Io: Transport;

    /// Waits for the next connection and says where it comes from. Dropping the future loses
    /// none.
    ///
    /// # Errors
    ///
    /// Whatever keeps one connection, or any for now, from being accepted. The server pauses and
    /// tries again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Accepted, SocketAddr)>> + Send;

    /// Ends the source. Yields the connections that clients had made before: to them they are open,
    /// and requests may have been sent on them.
    fn close(self) -> impl Iterator<Item = (Self::Accepted, SocketAddr)> + Send;

    /// Gives a connection to the thread that this is called on, which serves it.
    ///
    /// # Errors
    ///
    /// What the operating system says against that. The connection is closed then.
    fn open(accepted: Self::Accepted) -> io::Result<Self::Io>;
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
    type Accepted = std::net::TcpStream;
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(std::net::TcpStream, SocketAddr)> {
        let (stream, address) = self.0.accept().await?;
        Ok((stream.into_std()?, address))
    }

    fn close(self) -> impl Iterator<Item = (std::net::TcpStream, SocketAddr)> + Send {
        // Not as above: what the runtime knows of the listener may be older than what is there.
        let listener = self.0.into_std().ok();
        // The listener does not block. It is closed when nothing is left, or at the end of
        // descriptors.
        std::iter::from_fn(move || {
            let (stream, address) = listener.as_ref()?.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            Some((stream, address))
        })
        .fuse()
    }

    fn open(accepted: std::net::TcpStream) -> io::Result<TcpStream> {
        accepted.set_nodelay(true)?;
        TcpStream::from_std(accepted)
    }
}

impl Transport for TcpStream {
    fn reset_on_drop(&mut self) {
        // If it fails, the connection is gone already.
        let _ = self.set_zero_linger();
    }
}
