//! The configuration of a node as it is written.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    At, Count, GIB, HostPath, KIB, Network, Size, TIB, Time,
    decode::{Absent, Decoder},
    table::table,
};
use crate::spec::problem::{Place, Report};

/// What a value of the file is for the components that heed it.
pub(crate) trait Plain<P> {
    fn plain(&self) -> P;
}

impl<T: Plain<P>, P> Plain<P> for At<T> {
    fn plain(&self) -> P {
        self.value.plain()
    }
}

impl<T: Plain<P>, P> Plain<Vec<P>> for Vec<T> {
    fn plain(&self) -> Vec<P> {
        self.iter().map(T::plain).collect()
    }
}

impl<const MIN: u32, const MAX: u32, P: TryFrom<u32>> Plain<P> for Count<MIN, MAX> {
    fn plain(&self) -> P {
        let plain = P::try_from(self.0).ok();
        plain.expect("`MAX` of a table is within the type of its field")
    }
}

impl<const MIN: u64, const MAX: u64, P: TryFrom<u64>> Plain<P> for Size<MIN, MAX> {
    fn plain(&self) -> P {
        let plain = P::try_from(self.0.0).ok();
        plain.expect("`MAX` of a table is within the type of its field")
    }
}

impl<const MIN_MS: u64> Plain<Duration> for Time<MIN_MS> {
    fn plain(&self) -> Duration {
        self.0
    }
}

impl Plain<IpNet> for Network {
    fn plain(&self) -> IpNet {
        self.0
    }
}

impl Plain<PathBuf> for HostPath {
    fn plain(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }
}

/// What a table says that is not in the file.
pub(crate) fn defaults<T: Absent>() -> T {
    let mut decoder = Decoder::new(&|_| None, Report::new("defaults", ""));
    T::absent(Place::root(), &mut decoder)
}

/// Declares a table, and a struct of what it says: behind `=>` is each field with its type.
macro_rules! limits {
    (
        $(#[doc = $table_doc:literal])+
        struct $table:ident => $limits:ident {
            $(
                $(#[doc = $doc:literal])+
                $need:ident $key:ident : $type:ty $(, $default:literal)? => $field:ident : $plain:ty ;
            )+
        }
    ) => {
        table! {
            $(#[doc = $table_doc])+
            struct $table {
                $(
                    $(#[doc = $doc])+
                    $need $key : $type $(, $default)? ;
                )+
            }
        }

        $(#[doc = $table_doc])+
        ///
        /// Sizes are in bytes, and rates in bytes a second.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $limits {
            $(
                $(#[doc = $doc])+
                pub $field: $plain,
            )+
        }

        impl From<&$table> for $limits {
            fn from(raw: &$table) -> Self {
                Self { $($field: raw.$key.plain(),)+ }
            }
        }

        impl Default for $limits {
            fn default() -> Self {
                Self::from(&defaults::<$table>())
            }
        }
    };
}

table! {
    /// What a node decides for everything that runs on it.
    struct Node {
        /// Limits on clients.
        nested gateway: Gateway;
        /// Limits on guests that hold whatever their spec says.
        nested guest: Guest;
        /// Limits on compiling one component.
        nested compile: Compile;
        /// Limits on key-value stores.
        nested keyvalue: KeyValue;
        /// What a daemon keeps of what guests print.
        nested logs: Logs;
        /// How much there may be of what is applied to the node.
        nested quota: Quota;
        /// What of this machine guests may be lent.
        nested node: Machine;
    }
}

table! {
    /// How much all apps of the node together may come to. A change that asks for more is refused,
    /// before anything is touched; one that asks for less, and a deletion, never is. Counted is
    /// what an app may come to: the pods of a service are those that its autoscaler may ask for,
    /// with the surge of a rollout.
    struct Quota {
        /// Apps.
        preset apps: At<Count<1, 100_000>>, 1000;
        /// Services.
        preset services: At<Count<1, 1_000_000>>, 10_000;
        /// Jobs.
        preset jobs: At<Count<0, 1_000_000>>, 10_000;
        /// Pods.
        preset pods: At<Count<1, 10_000_000>>, 100_000;
        /// `limits.memory` of all pods and jobs. Few ever use all of it, so it may be more than
        /// the machine has.
        preset memory: At<Size<{ 1024 * KIB }, { 1024 * TIB }>>, "16TiB";
        /// How much each app may come to.
        nested app: AppQuota;
    }
}

table! {
    /// How much each app may come to, counted in the same way.
    struct AppQuota {
        /// Services. A change of all of them is one transaction, which is why there cannot be more.
        preset services: At<Count<1, 3000>>, 2000;
        /// Jobs.
        preset jobs: At<Count<0, 2000>>, 1000;
        /// Pods.
        preset pods: At<Count<1, 10_000_000>>, 100_000;
        /// `limits.memory` of all its pods and jobs.
        preset memory: At<Size<{ 1024 * KIB }, { 1024 * TIB }>>, "16TiB";
    }
}

table! {
    /// What of this machine guests may be lent. `serve` heeds it; `run` and `up` lend what their
    /// user names.
    struct Machine {
        /// Directories in and below which the directories in `files` of a spec must lie, absolute.
        nested volumes: Vec<At<HostPath>>;
        /// Pods that run here at most, where it is one node of a cluster.
        preset pods: At<Count<0, 100_000>>, 10_000;
        /// Memory that pods may reserve here, where it is one node of a cluster. Without it that is
        /// 80 % of what the machine has, or the control group that `sampan` runs in.
        optional memory: At<Size<0, { 1024 * TIB }>>;
    }
}

limits! {
    /// Limits on clients. The defaults suit a server on the open internet; most follow what Envoy
    /// recommends for an edge proxy.
    struct Gateway => GatewayLimits {
        /// Proxies in front of this node: their addresses, or networks of them. From them alone
        /// `X-Forwarded-*`, `Forwarded`, `X-Real-IP` and `X-Request-Id` are believed. They may open
        /// as many connections as they like; limits for a client hold for those they name.
        nested trusted_proxies: Vec<At<Network>> => trusted_proxies: Vec<IpNet>;
        /// Open connections. At the limit new ones wait in the kernel.
        preset connections: At<Count<1, 1_000_000>>, 10_000 => connections: usize;
        /// Connections open at once from one client: an IPv4 address, or the /64 of an IPv6
        /// address. More are reset. Loopback has no limit.
        preset connections_per_client: At<Count<1, 1_000_000>>, 256
            => connections_per_client: usize;
        /// Head of a request. A larger one is answered with 431.
        preset head: At<Size<{ 8 * KIB }, { 1024 * KIB }>>, "32KiB" => header_bytes: usize;
        /// Header fields of a request. More are answered with 431.
        preset fields: At<Count<1, 10_000>>, 100 => headers: usize;
        /// Path and query of a request. A longer one is answered with 414.
        preset uri: At<Size<64, { 60 * KIB }>>, "8KiB" => uri_bytes: usize;
        /// Time from the first byte of a head to its last, and from a new connection to its first
        /// request.
        preset head_timeout: At<Time<1>>, "10s" => header_read_timeout: Duration;
        /// Time a connection may stay open without a request.
        preset idle_timeout: At<Time<1>>, "75s" => idle_timeout: Duration;
        /// Time a request body may pause while it is waited for. Then the request is answered with
        /// 408.
        preset body_idle_timeout: At<Time<1>>, "15s" => body_idle_timeout: Duration;
        /// What a request body has to come with a second on average, counted after the first
        /// `body_idle_timeout` of waiting for it. A slower one is answered with 408.
        preset body_min_rate: At<Size<0, { GIB }>>, "240B" => body_min_rate: u64;
        /// What is read of a request body before the request gets a place of a pod. A body that is
        /// no longer is whole by then, and holds no place however slowly it comes. More is read
        /// while the guest reads.
        preset body_read_ahead: At<Size<0, { 16 * 1024 * KIB }>>, "256KiB"
            => body_read_ahead: usize;
        /// What is read of an answer while other requests wait for its place and its client does
        /// not read. An answer that is no longer gives its place back.
        preset answer_read_ahead: At<Size<0, { 16 * 1024 * KIB }>>, "256KiB"
            => answer_read_ahead: usize;
        /// What all bodies that are read ahead may hold together. Once that is used up, requests
        /// get a place with bodies that are not whole, behind those whose bodies are.
        preset read_ahead_total: At<Size<0, { 64 * GIB }>>, "64MiB" => read_ahead_total: usize;
        /// Time a client may keep a place of a pod waiting, in sending its body or in reading its
        /// answer, while other requests wait for a place; the less, the more of them wait for each.
        /// One that takes longer loses it: it is answered with 408, or its answer breaks off.
        preset contended_pause: At<Time<0>>, "500ms" => contended_pause: Duration;
        /// What a client has to send or read a second so that `contended_pause` begins anew: half
        /// of it earns half of the time. With 0 no client loses its place.
        preset contended_min_rate: At<Size<0, { GIB }>>, "16KiB" => contended_min_rate: u64;
        /// Percent of the places of a service, and of those in its queue, that one client may have
        /// at once, rounded up. Its other requests wait; what finds no place in the queue is
        /// answered with 503. Loopback has no limit.
        preset client_share: At<Count<1, 100>>, 50 => client_share: u32;
        /// Time a client may read nothing while there is something to write to it. Then its
        /// connection is reset.
        preset write_idle_timeout: At<Time<1>>, "30s" => write_idle_timeout: Duration;
        /// HTTP/2 streams open at once on a connection.
        preset h2_streams: At<Count<1, 10_000>>, 100 => h2_streams: u32;
        /// HTTP/2 flow-control window of a stream.
        preset h2_stream_window: At<Size<{ KIB }, { GIB }>>, "64KiB" => h2_stream_window: u32;
        /// HTTP/2 flow-control window of a connection.
        preset h2_connection_window: At<Size<{ 64 * KIB }, { GIB }>>, "1MiB"
            => h2_connection_window: u32;
        /// Streams a client may reset before they were looked at. One more ends the connection.
        preset h2_pending_resets: At<Count<1, 10_000>>, 20 => h2_pending_resets: usize;
        /// Streams reset for a client's protocol errors before the connection ends.
        preset h2_error_resets: At<Count<1, 10_000>>, 100 => h2_error_resets: usize;
        /// Largest piece of a request body given to a pod.
        preset body_chunk: At<Size<{ KIB }, { 16 * 1024 * KIB }>>, "64KiB" => body_chunk: usize;
        /// First pause after a connection could not be accepted. It doubles with each further one.
        preset accept_backoff: At<Time<1>>, "1ms" => accept_backoff: Duration;
        /// Longest such pause.
        preset accept_backoff_max: At<Time<1>>, "1s" => accept_backoff_max: Duration;
        /// Time requests in flight have to end when the node stops.
        preset drain: At<Time<0>>, "30s" => drain: Duration;
        /// Time a connection without a request may still send one when the node stops. Its answer
        /// says `Connection: close`. Within `drain`.
        preset drain_idle: At<Time<0>>, "1s" => drain_idle: Duration;
        /// Time a client has to close its end after the last answer on a connection. What it sends
        /// meanwhile is read and dropped, so that no reset destroys the answer.
        preset linger: At<Time<0>>, "2s" => linger: Duration;
        /// What `Retry-After` of a 503 says, rounded up to seconds.
        preset retry_after: At<Time<0>>, "1s" => retry_after: Duration;
    }
}

limits! {
    /// Limits on guests that hold whatever their spec says.
    struct Guest => GuestLimits {
        /// Time an instance may take to start, start functions included.
        preset start_timeout: At<Time<1>>, "10s" => start_timeout: Duration;
        /// Objects of the host that an instance may hold: streams, requests, pollables, files.
        /// One more is a trap.
        preset handles: At<Count<1, 1_000_000>>, 10_000 => handles: usize;
        /// What one call may hand to the host. More is a trap.
        preset hostcall: At<Size<{ KIB }, { GIB }>>, "16MiB" => hostcall_bytes: usize;
        /// One set of header fields that a guest makes, with what the host needs to keep it. More
        /// is a trap.
        preset fields: At<Size<64, { 1024 * KIB }>>, "128KiB" => fields_bytes: usize;
        /// Random bytes one call may ask for. More is a trap.
        preset random: At<Size<64, { GIB }>>, "1MiB" => random_bytes: u64;
        /// Files and directories an instance may hold open, those it was lent included. One more
        /// is `insufficient-memory`.
        preset open_files: At<Count<1, 100_000>>, 256 => open_files: usize;
        /// TCP sockets that a pod may have open. One more is `new-socket-limit`.
        preset sockets: At<Count<1, 100_000>>, 64 => sockets: usize;
        /// Requests of a service to others under way at once. One more is
        /// `connection-limit-reached`.
        preset outgoing_requests: At<Count<1, 10_000>>, 64 => outgoing_requests: usize;
        /// Time another server may take to begin its answer, unless the guest says otherwise.
        preset first_byte_timeout: At<Time<1>>, "30s" => first_byte_timeout: Duration;
        /// Time another server may pause in its answer, unless the guest says otherwise.
        preset between_bytes_timeout: At<Time<1>>, "15s" => between_bytes_timeout: Duration;
        /// What a pod may print a second, and at once. More is dropped, and counted.
        preset log_rate: At<Size<{ KIB }, { GIB }>>, "1MiB" => log_rate: u64;
        /// Memory of an instance of which a core dump is made, and size of the file. While it is
        /// made, it takes a few times as much of the host. Of a larger one there is none.
        preset coredump: At<Size<{ KIB }, { 4 * GIB }>>, "256MiB" => coredump_bytes: u64;
    }
}

limits! {
    /// Limits on compiling one component, which happens in a process of its own.
    struct Compile => CompileLimits {
        /// Address space of that process.
        preset memory: At<Size<{ 256 * 1024 * KIB }, { 64 * GIB }>>, "2GiB"
            => address_space_bytes: u64;
        /// CPU time of that process, in whole seconds.
        preset cpu: At<Time<1000>>, "60s" => cpu: Duration;
        /// Time from its start to its end.
        preset time: At<Time<1>>, "120s" => wall: Duration;
    }
}

impl Copy for CompileLimits {}

limits! {
    /// Limits on the key-value stores of guests. What would be more is refused: the guest gets an
    /// error that says so, and nothing is changed.
    struct KeyValue => KeyValueLimits {
        /// Length of a key.
        preset key: At<Size<1, { 64 * KIB }>>, "1KiB" => key_bytes: usize;
        /// Size of a value.
        preset value: At<Size<1, { 16 * 1024 * KIB }>>, "1MiB" => value_bytes: usize;
        /// Keys of one store.
        preset keys: At<Count<1, 1_000_000_000>>, 1_000_000 => keys: u64;
        /// All keys and values of one store together.
        preset bytes: At<Size<{ KIB }, { TIB }>>, "1GiB" => bytes: u64;
    }
}

limits! {
    /// What a daemon keeps on disk of what guests print, below `--data`. The oldest lines make room
    /// for the newest.
    struct Logs => LogLimits {
        /// What the lines of all pods may take of the disk.
        preset bytes: At<Size<{ 1024 * KIB }, { TIB }>>, "1GiB" => bytes: u64;
        /// Text of the lines of one pod.
        preset pod: At<Size<{ 64 * KIB }, { TIB }>>, "50MiB" => pod_bytes: u64;
        /// Time that a line is kept, whether its app is still there or not.
        preset keep: At<Time<1000>>, "168h" => keep: Duration;
    }
}
