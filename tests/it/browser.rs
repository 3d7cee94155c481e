//! A headless Chromium, driven over its DevTools protocol: <https://chromedevtools.github.io/devtools-protocol/>.
//!
//! It talks over two pipes, messages with a zero byte after each: no port, and it ends with this process.
//! Where no Chromium is installed a test says so and does nothing, unless `SAMPAN_SERVERS=required`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::Instant,
};

use serde_json::{Value, json};

use crate::rig::PATIENCE;

/// What Chromium is called on the systems that the tests run on.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Messages of the browser that wait to be looked at.
const MAX_MESSAGES: usize = 10_000;

/// A page in a browser of its own. The browser is killed when this is dropped.
pub(crate) struct Page {
    browser: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What pages have said on their console as errors or thrown and not caught, and what did not load.
    problems: Vec<String>,
    /// The addresses of all that was asked for.
    requests: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Starts a browser with an empty page; `None` where none is installed.
    pub(crate) fn new() -> Option<Self> {
        let name = installed()?;
        let profile = tempfile::tempdir().expect("a directory");
        // The protocol is on descriptors 3 (to the browser) and 4 (from it).
        let mut browser = Command::new("sh")
            .args([
                "-c",
                r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#,
                name,
            ])
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-pipe",
            ])
            .args([
                "--no-first-run",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        let commands = browser.stdin.take().expect("piped");
        let said = BufReader::new(browser.stdout.take().expect("piped"));
        let (send, messages) = sync_channel(MAX_MESSAGES);
        std::thread::spawn(move || {
            for message in said.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("JSON");
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        let mut page = Self {
            browser,
            commands,
            messages,
            session: None,
            last: 0,
            problems: Vec::new(),
            requests: Vec::new(),
            _profile: profile,
        };
        let target = page.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.ask("Target.attachToTarget", attach);
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(page)
    }

    /// Goes to a URL and waits until its document and scripts are loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let went = self.ask("Page.navigate", json!({ "url": url }));
        assert!(went.get("errorText").is_none(), "{url}: {went}");
        let here = serde_json::to_string(url).expect("a text");
        self.until(&format!(
            "location.href === {here} && document.readyState === 'complete'"
        ));
    }

    /// The value of an expression of JavaScript; promises are waited for.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({
            "expression": expression,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        let mut answer = self.ask("Runtime.evaluate", asked);
        let thrown = answer.get("exceptionDetails");
        assert!(thrown.is_none(), "{expression}: {thrown:#?}");
        answer["result"]["value"].take()
    }

    /// Asks until an expression is true, or panics with the text of the page.
    pub(crate) fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.evaluate(&format!("Boolean({expression})")) != true {
            if Instant::now() >= deadline {
                let text = self.evaluate("document.body.innerText");
                panic!("not so in time: {expression}\n{text}\n{:#?}", self.problems);
            }
        }
    }

    /// The text of the element that a selector finds.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.evaluate(&format!("{}.textContent.trim()", element(selector)));
        text.as_str().expect("a text").to_owned()
    }

    /// Presses and releases the mouse's left button in the middle of an element.
    pub(crate) fn click(&mut self, selector: &str) {
        let found = element(selector);
        self.until(&found);
        let place = self.evaluate(&format!(
            "(element => {{ element.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const box = element.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})({found})"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.ask("Input.dispatchMouseEvent", event);
        }
    }

    /// Types over what is in a field.
    pub(crate) fn fill(&mut self, selector: &str, text: &str) {
        let found = element(selector);
        self.evaluate(&format!("{found}.focus(), {found}.select?.()"));
        self.ask("Input.insertText", json!({ "text": text }));
    }

    /// What went wrong in the browser since this was asked last.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        // An answer comes after all that was said before it was asked for.
        self.evaluate("true");
        std::mem::take(&mut self.problems)
    }

    /// What was asked for since this was asked last.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.evaluate("true");
        std::mem::take(&mut self.requests)
    }

    /// Has the page shown as a user who prefers this scheme of colours sees it: `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let sent = self.commands.write_all(format!("{command}\0").as_bytes());
        sent.and_then(|()| self.commands.flush())
            .expect("the browser runs");
        loop {
            let next = self.messages.recv_timeout(PATIENCE);
            let mut message = next.unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == id {
                let error = message.get("error");
                assert!(error.is_none(), "{method}: {error:#?}");
                return message["result"].take();
            }
            self.problems.extend(problem(&message));
            if message["method"] == "Network.requestWillBeSent" {
                let url = message["params"]["request"]["url"].as_str();
                self.requests.extend(url.map(str::to_owned));
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It has usually not ended yet.
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

/// The name of a Chromium that is installed.
#[expect(clippy::print_stderr, reason = "that a test did nothing is to be seen")]
fn installed() -> Option<&'static str> {
    let found = NAMES.into_iter().find(|name| {
        let asked = Command::new(name).arg("--version").output();
        asked.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        let required = std::env::var("SAMPAN_SERVERS").is_ok_and(|it| it == "required");
        assert!(
            !required,
            "no Chromium is installed, and SAMPAN_SERVERS says `required`"
        );
        eprintln!("SKIPPED: no Chromium is installed");
    }
    found
}

/// JavaScript for the element that a selector finds.
fn element(selector: &str) -> String {
    let selector = serde_json::to_string(selector).expect("a text");
    format!("document.querySelector({selector})")
}

/// What is wrong, if a message of the browser says so.
fn problem(message: &Value) -> Option<String> {
    let told = &message["params"];
    match message["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(told["exceptionDetails"].to_string()),
        "Runtime.consoleAPICalled" if told["type"] == "error" => Some(told["args"].to_string()),
        "Log.entryAdded" if told["entry"]["level"] == "error" => Some(told["entry"].to_string()),
        "Network.loadingFailed" if told["canceled"] != true => Some(told.to_string()),
        _ => None,
    }
}
