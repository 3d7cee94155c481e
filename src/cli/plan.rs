//! `sampan plan`: what an apply would change.

use clap::Args;
use http::Method;
use sampan_core::view;

use super::{
    End,
    api::ApiArguments,
    bundle::Bundle,
    output::{Output, one_line},
    process::runtime,
    spec::SpecArguments,
};

/// Show what applying a spec would change, and change nothing
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    spec: SpecArguments,

    /// Print it as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    api: ApiArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let bundle = Bundle::load(&arguments.spec, output)?;
    let client = arguments.api.client()?;
    let target = bundle.target("/plan");
    let asked = client.change(Method::POST, &target, Some(&bundle.body));
    let plan: view::Plan = runtime()?.block_on(asked)?;
    output.answer(arguments.json, &plan, || text(&plan))
}

/// Each service and job with the fields that are different.
fn text(plan: &view::Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        let mark = match change.verb {
            view::Verb::Added => '+',
            view::Verb::Changed => '~',
            view::Verb::Deleted => '-',
            view::Verb::Unchanged => ' ',
        };
        text += &format!("{mark} {}/{}", change.kind, one_line(&change.name));
        if change.verb == view::Verb::Unchanged {
            text += ": unchanged\n";
            continue;
        }
        text += &format!(": {}\n", one_line(&change.pods));
        for field in &change.fields {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            let (old, new) = (shown(&field.old), shown(&field.new));
            // Two long values may begin alike.
            let line = match old == new {
                true => format!("    {}: changed, {new}", field.name),
                false => format!("    {}: {old} -> {new}", field.name),
            };
            text += &one_line(&line);
            text.push('\n');
        }
    }
    if !plan.changed {
        text += "nothing changes\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_shown_below_what_they_are_of() {
        let change = |verb, fields| view::Change {
            kind: "service".to_owned(),
            name: "web".to_owned(),
            verb,
            generation: 2,
            revision: Some(1),
            fields,
            pods: "1 pod is added".to_owned(),
            awaited: true,
        };
        let field = |name: &str, old: Option<&str>, new: Option<&str>| view::Field {
            name: name.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let plan = view::Plan {
            app: "shop".to_owned(),
            changed: true,
            changes: vec![
                change(view::Verb::Added, Vec::new()),
                change(
                    view::Verb::Changed,
                    vec![
                        field("replicas", Some("1"), Some("2")),
                        field("env.KEY", None, Some("value")),
                        field("env.LONG", Some("xx… (600 bytes)"), Some("xx… (600 bytes)")),
                    ],
                ),
                change(view::Verb::Unchanged, Vec::new()),
            ],
        };
        insta::assert_snapshot!(text(&plan), @r"
        + service/web: 1 pod is added
        ~ service/web: 1 pod is added
            replicas: 1 -> 2
            env.KEY: none -> value
            env.LONG: changed, xx… (600 bytes)
          service/web: unchanged
        ");
    }
}
