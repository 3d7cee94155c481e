//! `workloads/shop/`: every command of its README in its order, and its pages in a browser.
//!
//! A comment below a block of the README says what the block has to show: `shows: TEXT` at once,
//! `until: TEXT` in the end, for a block that can be run again. A block that is marked `background` is
//! not waited for, and one that is marked `not tried` is left out, with the reason.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use crate::{
    browser::Page,
    rig::{PATIENCE, Running, bash, repository, sampan},
};

/// A block of commands, and what its comments say of it.
#[derive(Debug, Default)]
struct Step {
    section: String,
    commands: String,
    marks: Vec<String>,
}

impl Step {
    /// The texts that marks of a kind have.
    fn texts<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        let kind = move |mark: &'a String| mark.strip_prefix(kind);
        self.marks.iter().filter_map(kind).map(str::trim)
    }

    fn is(&self, kind: &str) -> bool {
        self.marks.iter().any(|mark| mark.starts_with(kind))
    }
}

/// The steps of a README.
fn steps(text: &str) -> Vec<Step> {
    let (mut steps, mut section, mut inside): (Vec<Step>, _, _) = (Vec::new(), "", false);
    for line in text.lines() {
        let mark = line
            .strip_prefix("<!-- ")
            .and_then(|rest| rest.strip_suffix(" -->"));
        match (line, steps.last_mut()) {
            ("```sh", _) => {
                inside = true;
                steps.push(Step {
                    section: section.to_owned(),
                    ..Step::default()
                });
            }
            ("```", _) => inside = false,
            (_, Some(step)) if inside => step.commands += &format!("{line}\n"),
            (_, last) => {
                section = line.strip_prefix("## ").unwrap_or(section);
                if let (Some(mark), Some(step)) = (mark, last) {
                    step.marks.push(mark.to_owned());
                }
            }
        }
    }
    steps
}

/// A copy of the shop, at an address of its own, with all that its user has.
struct Walk {
    root: tempfile::TempDir,
    address: SocketAddr,
    background: Vec<Running>,
}

impl Walk {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let copied = Command::new("cp")
            .arg("-r")
            .args([repository("workloads/shop"), repository("workloads/dist")])
            .arg(root.path())
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
        fs::create_dir(root.path().join("bin")).expect("a directory");
        let program = root.path().join("bin/sampan");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sampan"), program).expect("a link");
        // Free now; the shop is the next to ask for it.
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        Self {
            root,
            address,
            background: Vec::new(),
        }
    }

    fn shop(&self) -> PathBuf {
        self.root.path().join("shop")
    }

    /// The commands of a step, for this address.
    fn command(&self, step: &Step) -> Command {
        let here = self.address.to_string();
        let port = format!("localhost:{}", self.address.port());
        let commands = step.commands.replace("localhost:8080", &port);
        let commands = commands.replace("sampan up", &format!("exec sampan up --http {here}"));
        let mut command = bash(&format!("set -euo pipefail\n{commands}"), &sampan(&[]));
        let path = std::env::var("PATH").expect("a path");
        let bin = self.root.path().join("bin");
        command.env("PATH", format!("{}:{path}", bin.display()));
        for directory in ["XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            command.env(directory, self.root.path());
        }
        command.current_dir(self.shop());
        command
    }

    fn run(&mut self, step: &Step) {
        if step.is("background") {
            let mut running = Running::start(self.command(step));
            for text in step.texts("until:") {
                running.line_with(text);
            }
            return self.background.push(running);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self
                .command(step)
                .stdin(Stdio::null())
                .output()
                .expect("bash starts");
            let text = said(&output);
            let is_styled = ["\u{1b}", "\\u{1b}"].iter().any(|it| text.contains(it));
            assert!(!is_styled, "a pipe gets no styles: {text}");
            let has = |wanted: &str| text.contains(wanted);
            if output.status.success() && step.texts("shows:").chain(step.texts("until:")).all(has)
            {
                return;
            }
            let again = step.is("until:") && Instant::now() < deadline;
            assert!(again, "{}{step:#?}: {}", text, output.status);
        }
    }
}

/// All that a step has printed.
fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

#[test]
fn the_walk_through_the_shop_shows_what_its_readme_says() {
    let text = fs::read_to_string(repository("workloads/shop/README.md")).expect("a README");
    let mut walk = Walk::new();
    let steps = steps(&text);
    let tried: Vec<_> = steps.iter().filter(|step| !step.is("not tried")).collect();
    assert!(tried.len() > 15, "{steps:#?}");
    for (number, step) in tried.iter().enumerate() {
        let unmarked = step.marks.is_empty() && !step.commands.starts_with("sed -i");
        assert!(!unmarked, "nothing says what this has to show: {step:#?}");
        walk.run(step);
        let ends = tried
            .get(number + 1)
            .is_none_or(|next| next.section != step.section);
        if ends && step.section == "Start it" {
            buy(walk.address);
        }
    }
    let shop = walk.background.swap_remove(0);
    drop(walk.background);
    let (status, errors) = shop.interrupt();
    assert!(status.success(), "{errors}");
    assert!(
        Path::new(&walk.root.path().join("sampan")).exists(),
        "what it kept is there"
    );
}

/// Orders three ropes as a person would, and looks at the page of the order.
fn buy(address: SocketAddr) {
    let Some(mut page) = Page::new() else { return };
    let site = format!("http://shop.localhost:{}/", address.port());
    page.open(&site);
    page.until("document.querySelectorAll('#products li').length === 3");
    assert_eq!(page.text("h1"), "The boat shop");
    let rope = "[data-product=rope]";
    assert_eq!(page.text(rope), "Hemp rope, 20 m, 24.90 (20 left)");

    page.evaluate("document.querySelector('select').value = 'rope'");
    page.fill("input[name=quantity]", "3");
    page.click("button");
    page.until("document.querySelector('output').value.startsWith('Thank you!')");
    assert_eq!(page.text("output"), "Thank you! Your order has number 2.");
    page.until("document.querySelector('[data-order=\"2\"]')?.dataset.state === 'packed'");
    assert_eq!(page.text(rope), "Hemp rope, 20 m, 24.90 (17 left)");

    page.click("[data-order=\"2\"] a");
    page.until("location.pathname === '/orders/2' && document.readyState === 'complete'");
    assert_eq!(page.text("#state"), "packed");
    assert_eq!(page.text("p"), "3 × Hemp rope, 20 m: 74.70 EUR");
    page.click("a");
    page.until("location.pathname === '/' && document.querySelector('[data-order=\"2\"]')");
    assert_eq!(page.problems(), Vec::<String>::new());

    // What the API refuses is told. The browser counts the status as a problem, and nothing else is one.
    page.evaluate("document.querySelector('[name=quantity]').removeAttribute('max')");
    page.fill("input[name=quantity]", "11");
    page.click("button");
    page.until("document.querySelector('output').value.startsWith('Not ordered')");
    assert_eq!(
        page.text("output"),
        "Not ordered: `quantity` is not 1 to 10."
    );
    let problems = page.problems();
    assert!(
        matches!(&problems[..], [one] if one.contains("400")),
        "{problems:#?}"
    );
}
