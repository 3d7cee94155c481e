//! A command that runs to completion, with WASI 0.3.
//!
//! It prints its arguments to stdout, one a line, and succeeds, unless they are `exit 1`.

use wasip3::cli::environment::get_arguments;
use wasip3::cli::stdout::write_via_stream;
use wasip3::exports::cli::run::Guest;
use wasip3::{wit_bindgen, wit_stream};

struct Command;

wasip3::cli::command::export!(Command);

impl Guest for Command {
    async fn run() -> Result<(), ()> {
        // The first argument is the name of the program.
        let arguments: Vec<String> = get_arguments().into_iter().skip(1).collect();
        if arguments == ["exit", "1"] {
            return Err(());
        }
        let lines: String = arguments
            .iter()
            .map(|argument| format!("{argument}\n"))
            .collect();
        let (mut writer, reader) = wit_stream::new();
        // The host reads while it is written, so the writing goes on beside the wait for the result.
        wit_bindgen::spawn_local(async move {
            writer.write_all(lines.into_bytes()).await;
        });
        write_via_stream(reader).await.map_err(drop)
    }
}
