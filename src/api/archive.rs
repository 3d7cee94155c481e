//! Volumes as tar archives, which go through the API a piece at a time.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{
    MAX_UPLOADS, Shared,
    artifacts::blocking,
    body::VolumePath,
    error::{ApiError, Code},
    pace,
};

/// Pieces between the disk and the connection.
const PIECES: usize = 4;
/// Bytes of a piece that goes out.
const PIECE_BYTES: usize = 256 << 10;
/// The type of an archive.
const TAR: &str = "application/x-tar";

/// One piece, or why there is no more.
type Piece = Result<Bytes, io::Error>;

/// `GET /v1/apps/{app}/volumes/{volume}/archive`
pub(super) async fn export(
    State(api): Shared,
    VolumePath(app, name): VolumePath,
) -> Result<Response, ApiError> {
    let place = Arc::clone(&api.0.archives).try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy("archives", MAX_UPLOADS))?;
    api.unused(&app, &name).await?;
    let (pieces, mut read) = channel(PIECES);
    let kept = Arc::clone(&api.0.kept);
    let writing = blocking(move || {
        let _place = place;
        let mut out = Out {
            pieces: pieces.clone(),
            gathered: Vec::with_capacity(PIECE_BYTES),
        };
        let written = kept.export(&app, &name, &mut out);
        let written = written.and_then(|()| {
            let flushed = out.flush();
            flushed.map_err(|error| super::KeptError::Failed(error.to_string()))
        });
        if written.is_err() {
            // The client sees that it breaks off.
            let _ = pieces.blocking_send(Err(io::Error::other("the archive breaks off")));
        }
        written
    });
    let writing = tokio::spawn(writing);
    // What is wrong from the start has an answer of its own.
    let first = match read.recv().await {
        Some(Ok(first)) => first,
        Some(Err(_)) | None => {
            let written = writing.await;
            let written = written.map_err(|_| ApiError::new(Code::Internal, "it broke off"))?;
            written??;
            Bytes::new()
        }
    };
    let rest = stream::unfold(read, |mut read| async { Some((read.recv().await?, read)) });
    let body = stream::iter([Ok(first)]).chain(rest);
    Ok(([(CONTENT_TYPE, TAR)], Body::from_stream(body)).into_response())
}

/// `PUT /v1/apps/{app}/volumes/{volume}/archive`
pub(super) async fn import(
    State(api): Shared,
    VolumePath(app, name): VolumePath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let place = Arc::clone(&api.0.archives).try_acquire_owned();
    let _place = place.map_err(|_| ApiError::busy("archives", MAX_UPLOADS))?;
    let quota = api.unused(&app, &name).await?;
    let (pieces, read) = channel::<Piece>(PIECES);
    let kept = Arc::clone(&api.0.kept);
    let reading = blocking(move || {
        let mut input = In {
            pieces: read,
            rest: Bytes::new(),
        };
        kept.import(&app, &name, quota, &mut input)
    });
    let mut body = request.into_body().into_data_stream();
    let sending = async {
        while let Some(part) = body.next().await {
            let broken = part.as_ref().err().map(|error| pace::broken(error));
            let part = part.map_err(|error| io::Error::other(error.to_string()));
            // What reads may have refused the archive, and says so.
            if pieces.send(part).await.is_err() || broken.is_some() {
                return broken;
            }
        }
        // The end of the pieces is that of the archive.
        drop(pieces);
        None
    };
    let (broken, read) = tokio::join!(sending, reading);
    match broken {
        Some(broken) => Err(broken),
        None => Ok(read?.map(|()| StatusCode::NO_CONTENT)?),
    }
}

/// What is written goes to a connection.
struct Out {
    pieces: Sender<Piece>,
    gathered: Vec<u8>,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.gathered);
        let sent = self.pieces.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// What is read comes from a connection.
struct In {
    pieces: Receiver<Piece>,
    rest: Bytes,
}

impl Read for In {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.rest = piece?,
            }
        }
        let bytes = buffer.len().min(self.rest.len());
        buffer[..bytes].copy_from_slice(&self.rest.split_to(bytes));
        Ok(bytes)
    }
}
