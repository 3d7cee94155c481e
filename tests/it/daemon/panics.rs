//! A panic ends the process, whichever task or thread it is in.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt as _,
    sync::mpsc::RecvTimeoutError,
    time::Duration,
};

use sampan_core::provoke::Task;

use super::Daemon;
use crate::rig::{PATIENCE, get, guest};

/// The signal with which a process ends itself.
const ABORTED: i32 = 6;
/// How long a request may take whose process may have ended.
const ANSWER: Duration = Duration::from_secs(10);

/// Something for every kind of task to do.
fn app() -> String {
    let service = |name: &str, component: &str, more: &str| {
        let component = guest(component);
        format!("[service.{name}]\ncomponent = '{component}'\nroute = ['{name}.test/']\n{more}\n")
    };
    [
        service("fresh", "hostile", ""),
        service("kept", "counter", "isolation = 'pod'"),
        service("shared", "hello-p3", "isolation = 'pod'"),
        format!(
            "[service.command]\ncomponent = '{}'\nargs = ['tick']\n",
            guest("worker")
        ),
        service("dumped", "crash-loop", "isolation = 'pod'\ncoredump = true"),
        format!(
            "[job.once]\ncomponent = '{}'\nargs = ['warn', 'x']\n",
            guest("command")
        ),
    ]
    .concat()
}

/// One request. The process may end at any moment of it.
fn poke(at: SocketAddr, host: &str, path: &str) {
    let asked = || {
        let mut stream = TcpStream::connect_timeout(&at, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )?;
        stream.read_to_end(&mut Vec::new())
    };
    // What it answers is none of this test's business.
    let _ = asked();
}

fn provoked(task: &str) -> Daemon {
    let mut daemon = Daemon::new();
    daemon.variables = vec![
        ("SAMPAN_TEST_PANIC", task.to_owned()),
        ("XDG_STATE_HOME", daemon.place("state")),
    ];
    daemon.launch();
    daemon
}

/// Has it do something of everything, as long as it lives.
fn work(daemon: &mut Daemon) {
    let path = daemon.spec(&app());
    let Ok(line) = daemon.running().find("listening on http://") else {
        return;
    };
    let address = line.rsplit('/').next().expect("text after a slash");
    let at = address.parse().expect("an address");
    // Each of them fails once the process has ended.
    let _ = daemon.ask(&["apply", "-f", &path, "--wait", "--timeout", "60s"]);
    for (host, path) in [
        ("kept.test", "/"),
        ("shared.test", "/"),
        ("fresh.test", "/burn?ms=100"),
        ("dumped.test", "/crash"),
    ] {
        poke(at, host, path);
    }
}

fn ends(task: Task) {
    let mut daemon = provoked(&format!("{task:?}"));
    work(&mut daemon);
    let mut running = daemon.running.take().expect("it has been started");
    // Its output ends with it.
    let end = running.find("no such line");
    assert_eq!(end, Err(RecvTimeoutError::Disconnected), "it lives");
    let (status, said) = running.wait();
    assert_eq!(status.signal(), Some(ABORTED), "{status}: {said}");
    assert!(said.contains("a panic was asked for"), "{said}");
}

macro_rules! each {
    ($($name:ident: $task:ident,)*) => {
        $(
            #[test]
            fn $name() {
                ends(Task::$task);
            }
        )*

        #[test]
        fn every_kind_of_task_is_tried() {
            let tried = [$(Task::$task,)*];
            let wanted = Task::ALL.iter().filter(|&&it| it != Task::DumpWriter);
            for task in wanted {
                assert!(tried.contains(task), "{task:?}");
            }
        }
    };
}

each! {
    in_main: Main,
    in_what_accepts_connections: Listener,
    in_a_connection: Connection,
    in_what_accepts_connections_to_the_api: ApiListener,
    in_a_request_to_the_api: Api,
    in_work_that_blocks: Blocking,
    in_the_mirror: Mirror,
    in_the_agent: Agent,
    in_the_preparation_of_a_pod: Preparation,
    in_the_worker_of_a_pod: Worker,
    in_a_kept_instance: Kept,
    in_a_shared_instance: Shared,
    in_a_command: Command,
    in_a_fresh_instance: Fresh,
    in_a_long_guest: SlowLane,
    in_a_job: Job,
    in_the_controllers: Controllers,
    in_a_reconcile: Reconcile,
    in_the_edge: Edge,
    in_the_sampler: Sampler,
    in_the_reports: Reports,
    in_the_event_history: EventHistory,
    in_the_keeping_of_lines: LineKeeper,
    in_the_sweeper: Sweeper,
    in_the_printing_of_events: Events,
    in_the_printing_of_logs: Logs,
    in_the_store: Store,
    in_the_epoch_ticker: Epoch,
    in_the_detector: Detector,
    around_a_core_dump: Coredump,
}

#[tokio::test]
async fn the_writer_of_core_dumps_may_panic() {
    let mut daemon = provoked("DumpWriter");
    let at = daemon.running().address();
    daemon.apply(&app());
    assert_eq!(get(at, "dumped.test", "/crash").await.status, 500);
    daemon.running().line_with("a panic was asked for");
    let ended = tokio::time::timeout(PATIENCE, get(at, "fresh.test", "/burn?ms=1")).await;
    assert_eq!(ended.expect("in time").status, 200);
    let (status, said) = daemon.running.take().expect("started").interrupt();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn without_the_variable_nothing_is_provoked() {
    let mut daemon = provoked("");
    work(&mut daemon);
    let (status, said) = daemon.running.take().expect("started").interrupt();
    assert!(status.success(), "{status}: {said}");
}
