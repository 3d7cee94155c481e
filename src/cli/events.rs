//! `sampan events`: what has happened.

use std::ops::ControlFlow;

use clap::Args;
use serde_json::Value;

use super::{
    End,
    api::Scope,
    output::{Output, one_line},
    process::runtime,
};

/// Show what has happened, one line for each change of state
#[derive(Args)]
pub(super) struct Arguments {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,

    /// Print JSON objects, one a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.scope.api.client()?;
    let follow = arguments.follow.to_string();
    let query = arguments.scope.app.query(&[("follow", &follow)]);
    let print = |line: &str| {
        match arguments.json {
            true => output.json_text(line),
            false => output.data(&format!("{}\n", text(line))),
        }
        ControlFlow::Continue(())
    };
    runtime()?.block_on(client.lines(&format!("/v1/events{query}"), print))?;
    Ok(())
}

/// Time, object, reason and message.
fn text(line: &str) -> String {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let (time, object) = (field("time"), field("object"));
    let (reason, message) = (field("reason"), field("message"));
    // Of a cluster each says which node has seen it.
    let node = event["node"]
        .as_str()
        .map(|node| format!(" (seen by {node})"));
    let node = node.unwrap_or_default();
    one_line(&format!(
        "{time}  {object:20}  {reason:16}  {message}{node}"
    ))
}
