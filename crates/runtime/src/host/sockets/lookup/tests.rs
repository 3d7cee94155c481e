//! How long a lookup keeps its room, and what a name may lead to.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{HostPattern, Outbound, Scheme},
};
use tokio::sync::Semaphore;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::{
    super::{Ask, CurrentRequest, PodLog, Servers},
    *,
};
use crate::logs::Ring;

const PORT: u16 = 5432;

/// What an instance with `allow.outbound = ["tcp://db.example:5432", …]` connects with, and what is
/// said of it.
fn dialler(ask: Ask) -> (Arc<Dialler>, Arc<Ring>) {
    let rule = |host: &str| Outbound {
        scheme: Scheme::Tcp,
        host: HostPattern::Exact(host.to_owned()),
        port: PORT,
    };
    let servers = Servers::new(&["db.example", "localhost", "bad name.example"].map(rule));
    let name = |text| Name::parse(text).expect("a name");
    let service = ServiceKey {
        app: name("shop"),
        name: name("web"),
    };
    let ring = Arc::new(Ring::default());
    let pod = PodName::new(&service, 1, 0);
    let log = PodLog::new(&ring, pod, &Arc::default(), 1 << 20, &Arc::default());
    let request = Arc::new(CurrentRequest::default());
    let made = Dialler::new(&Arc::new(servers), &log, &request);
    let made = Arc::into_inner(made).expect("just made");
    (Arc::new(Dialler { ask, ..made }), ring)
}

/// Room for a lookup, and that it is taken.
fn room() -> (Arc<Semaphore>, Permits) {
    let all = Arc::new(Semaphore::new(2));
    let take = || Arc::clone(&all).try_acquire_owned().expect("there is room");
    let permits = [take(), take()];
    (all, permits)
}

async fn found(ask: Ask, name: &str) -> (Addresses, Arc<Dialler>, Vec<String>) {
    let (dialler, ring) = dialler(ask);
    let addresses = match begin(Arc::clone(&dialler), name, room().1) {
        Ok(lookup) => lookup.await,
        Err(failed) => Err(failed),
    };
    let said = ring.read(0, 100).lines.into_iter().map(|line| line.text);
    (addresses, dialler, said.collect())
}

/// Whether a connection may be made to an address.
fn reaches(dialler: &Dialler, ip: IpAddr) -> bool {
    dialler.check(SocketAddr::new(ip, PORT), SocketAddrUse::TcpConnect)
}

const INNER: [&str; 9] = [
    "127.0.0.1",
    "::1",
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "fe80::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[tokio::test]
async fn a_public_name_never_leads_to_an_inner_address() {
    let ask: Ask = |_| Ok(INNER.map(address).to_vec());
    let (shown, dialler, said) = found(ask, "db.example").await;
    assert_eq!(shown, Ok(Vec::new()));
    for inner in INNER.map(address) {
        assert!(!reaches(&dialler, inner), "{inner}");
    }
    let hint = "`db.example` leads to `169.254.169.254`, which is no public address; \
                `allow.outbound` with the address in place of the name would allow it";
    assert!(said.iter().any(|line| line.contains(hint)), "{said:#?}");
}

#[tokio::test]
async fn of_a_name_with_both_the_public_addresses_are_shown() {
    let ask: Ask = |_| Ok(["10.0.0.1", "8.8.8.8", "::1"].map(address).to_vec());
    let (shown, dialler, _) = found(ask, "db.example").await;
    assert_eq!(shown, Ok(vec![address("8.8.8.8")]));
    assert!(reaches(&dialler, address("8.8.8.8")));
    assert!(!dialler.check(
        SocketAddr::new(address("8.8.8.8"), PORT + 1),
        SocketAddrUse::TcpConnect
    ));
    assert!(!reaches(&dialler, address("10.0.0.1")));
}

#[tokio::test]
async fn a_name_that_changes_its_mind_gains_nothing() {
    let first: Ask = |_| Ok(vec![address("8.8.8.8")]);
    let (dialler, _) = dialler(first);
    let looked = begin(Arc::clone(&dialler), "db.example", room().1).expect("begun");
    assert_eq!(looked.await, Ok(vec![address("8.8.8.8")]));
    let dialler = Arc::into_inner(dialler).expect("the lookup is over");
    let ask: Ask = |_| Ok(vec![address("127.0.0.1")]);
    let dialler = Arc::new(Dialler { ask, ..dialler });
    let looked = begin(Arc::clone(&dialler), "db.example", room().1).expect("begun");
    assert_eq!(looked.await, Ok(Vec::new()));
    assert!(!reaches(&dialler, address("127.0.0.1")));
}

#[tokio::test]
async fn localhost_leads_to_loopback_alone() {
    let ask: Ask = |_| Ok(["127.0.0.1", "10.0.0.1", "8.8.8.8"].map(address).to_vec());
    let (shown, dialler, _) = found(ask, "localhost").await;
    assert_eq!(shown, Ok(vec![Ipv4Addr::LOCALHOST.into()]));
    assert!(!reaches(&dialler, address("8.8.8.8")));
}

#[tokio::test]
async fn what_is_no_name_is_not_asked_for() {
    let ask: Ask = |name| panic!("asked for {name}");
    for name in ["", "bad name.example", "a\0b", &"a.".repeat(200)] {
        let (addresses, ..) = found(ask, name).await;
        assert_eq!(addresses, Err(Failed::NoName), "{name:?}");
    }
    let ask: Ask = |_| Err(io::ErrorKind::NotFound.into());
    let (addresses, ..) = found(ask, "db.example").await;
    assert_eq!(addresses, Err(Failed::Unresolved));
}

/// What a resolver whose name server takes its time is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    NotAsked,
    Asked,
    Answered,
}

static STAGE: (Mutex<Stage>, Condvar) = (Mutex::new(Stage::NotAsked), Condvar::new());

fn set(stage: Stage) {
    *STAGE.0.lock() = stage;
    STAGE.1.notify_all();
}

fn wait_for(wanted: Stage) {
    let mut stage = STAGE.0.lock();
    STAGE.1.wait_while(&mut stage, |stage| *stage != wanted);
}

fn slow(_: &str) -> io::Result<Vec<IpAddr>> {
    set(Stage::Asked);
    wait_for(Stage::Answered);
    Ok(Vec::new())
}

#[tokio::test]
async fn a_lookup_that_is_given_up_keeps_its_room_until_its_thread_is_done() {
    let (dialler, _) = dialler(slow);
    let (all, permits) = room();
    let looked = begin(dialler, "db.example", permits).expect("begun");
    wait_for(Stage::Asked);
    drop(looked);
    let free = all.available_permits();
    // Before anything can fail: the thread would keep the test from its end.
    set(Stage::Answered);
    assert_eq!(free, 0);
    let back = tokio::time::timeout(Duration::from_secs(20), all.acquire_many(2)).await;
    assert!(back.is_ok(), "the room is not given back");
}
