//! An etcd of the distribution, with one member.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Time that it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// It ends when this is dropped.
pub(super) struct Etcd {
    child: Child,
    port: u16,
    _data: tempfile::TempDir,
}

/// A port on which nothing listens now.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Etcd {
    /// `None` where it is not installed, unless it has to be.
    pub(super) fn start() -> Option<Self> {
        let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let data = data.expect("a directory");
        let (port, peer) = (free_port(), format!("http://127.0.0.1:{}", free_port()));
        let url = format!("http://127.0.0.1:{port}");
        let started = Command::new("etcd")
            .args(["--name", "m", "--log-level", "error"])
            .arg("--data-dir")
            .arg(data.path())
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("m={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                let required = std::env::var("SAMPAN_SERVERS").is_ok_and(|it| it == "required");
                assert!(
                    !required,
                    "etcd cannot be started, and SAMPAN_SERVERS says it must: {error}"
                );
                return None;
            }
        };
        let etcd = Self {
            child,
            port,
            _data: data,
        };
        etcd.wait();
        Some(etcd)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("it ends");
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_healthy() {
            assert!(Instant::now() < deadline, "etcd is not up");
            std::thread::yield_now();
        }
    }

    fn is_healthy(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        ask().is_ok_and(|text| text.contains("\"true\""))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It has usually not ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
