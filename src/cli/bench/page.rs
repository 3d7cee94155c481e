//! Reports as a page: one file, which loads nothing.

use plotters::style::RGBColor;

use super::{
    compare::{Compared, Comparison, Verdict},
    plot, show,
    table::{names, ratio},
};
use crate::{
    cli::output::size,
    serve::bench::report::{Group, Measurement, Report, Section},
};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn html(report: &Report, comparison: Option<&Comparison>) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{dark}</style></head>\n<body><header><h1>{title}</h1>\n",
        title = escaped(&title(report)),
        dark = dark(),
    );
    if let Some(comparison) = comparison {
        let answer = escaped(&comparison.answer());
        page += &format!("<p class=\"answer\">{answer}</p>\n");
    }
    let paragraph = |text: &str| format!("<p class=\"conditions\">{}</p>\n", escaped(text));
    page += &paragraph(&show::conditions(report));
    page += &paragraph(&format!("{}, took {:.0} s", report.began, report.took_s));
    for warning in show::warnings(report) {
        page += &format!(
            "<p class=\"warning\" role=\"note\">{}</p>\n",
            escaped(&warning)
        );
    }
    page += "</header>\n<main>\n";
    if let Some(comparison) = comparison {
        page += &compared(comparison);
    }
    if report.sections.len() > 1 {
        page += "<nav aria-label=\"Sections\"><ul>";
        for section in &report.sections {
            let bench = escaped(&section.bench);
            page += &format!("<li><a href=\"#{bench}\">{bench}</a></li>");
        }
        page += "</ul></nav>\n";
    }
    for section in &report.sections {
        page += &section_html(section, comparison);
    }
    page + "</main></body></html>\n"
}

fn title(report: &Report) -> String {
    let benches = report.sections.iter().map(|it| it.bench.as_str());
    let benches: Vec<_> = benches.collect();
    format!("sampan bench: {}", benches.join(", "))
}

/// The colours of the plots on a dark screen, which are found by those of a light one.
fn dark() -> String {
    let mut rules = String::from("@media screen and (prefers-color-scheme: dark) {\n");
    for (light, dark) in plot::DARK {
        let (light, dark) = (hex(light), hex(dark));
        for part in ["fill", "stroke"] {
            rules += &format!("svg [{part}=\"{light}\"] {{ {part}: {dark}; }}\n");
        }
    }
    rules + "}\n"
}

/// What has changed, first of all: the answer to "how much faster is it now?".
fn compared(comparison: &Comparison) -> String {
    let name = escaped(&comparison.name);
    let mut text = format!("<section><h2>Compared with {name}</h2>\n");
    if comparison.groups.is_empty() {
        text += "<p>Nothing was measured in both.</p>\n";
    } else {
        text += "<table class=\"verdicts\"><thead><tr><th scope=\"col\">what</th>\
                 <th scope=\"col\">now</th><th scope=\"col\">new / old, 95 %</th></tr></thead><tbody>\n";
    }
    for group in &comparison.groups {
        let words = show::verdict(group.unit, group.better, group.all.ratio);
        let (class, words) = match group.all.verdict(group.better) {
            Verdict::Better => ("better", format!("▲ {words}")),
            Verdict::Worse => ("worse", format!("▼ {words}")),
            Verdict::Different => ("", words),
            Verdict::Unclear => ("", "no clear difference".to_owned()),
        };
        text += &format!(
            "<tr><th scope=\"row\">{}: {}</th><td class=\"{class}\">{words}</td><td>{}</td></tr>\n",
            escaped(&group.bench),
            escaped(&group.title),
            ratio(group.all)
        );
    }
    if !comparison.groups.is_empty() {
        text += "</tbody></table>\n";
    }
    for difference in &comparison.differences {
        text += &format!("<p class=\"note\">{}</p>\n", escaped(difference));
    }
    text + "</section>\n"
}

fn section_html(section: &Section, comparison: Option<&Comparison>) -> String {
    let bench = escaped(&section.bench);
    let title = escaped(&section.title);
    let mut text = format!("<section id=\"{bench}\"><h2>{bench}: {title}</h2>\n");
    if let Some(noise) = &section.noise {
        let class = if noise.busy { "warning" } else { "note" };
        text += &format!("<p class=\"{class}\">{}</p>\n", show::noise(noise));
    }
    for note in &section.notes {
        text += &format!("<p class=\"note\">{}</p>\n", escaped(note));
    }
    for group in &section.groups {
        let old = comparison.and_then(|it| it.group(&section.bench, &group.id));
        text += &group_html(group, old);
    }
    text += &format!(
        "<details><summary>How it was measured</summary><p>{}</p><ul>\n",
        escaped(&section.method)
    );
    for component in &section.components {
        text += &format!(
            "<li>{}, {}, SHA-256 <code>{}</code></li>\n",
            escaped(&component.name),
            size(component.bytes),
            escaped(&component.digest)
        );
    }
    text + "</ul></details></section>\n"
}

fn group_html(group: &Group, old: Option<&Compared>) -> String {
    let title = escaped(&group.title);
    let mut text = format!("<figure><figcaption>{title}</figcaption>\n");
    if group.axis.is_some() {
        text += &key(group);
    }
    if let Some(svg) = plot::svg(group, old) {
        let label = format!(
            "<svg role=\"img\" aria-label=\"Plot: {title}; the table below has its values\" "
        );
        text += &svg.replacen("<svg ", &label, 1);
    }
    text += &format!("<p class=\"legend\">{}</p>\n", legend(group, old));
    text += "<details><summary>Values</summary>\n";
    text += &table(group, old);
    text + "</details></figure>\n"
}

/// Which name has which colour.
fn key(group: &Group) -> String {
    let mut text = "<p class=\"key\">".to_owned();
    for (index, name) in names(group).into_iter().enumerate() {
        let color = hex(plot::SERIES[index % plot::SERIES.len()]);
        text += &format!(
            "<span><svg width=\"18\" height=\"8\" aria-hidden=\"true\"><rect width=\"18\" height=\"4\" \
             y=\"2\" fill=\"{color}\"/></svg>{}</span> ",
            escaped(name)
        );
    }
    text + "</p>\n"
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

fn legend(group: &Group, old: Option<&Compared>) -> &'static str {
    match (group.axis.is_some(), old.is_some()) {
        (true, _) => "● median; the thick bar is its interval of 95 %",
        (false, false) => {
            "● median; the thick bar is its interval of 95 %, the thin line ends at the 99th percentile"
        }
        (false, true) => {
            "● median now, ○ before; the thick bar is its interval of 95 %, the thin line ends at the \
             99th percentile"
        }
    }
}

fn table(group: &Group, old: Option<&Compared>) -> String {
    let mut head = vec![""];
    head.extend(group.axis.as_ref().map(|axis| axis.label.as_str()));
    head.extend(["n", "median", "95 %", "p90", "p99", "p99.9", "max"]);
    if old.is_some() {
        head.extend(["before", "new / old, 95 %"]);
    }
    let head: String = head
        .iter()
        .map(|it| format!("<th scope=\"col\">{}</th>", escaped(it)))
        .collect();
    let rows: String = group
        .measurements
        .iter()
        .map(|it| row(group, it, old))
        .collect();
    format!("<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>\n")
}

fn row(group: &Group, it: &Measurement, old: Option<&Compared>) -> String {
    let value = |value| show::value(group.unit, value);
    let mut cells = Vec::new();
    if group.axis.is_some() {
        cells.push(it.x.map_or_else(String::new, show::place));
    }
    cells.extend([it.count.to_string(), value(it.value)]);
    let interval = it.interval.map(|it| it.map(value).join(" – "));
    cells.push(interval.unwrap_or_default());
    let spread = it.percentiles.as_ref();
    let spread = spread.map(|it| [it.p90, it.p99, it.p99_9, it.max].map(value));
    cells.extend(spread.unwrap_or_default());
    if let Some(old) = old {
        let found = old.of(it);
        cells.push(found.map_or_else(String::new, |(old, _)| value(old.value)));
        cells.push(
            found
                .and_then(|(_, change)| change)
                .map_or_else(String::new, ratio),
        );
    }
    let cells: String = cells
        .iter()
        .map(|it| format!("<td>{}</td>", escaped(it)))
        .collect();
    format!(
        "<tr><th scope=\"row\">{}</th>{cells}</tr>\n",
        escaped(&it.name)
    )
}

/// The text in a page: what a file or a guest is called cannot be markup.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_markup() {
        assert_eq!(
            escaped("<img src=x onerror='a(\"&\")'>"),
            "&lt;img src=x onerror=&#39;a(&quot;&amp;&quot;)&#39;&gt;"
        );
    }
}
