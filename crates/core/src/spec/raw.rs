//! The spec as it is written: every table and key, declared once.
//!
//! What a declaration gives, and how, is told at [`table!`](table). The documentation of a key
//! is also its description in the JSON Schema and in the reference for users.

mod address;
mod choice;
pub(crate) mod decode;
mod leaf;
mod list;
mod network;
pub(crate) mod node;
mod number;
pub(crate) mod schedule;
pub(crate) mod schema;
mod table;
mod text;
mod variable;

pub(crate) use address::server;
pub(crate) use leaf::At;
pub(crate) use list::{Dependencies, Map, OneOrMany};
pub(crate) use network::Network;
pub(crate) use number::{Count, CpuShare, Flag, Fuel, Pods, Positive, Share, Size, Time};
pub(crate) use schedule::{Expression, Zone};
pub(crate) use text::{
    Command, ConfigKey, Digest, GuestPath, HostPath, RequestPath, Text, VariableName,
};
pub(crate) use variable::{SecretVariable, Variable};

use table::table;

use crate::{
    name::Name,
    object::{Access, Isolation, OnFailure, Outbound, Overlap, RestartPolicy, Route, Strategy},
};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

table! {
    /// An app: services and jobs under one name, on one private network.
    struct App {
        /// The app's name.
        required app: At<Name>, "\"shop\"";
        /// Long-running workloads, each under its name.
        nested service: Map<Name, Service>;
        /// Components that run to completion, each under its name.
        nested job: Map<Name, Job>;
        /// Directories that the node keeps for the app, each under its name.
        nested volume: Map<Name, Volume>;
        /// Values that are not to be seen, each under its name.
        nested secret: Map<Name, Secret>;
    }
}

table! {
    /// A directory that the node keeps for the app. It is there from its first use on, and outlives
    /// pods, revisions, `up` and the node's process; `sampan delete APP --volumes` removes it.
    /// Services and jobs see it where `allow.files` mounts it.
    struct Volume {
        /// How much may be in it: each file, directory and link takes 4 KiB, and what a file holds
        /// takes whole blocks of 4 KiB, up to its end even where nothing was written before. A
        /// write beyond it gets "no space left", as do all writes while the disk is 90 % full.
        preset quota: At<Size<{ 64 * KIB }, { 16 * TIB }>>, "1GiB";
    }
}

table! {
    /// A value that is not to be seen, such as a password: either `file` or `env` says where
    /// `sampan apply` or `sampan up` finds it. A guest sees it as a variable, with
    /// `env = { DB_PASSWORD = { secret = "NAME" } }`, or as a file, with
    /// `allow.files = [{ secret = "NAME" }]`: the file has the bytes as they are, the variable has
    /// them without the line end that a file ends with. The node keeps it encrypted and shows it in
    /// no answer, event or error, and puts `***` in its place where a guest prints it. Another value
    /// is another revision. A secret has at most 64 KiB, all of an app together 256 KiB.
    struct Secret {
        /// The file with the value, relative to this file.
        optional file: At<HostPath>;
        /// The variable with the value, in the environment of `sampan`.
        optional env: At<VariableName>;
    }
}

table! {
    /// A long-running workload: a number of replicas of one component behind one name. What the
    /// component exports decides of which kind it is. With an HTTP handler it answers requests. With
    /// `wasi:cli/run` alone it is a command, as a worker is: each pod runs it until it ends, and
    /// `restart` says what then happens; it is ready once it has started, and of `route`,
    /// `isolation`, `concurrency`, `max_requests`, `max_age`, `debug_headers` and probes by `http` it
    /// takes none.
    struct Service {
        /// Path of the component, relative to this file. Of a core module for WASI preview 1 a
        /// component is made. A service has either this or `static`.
        either component: At<HostPath>, "\"web.wasm\"", "static", "\"public\"";
        /// Directory, relative to this file, whose files are served as they are: a service without a
        /// component. A path of a request is that of a file in it, and a directory is its
        /// `index.html`. Where there are `app.js.br` or `app.js.gz` too, a client that takes them gets
        /// them for `app.js`. Names that begin with a dot are left out, but for `.well-known`, and
        /// links are followed as long as they stay in the directory. The files are read when the
        /// spec is applied: a changed one is a new revision. At most 10000 files of 64 MiB each, and
        /// 1 GiB in all. Of the other keys it takes `fallback`, `not_found`, `replicas`, `route`,
        /// `depends_on`, `profiles`, `debug_headers`, `rollout`, `build` and `watch`.
        optional r#static: At<HostPath>;
        /// The file of `static` that answers where there is none, with status 200: the page of a
        /// single-page app. Only for paths whose last part has no dot, because who asks for a missing
        /// script is not helped by a page.
        optional fallback: At<Text>;
        /// The file of `static` that comes with status 404 where there is no file.
        optional not_found: At<Text>;
        /// SHA-256 the component must have, as `sha256:` and 64 hex digits. `sampan inspect`
        /// tells it.
        optional digest: At<Digest>;
        /// Command that makes the component, as `sh -c` runs it in the directory of this file. It
        /// runs on the machine of the user: with `sampan up --build` and `apply --build`, and with
        /// `up --watch` when something in `watch` changes. Where several have the same command, it
        /// runs once for all of them. A node never sees it, and changing it is no new revision.
        optional build: At<Command>;
        /// Files and directories, relative to this file, whose change runs `build` while
        /// `sampan up --watch` runs. What is in a directory counts, however deep, but for what
        /// `.gitignore` leaves out, `.git`, `node_modules`, build directories with a `CACHEDIR.TAG`,
        /// the components themselves and what editors keep beside a file.
        nested watch: Vec<At<HostPath>>;
        /// Arguments after the name of the program.
        nested args: Vec<At<Text>>;
        /// How many pods run. With 0 the service is there but answers nothing.
        preset replicas: At<Count<0, 1000>>, 1;
        /// What one request shares with the next: with `pod` a pod keeps one instance and its
        /// memory, with `request` every request gets a fresh one. Without it the component's
        /// world decides: `request` for WASI 0.2, `pod` for WASI 0.3.
        optional isolation: At<Isolation>;
        /// Requests in flight per pod. Without it the component's world and isolation decide.
        optional concurrency: At<Count<1, 10_000>>;
        /// Requests after which a pod that keeps its instance makes another one in its place, with
        /// its probes by `http` among them. Those under way end in the old one, and none is lost.
        /// `1` is for components that answer only once, as those made of JavaScript.
        optional max_requests: At<Count<1, { u32::MAX }>>;
        /// Age from which on a request gets another instance of a pod that keeps its own, likewise.
        optional max_age: At<Time<1>>;
        /// Which requests from outside reach the service: a host and a path prefix, as in
        /// `shop.localhost/`, or a path prefix alone for any host, as in `/api`. `/api` matches
        /// `/api` and all below it, not `/apis`; `/api/` matches `/api/` and all below it, not
        /// `/api`. Nothing in a path is a pattern. The longest prefix wins. Paths that RFC 3986
        /// calls equal are one path: a request for `/x/../%61pi` goes where `/api` goes, and the
        /// guest sees what was sent. Without a route the service can only be reached by other
        /// services. WebSocket is not offered: a request for it is answered with 501.
        nested route: Vec<At<Route>>;
        /// Services and jobs to wait for: a list, which means `ready` for a service and
        /// `completed` for a job, or a table with `started`, `ready` or `completed` for each.
        /// A service that is waited for may also be called. When both stop, this stops first: what it
        /// waits for goes on until its requests have ended.
        nested depends_on: Dependencies;
        /// Environment variables of the guest: texts, or secrets as in `{ secret = "db" }`. They win
        /// over those of `env_file`.
        nested env: Map<VariableName, Variable>;
        /// A file with a `NAME=value` on each line, or several; later ones win.
        nested env_file: OneOrMany<At<HostPath>>;
        /// Values the guest reads through `wasi:config`.
        nested config: Map<ConfigKey, At<Text>>;
        /// Profiles the service belongs to. It is left out unless one of them is asked for.
        nested profiles: Vec<At<Name>>;
        /// Whether responses carry `Sampan-Revision` and `Sampan-Pod`.
        preset debug_headers: At<Flag>, false;
        /// Whether an instance that traps, is killed or is in a deadlock leaves a core dump: a
        /// file with all its memories, and the secrets in them. The last 3 of a pod are kept, in
        /// `$XDG_STATE_HOME/sampan/coredumps` and there under the name of the app.
        preset coredump: At<Flag>, false;
        /// What the guest may reach. Everything else is denied.
        nested allow: Allow;
        /// What the guest may use.
        nested limits: Limits;
        /// Probe that must succeed before the pod counts as started; the others wait for it.
        optional startup: Probe;
        /// Probe that decides whether the pod gets requests.
        optional readiness: Probe;
        /// Probe whose failure restarts the pod.
        optional liveness: Probe;
        /// When and how fast a pod that has ended is started again.
        nested restart: Restart;
        /// How a new revision replaces the old.
        nested rollout: Rollout;
        /// Bounds and targets between which the number of replicas moves by itself.
        optional autoscale: Autoscale;
        /// On which nodes of a cluster the pods run.
        nested placement: Placement;
    }
}

table! {
    /// A component that runs to completion: once, or by a schedule.
    struct Job {
        /// Path of the component, relative to this file. Of a core module for WASI preview 1 a
        /// component is made.
        required component: At<HostPath>, "\"migrate.wasm\"";
        /// SHA-256 the component must have, as `sha256:` and 64 hex digits. `sampan inspect`
        /// tells it.
        optional digest: At<Digest>;
        /// Command that makes the component, as `sh -c` runs it in the directory of this file. It
        /// runs on the machine of the user: with `sampan up --build` and `apply --build`, and with
        /// `up --watch` when something in `watch` changes. Where several have the same command, it
        /// runs once for all of them. A node never sees it, and changing it is no new revision.
        optional build: At<Command>;
        /// Files and directories, relative to this file, whose change runs `build` while
        /// `sampan up --watch` runs. What is in a directory counts, however deep, but for what
        /// `.gitignore` leaves out, `.git`, `node_modules`, build directories with a `CACHEDIR.TAG`,
        /// the components themselves and what editors keep beside a file.
        nested watch: Vec<At<HostPath>>;
        /// Arguments after the name of the program.
        nested args: Vec<At<Text>>;
        /// How often a failed run is tried again.
        preset retries: At<Count<0, 1000>>, 0;
        /// When the job runs, as in crontab: minute, hour, day of the month, month and day of the
        /// week. `"*/5 * * * *"` is every five minutes, `"30 2 * * MON-FRI"` half past two on
        /// weekdays, `"0 0 L * *"` midnight before the last day of each month. Each field is `*`, or a
        /// list of numbers and ranges, each perhaps with a step, or of the names of months and days;
        /// where both the day of the month and the day of the week are not `*`, either is enough. Where
        /// clocks are changed, a time that is left out is due right after the change, and one that
        /// comes twice the first time; an hour of `*` is every hour that passes. Times that pass while
        /// the node is down come to one run when it is up again. Without a schedule the job runs once.
        optional schedule: At<Expression>;
        /// The time zone of `schedule`, by its name in the IANA database.
        preset timezone: At<Zone>, "UTC";
        /// What becomes of a run that is due while another one is under way.
        preset overlap: At<Overlap>, "skip";
        /// Time one attempt may take. One that takes longer is ended, and has failed. Without it there
        /// is no limit.
        optional timeout: At<Time<1>>;
        /// How many of its last runs are kept, for `sampan describe`.
        preset history: At<Count<1, 100>>, 10;
        /// Environment variables of the guest: texts, or secrets as in `{ secret = "db" }`. They win
        /// over those of `env_file`.
        nested env: Map<VariableName, Variable>;
        /// A file with a `NAME=value` on each line, or several; later ones win.
        nested env_file: OneOrMany<At<HostPath>>;
        /// Values the guest reads through `wasi:config`.
        nested config: Map<ConfigKey, At<Text>>;
        /// Services and jobs to wait for: a list, which means `ready` for a service and
        /// `completed` for a job, or a table with `started`, `ready` or `completed` for each.
        /// A service that is waited for may also be called. When both stop, the job is ended first.
        nested depends_on: Dependencies;
        /// Profiles the job belongs to. It is left out unless one of them is asked for.
        nested profiles: Vec<At<Name>>;
        /// What the guest may reach. Everything else is denied.
        nested allow: Allow;
        /// What the guest may use.
        nested limits: Limits;
    }
}

table! {
    /// What a guest may reach. Everything else is denied.
    struct Allow {
        /// Services of the same app it may call by name. Those in `depends_on` need not be
        /// repeated.
        nested services: Vec<At<Name>>;
        /// Servers outside the app it may call: `scheme://host`, perhaps with a port.
        /// `https://*.example.com` stands for every name below `example.com`. `tcp://HOST:PORT` is
        /// a server of any other protocol, such as a database: it is reached with `wasi:sockets`,
        /// and its name may be looked up. A name leads to public addresses only, unless it is
        /// `localhost`; others stand here themselves, as in `tcp://10.0.0.5:5432`.
        nested outbound: Vec<At<Outbound>>;
        /// Directories it sees, of the host or volumes of the app, and secrets as files.
        nested files: Vec<Mount>;
        /// Key-value stores it may open with `wasi:keyvalue`, by name. A store belongs to the app:
        /// services and jobs that name the same one share it, and other apps never do. What is in
        /// it stays until it is deleted, whatever becomes of pods and revisions.
        nested keyvalue: Vec<At<Name>>;
    }
}

table! {
    /// A directory that the guest sees, or a file with a secret: one of `host`, `volume` and `secret`
    /// says which.
    struct Mount {
        /// The directory on the host, relative to this file.
        optional host: At<HostPath>;
        /// The volume of this app, which a table `[volume.NAME]` declares.
        optional volume: At<Name>;
        /// The secret of this app, which a table `[secret.NAME]` declares. It is a file that can only
        /// be read, and is on no disk.
        optional secret: At<Name>;
        /// The absolute path at which the guest sees it. Only a secret has a usual one,
        /// `/run/secrets/NAME`.
        optional guest: At<GuestPath>;
        /// What the guest may do there.
        preset access: At<Access>, "read-only";
    }
}

table! {
    /// What a guest may use. Jobs, and services that run a command, answer no requests: for them
    /// `request_timeout`, `request_cpu`, `queue`, `queue_timeout` and `body` do not count. They may
    /// compute for as long as they like, which `cpu` bounds; `fuel` is for all that an instance does.
    struct Limits {
        /// All linear memories and tables of one instance together.
        preset memory: At<Size<{ 64 * KIB }, { 4 * GIB }>>, "128MiB";
        /// Share of a core one pod may use, and the 100 % of the autoscaler: so much CPU time of
        /// all its instances in each 100 ms. When it is used up, they are held back until there is
        /// more. That time counts towards `request_timeout`, not towards `request_cpu` or the
        /// `timeout` of a probe. Without it there is no cap.
        optional cpu: At<CpuShare>;
        /// Time one request may take, from its arrival at the pod to the last byte of its
        /// response; `0s` means any time, as a stream may need.
        preset request_timeout: At<Time<0>>, "30s";
        /// CPU time of guest code one request may use without a wait. A request that waits again and
        /// again may use it each time, as long as it uses at most ten times that more than it waits:
        /// an answer that computes for less than half of its time may go on for hours. `0s` means
        /// any time.
        preset request_cpu: At<Time<0>>, "1s";
        /// Wasmtime fuel one request may use in all, however it waits: a budget that is the same
        /// on every machine. Without it fuel is not counted.
        optional fuel: At<Fuel>;
        /// Requests that may wait for a pod; one more is answered with 503.
        preset queue: At<Count<0, 1_000_000>>, 1024;
        /// How long one of them may wait before it is answered with 503. One that no pod can take within this time is answered so at once.
        preset queue_timeout: At<Time<1>>, "10s";
        /// Largest body of a request; a larger one is answered with 413.
        preset body: At<Size<0, TIB>>, "16MiB";
    }
}

table! {
    /// A question the guest must answer: either `http` or `export` says which.
    struct Probe {
        /// Path to `GET`; a status from 200 to 399 is success. Redirects are not followed.
        optional http: At<RequestPath>;
        /// Whether to call the guest's export of `sampan:pod/health`.
        optional export: At<Flag>;
        /// Time between two tries.
        preset period: At<Time<1>>, "10s";
        /// Time one try may take.
        preset timeout: At<Time<1>>, "1s";
        /// Failures in a row that count as failure.
        preset failures: At<Count<1, 1000>>, 3;
        /// Successes in a row that count as success; 1 for startup and liveness.
        preset successes: At<Count<1, 1000>>, 1;
        /// Time before the first try.
        preset delay: At<Time<0>>, "0s";
    }
}

table! {
    /// When and how fast a pod that has ended is started again.
    struct Restart {
        /// When: after every end, after a failure, or never. A command that ends with exit code 0 has
        /// not failed: with `always` it is started again all the same, after the same delays.
        preset policy: At<RestartPolicy>, "always";
        /// The first delay; it doubles with each end.
        preset initial: At<Time<1>>, "200ms";
        /// The longest delay.
        preset max: At<Time<1>>, "60s";
        /// Time of health after which the delay is `initial` again.
        preset reset_after: At<Time<1>>, "60s";
    }
}

table! {
    /// How a new revision replaces the old.
    struct Rollout {
        /// Pod by pod, or all at once.
        preset strategy: At<Strategy>, "rolling";
        /// Pods above `replicas`: a number, or a percentage of the replicas, rounded up.
        preset max_surge: At<Pods>, "25%";
        /// Pods below `replicas`: a number, or a percentage of the replicas, rounded down.
        preset max_unavailable: At<Pods>, 0;
        /// Time a pod must be ready without a break before it counts as available.
        preset min_ready: At<Time<0>>, "0s";
        /// Time without progress after which the rollout has failed.
        preset progress_deadline: At<Time<1>>, "60s";
        /// What happens then: the last good revision is restored, or everything holds.
        preset on_failure: At<OnFailure>, "rollback";
        /// How many old revisions are kept.
        preset history: At<Count<0, 1000>>, 10;
        /// Time the requests in flight have to end when a pod is stopped.
        preset drain: At<Time<0>>, "30s";
    }
}

table! {
    /// On which nodes of a cluster the pods run. A node that is alone runs all of them, whatever is
    /// said here. A change of it makes no new revision: pods that should not be where they are leave
    /// their nodes as a rollout would replace them. Pods that write to a volume all run on the node
    /// that keeps it.
    struct Placement {
        /// Labels that a node must have, as in `{ zone = "a" }`: what `sampan cluster join --label`
        /// or `sampan label` gave it.
        nested nodes: Map<Name, At<Name>>;
        /// Over what pods are spread: `node`, or the name of a label, such as `zone`, whose values
        /// get the same number of pods each, as far as there is room. Nodes without the label
        /// count as those of one more value.
        preset spread: At<Name>, "node";
        /// Memory that each pod reserves on its node. Without it that is `limits.memory`: enough for
        /// one instance of the component.
        optional memory: At<Size<0, TIB>>;
    }
}

table! {
    /// Between which bounds, and towards what, the number of replicas moves by itself. At least
    /// one of `cpu`, `concurrency` and `rps` is needed; the one that asks for most pods wins.
    struct Autoscale {
        /// The fewest pods; with 0 the service scales to nothing when it is idle.
        preset min: At<Count<0, 1000>>, 1;
        /// The most pods.
        required max: At<Count<1, 1000>>, "20";
        /// CPU each pod should use, as a percentage of `limits.cpu`.
        optional cpu: At<Share>;
        /// Requests each pod should have in flight.
        optional concurrency: At<Positive>;
        /// Requests each pod should answer per second.
        optional rps: At<Positive>;
        /// How far back the highest need is looked for before pods are taken away.
        preset stabilization: At<Time<0>>, "300s";
        /// Time without a request after which the service scales to nothing, if `min` is 0.
        preset idle: At<Time<1>>, "60s";
    }
}
