//! The metrics of several nodes as one text: each sample gets the name of its node as a label.

use std::{borrow::Cow, collections::BTreeMap};

/// What is said of one family of metrics.
#[derive(Default)]
struct Family {
    /// Lines that say what it is, of the first node that has it.
    about: Vec<String>,
    samples: Vec<String>,
}

/// All of them. Families keep the order in which the first node that has them names them.
pub(super) fn merged<'a>(texts: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> String {
    let mut order = Vec::new();
    let mut families = BTreeMap::<String, Family>::new();
    for (node, text) in texts {
        let mut name = String::new();
        let mut is_known = false;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(about) = line.strip_prefix("# ") {
                let of = about.split(' ').nth(1).unwrap_or_default();
                if of != name {
                    name = of.to_owned();
                    is_known = families.contains_key(&name);
                }
                if !families.contains_key(&name) {
                    order.push(name.clone());
                }
                let family = families.entry(name.clone()).or_default();
                if !is_known {
                    family.about.push(line.to_owned());
                }
            } else if let Some(family) = families.get_mut(&name) {
                family.samples.push(labelled(line, node));
            }
        }
    }
    let mut text = String::new();
    for name in order {
        let Some(Family { about, samples }) = families.get(&name) else {
            continue;
        };
        for line in about.iter().chain(samples) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// A sample with its node. Names of nodes have no character that would have to be escaped.
fn labelled(sample: &str, node: &str) -> String {
    let end = sample.find(['{', ' ']).unwrap_or(sample.len());
    let (name, rest) = sample.split_at(end);
    match rest.strip_prefix('{') {
        Some(labels) if labels.starts_with('}') => {
            format!("{name}{{node=\"{node}\"{labels}")
        }
        Some(labels) => format!("{name}{{node=\"{node}\",{labels}"),
        None => format!("{name}{{node=\"{node}\"}}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_told_of_once_and_each_sample_has_its_node() {
        let a = "# HELP up Whether.\n# TYPE up gauge\nup 1\n# TYPE n counter\nn{app=\"x y\"} 2\nn{} 3\n";
        let b = "# HELP up Whether.\n# TYPE up gauge\nup 0\n# TYPE new gauge\nnew{le=\"+Inf\"} 4\n";
        let text = merged([("a", a.into()), ("b", b.into())].into_iter());
        assert_eq!(
            text,
            "# HELP up Whether.\n# TYPE up gauge\nup{node=\"a\"} 1\nup{node=\"b\"} 0\n\
             # TYPE n counter\nn{node=\"a\",app=\"x y\"} 2\nn{node=\"a\"} 3\n\
             # TYPE new gauge\nnew{node=\"b\",le=\"+Inf\"} 4\n"
        );
    }
}
