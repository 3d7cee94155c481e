//! `sampan volume`: what is in a volume, as a tar archive.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::stream;
use sampan_core::name::Name;
use tempfile::NamedTempFile;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    End, Stop,
    api::ApiArguments,
    background::{Note, caretaker, end},
    output::Output,
    process::runtime,
};
use crate::client::{Client, ClientError, quoted};

/// Write a volume to a tar archive, or read one from it
///
/// Where no node of this user runs, one is started for it.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write what is in a volume as a tar archive
    ///
    /// No pod may use the volume meanwhile.
    Export {
        /// The volume, as `APP/NAME`
        volume: Volume,

        /// Where to write it; `-` is standard output
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        output: PathBuf,

        #[command(flatten)]
        api: ApiArguments,
    },
    /// Put what is in a tar archive in the place of what is in a volume: all of it or nothing
    ///
    /// No pod may use the volume meanwhile. Its quota holds.
    Import {
        /// The volume, as `APP/NAME`
        volume: Volume,

        /// The archive; `-` is standard input
        #[arg(default_value = "-")]
        file: PathBuf,

        #[command(flatten)]
        api: ApiArguments,
    },
}

/// `shop/data`.
#[derive(Clone, Debug)]
struct Volume {
    app: Name,
    name: Name,
}

impl std::str::FromStr for Volume {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (app, name) = text.split_once('/').context("write it as `APP/NAME`")?;
        Ok(Self {
            app: Name::parse(app)?,
            name: Name::parse(name)?,
        })
    }
}

impl Volume {
    fn target(&self) -> String {
        let (app, name) = (quoted(self.app.as_str()), quoted(self.name.as_str()));
        format!("/v1/apps/{app}/volumes/{name}/archive")
    }
}

/// Bytes that are read at once, and pieces of so many that wait to be sent.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 4;

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let (Verb::Export { api, .. } | Verb::Import { api, .. }) = &arguments.verb;
    runtime()?.block_on(async {
        let (client, is_own) = match api.client() {
            Ok(client) => (client, false),
            // One that is to run would have its apps run again, which may use the volume.
            Err(ClientError::NoDaemon(_)) if Note::find().is_none() => {
                (caretaker(output).await?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let done = match &arguments.verb {
            Verb::Export {
                volume,
                output: file,
                ..
            } => export(&client, volume, file, output).await,
            Verb::Import { volume, file, .. } => import(&client, volume, file).await,
        };
        if is_own {
            end(&client).await?;
        }
        done
    })
}

async fn export(client: &Client, volume: &Volume, file: &Path, output: &Output) -> End {
    if file == Path::new("-") {
        if io::stdout().is_terminal() {
            let told = "an archive is nothing for a terminal: `-o FILE` writes it to a file";
            return Err(Stop::usage(anyhow::anyhow!(told)));
        }
        let write = |piece: &[u8]| {
            output.bytes(piece);
            Ok::<_, io::Error>(())
        };
        return Ok(client.pieces(&volume.target(), write).await??);
    }
    // It has its name once it is whole.
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let cannot = || format!("cannot write `{}`", file.display());
    let mut beside = NamedTempFile::new_in(directory).with_context(cannot)?;
    let target = volume.target();
    let written = client.pieces(&target, |piece| beside.write_all(piece));
    written.await?.with_context(cannot)?;
    beside.persist(file).with_context(cannot)?;
    Ok(())
}

async fn import(client: &Client, volume: &Volume, file: &Path) -> End {
    let mut input: Box<dyn Read + Send> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => {
            let opened = File::open(file);
            Box::new(opened.with_context(|| format!("cannot read `{}`", file.display()))?)
        }
    };
    let (pieces, read) = mpsc::channel(PIECES);
    spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = input.read(&mut piece);
            let is_end = !matches!(read, Ok(1..));
            let piece = read.map(|bytes| {
                piece.truncate(bytes);
                Bytes::from(piece)
            });
            // What is sent may have been refused, which is told there.
            if pieces.blocking_send(piece).is_err() || is_end {
                return;
            }
        }
    });
    let pieces = stream::unfold(read, |mut read| async { Some((read.recv().await?, read)) });
    let target = volume.target();
    client
        .upload_pieces(&target, "application/x-tar", pieces)
        .await?;
    Ok(())
}
