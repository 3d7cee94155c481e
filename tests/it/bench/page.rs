//! The page of a report, in a browser.

use std::fs;

use super::{Bench, COLD};
use crate::browser::Page;

#[test]
fn a_page_loads_nothing_and_says_what_was_measured() {
    let bench = Bench::new();
    let (first, second) = (bench.path("first.json"), bench.path("second.html"));
    let arguments = [&COLD[..], &["request"]].concat();
    let report = bench.report(&arguments);
    fs::write(&first, report.to_string()).expect("a file");
    let more = ["--compare", &first, "--report", &second];
    let output = bench.run(&[&arguments[..], &more].concat());
    assert!(output.status.success());
    let text = fs::read_to_string(&second).expect("a page");
    assert!(!text.contains("<script"), "nothing of it runs");
    for link in ["http:", "https:"] {
        let rest = text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!rest.contains(link), "it names {link}");
    }
    let Some(mut page) = Page::new() else { return };
    let url = format!("file://{second}");
    page.open(&url);
    assert_eq!(page.text("h1"), "sampan bench: cold-start");
    let answer = page.text("header p");
    assert!(answer.contains("this run"), "{answer}");
    assert!(answer.contains("groups of times and rates"), "{answer}");
    let first = page.text("main h2");
    assert!(first.starts_with("Compared with"), "{first}");
    let plots = page.evaluate("document.querySelectorAll('figure svg[role=img]').length");
    assert_eq!(plots, 2);
    let labels = page.text("figure svg");
    for name in ["fetch", "compile", "load", "instantiate", "first_byte"] {
        assert!(labels.contains(name), "{labels}");
    }
    let wide = page.evaluate("document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(wide, true, "nothing is cut off to the right");
    // In the dark, text is light.
    for (scheme, light) in [("light", false), ("dark", true)] {
        page.prefer(scheme);
        let text = page.evaluate(
            "(() => { const of = it => getComputedStyle(document.querySelector(it)); \
             return [of('body').color, of('figure svg text').fill].map(it => \
             it.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) > 382); })()",
        );
        assert_eq!(text, serde_json::json!([light, light]), "{scheme}");
    }
    let asked = page.requests();
    let asked: Vec<_> = asked.iter().filter(|it| !it.starts_with("data:")).collect();
    assert_eq!(asked, [&url], "nothing but the page is asked for");
    assert_eq!(page.problems(), Vec::<String>::new());
}
