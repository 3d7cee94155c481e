//! A disk that is full, in earnest: a small file system under the data directory.

use std::{fs::File, io::Write as _, path::PathBuf};

use super::Daemon;
use crate::rig::{Response, err, get, guest, send};

/// What the file system has room for.
const DISK_MIB: u64 = 48;

/// Two services: one with files on a volume, one that counts in a key-value store.
fn spec() -> String {
    let (files, visits) = (guest("env-and-files"), guest("visits"));
    format!(
        "[volume.data]\nquota = '1GiB'\n\
         [service.files]\ncomponent = '{files}'\nroute = ['files/']\n\
         allow.files = [{{ volume = 'data', guest = '/data', access = 'read-write' }}]\n\
         [service.visits]\ncomponent = '{visits}'\nroute = ['visits/']\n\
         allow.keyvalue = ['visits']\n"
    )
}

/// Takes what is left of the disk, until it is removed.
struct Ballast(PathBuf);

impl Ballast {
    /// As a program beside the daemon would, in the daemon's view of the files.
    fn fill(daemon: &mut Daemon) -> Self {
        let (pid, data) = (daemon.running().id(), daemon.place("data"));
        let path = PathBuf::from(format!("/proc/{pid}/root{data}/ballast"));
        let mut file = File::create(&path).expect("it is ours");
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_an_error_for_guests_and_people_until_there_is_room() {
    let mut daemon = Daemon::new();
    daemon.disk_mib = Some(DISK_MIB);
    if !daemon.has_small_disk() {
        eprintln!("SKIPPED: this user may not make a mount namespace with a small file system");
        return;
    }
    daemon.launch();
    let at = daemon.running().address();
    daemon.apply(&spec());
    let put = async |name: &str, mib: usize| -> Response {
        send(
            at,
            "PUT",
            "files",
            &format!("/file/{name}"),
            vec![b'x'; mib << 20],
        )
        .await
    };
    let count = async || get(at, "visits", "/").await;
    assert_eq!(put("kept", 1).await.status, 201);
    assert_eq!(count().await.body, "1\n");

    // What the guest writes itself leaves the node a tenth of the disk.
    let mut written = 1;
    let refused = loop {
        let answer = put(&format!("more-{written}"), 1).await;
        if answer.status != 201 {
            break answer;
        }
        written += 1;
        assert!(written < DISK_MIB, "the disk is never full");
    };
    assert_eq!(refused.status, 507, "{refused:?}");
    let told = "the disk of volume `data` is 90 % full";
    let said = err(&daemon.ask(&["logs", "files"]));
    assert!(said.contains(told), "{said}");
    // That is no failure of the rest.
    assert_eq!(count().await.body, "2\n");
    daemon.apply(&spec().replace("['visits/']", "['visits/', 'counts/']"));

    // Another program takes the rest.
    let ballast = Ballast::fill(&mut daemon);
    assert_eq!(put("another", 1).await.status, 507);
    assert_eq!(get(at, "files", "/file/kept").await.status, 200);
    let failed = count().await;
    let told = "the disk of the node is full\n";
    assert_eq!((failed.status, failed.body.as_str()), (500, told));
    let path = daemon.spec(&spec().replace("['visits/']", "['visits/', 'others/']"));
    let applied = daemon.ask(&["apply", "-f", &path]);
    assert_eq!(applied.status.code(), Some(1), "{}", err(&applied));
    let told = "no room to write to";
    assert!(err(&applied).contains(told), "{}", err(&applied));
    let said = daemon.must(&["get", "pods"]);
    assert!(said.contains("files-1-0"), "{said}");
    for object in ["service/files", "pod/files-1-0"] {
        let described = daemon.must(&["describe", object]);
        let told = "the disk of volume `data` is 90 % full, and volumes take no more then";
        assert!(described.contains(told), "{described}");
    }

    // Once there is room all goes on, without a restart.
    drop(ballast);
    assert_eq!(count().await.body, "3\n");
    daemon.must(&["apply", "-f", &path, "--wait"]);
    assert_eq!(get(at, "others", "/").await.body, "4\n");
    let (status, talk) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}
