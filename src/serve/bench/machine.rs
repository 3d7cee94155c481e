//! The machine that is measured on, and what else it does meanwhile.

use std::fs;

use super::report::{Machine, Noise};
use crate::serve::memory::{KIB, after};

/// The part of all processors beyond which figures are not believed.
const TOO_BUSY: f64 = 0.1;

/// What the system says of itself.
pub(crate) fn machine() -> Machine {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let [name, release] = ["ostype", "osrelease"].map(|it| read(format!("/proc/sys/kernel/{it}")));
    let kernel = format!("{} {}", name.trim(), release.trim());
    let (cpus, memory) = (read("/proc/cpuinfo".into()), read("/proc/meminfo".into()));
    let memory_kib = after(&memory, "MemTotal").and_then(|it| it.split(' ').next()?.parse().ok());
    Machine {
        cpu: cpu(&cpus).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        processors: sampan_runtime::threads::processors() as u64,
        memory_bytes: memory_kib.unwrap_or(0_u64) * KIB,
        kernel,
    }
}

/// The model, where there is a name for it.
fn cpu(cpuinfo: &str) -> Option<String> {
    let named = ["model name", "Model", "Hardware"];
    let name = named.iter().find_map(|key| after(cpuinfo, key))?;
    Some(name.to_owned())
}

/// What the processors have done until now, in clock ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticks {
    all: u64,
    busy: u64,
    stolen: u64,
    /// Of `busy`, those of this process and of its children that have ended.
    own: u64,
}

impl Ticks {
    /// From `/proc`; `None` where that is not there.
    pub(super) fn read() -> Option<Self> {
        let all = fs::read_to_string("/proc/stat").ok()?;
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        Self::parse(&all, &own)
    }

    /// proc_stat(5) and proc_pid_stat(5).
    fn parse(all: &str, own: &str) -> Option<Self> {
        let line = all.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let fields: Vec<u64> = line
            .split_whitespace()
            .map_while(|it| it.parse().ok())
            .collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen] =
            *fields.first_chunk::<8>()?;
        // After the name in parentheses, which may hold anything.
        let own = own.rsplit_once(')')?.1;
        let own = own.split_whitespace().skip(11).take(4);
        let own = own.map_while(|it| it.parse::<u64>().ok()).sum();
        Some(Self {
            all: fields[..8].iter().sum(),
            busy: user + nice + system + irq + softirq,
            stolen,
            own,
        })
    }

    /// What others had of the processors since then.
    pub(super) fn noise_since(&self, before: &Self) -> Option<Noise> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let of = |now: u64, then: u64| now.saturating_sub(then) as f64 / all as f64;
        let busy = of(self.busy, before.busy);
        let other = (busy - of(self.own, before.own)).max(0.0);
        let stolen = of(self.stolen, before.stolen);
        Some(Noise {
            other: rounded(other),
            stolen: rounded(stolen),
            busy: other + stolen > TOO_BUSY,
        })
    }
}

fn rounded(part: f64) -> f64 {
    (part * 1e4).round() / 1e4
}

/// CPU time of this process so far, in milliseconds, without its children.
pub(super) fn cpu_ms() -> f64 {
    milliseconds(rustix::time::ClockId::ProcessCPUTime)
}

fn milliseconds(clock: rustix::time::ClockId) -> f64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// What this process holds now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) memory_bytes: u64,
    pub(super) maps: u64,
    pub(super) descriptors: u64,
}

impl Held {
    pub(super) fn now() -> Self {
        let maps = fs::read("/proc/self/maps").unwrap_or_default();
        let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            memory_bytes: resident_bytes(),
            maps: maps.iter().filter(|byte| **byte == b'\n').count() as u64,
            descriptors: descriptors as u64,
        }
    }
}

/// Memory of this process that is resident now.
pub(super) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut fields = statm.split(' ').skip(1);
    let pages = fields.next().and_then(|it| it.parse::<u64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_take_is_all_but_what_this_process_takes() {
        let own = |ticks: u64| format!("7 (a) b) R 1 1 1 0 -1 4 0 0 0 0 {ticks} 0 0 0 20 0 1");
        let before = Ticks::parse("cpu  10 0 10 70 0 0 0 0 0 0\n", &own(5)).expect("both");
        let after = Ticks::parse("cpu  50 0 20 80 0 0 0 40 0 0\n", &own(45)).expect("both");
        let noise = after.noise_since(&before).expect("time has passed");
        assert_eq!((noise.other, noise.stolen), (0.1, 0.4));
        assert!(noise.busy);
        assert_eq!(before.noise_since(&before), None);
    }

    #[test]
    fn the_machine_is_told() {
        let machine = machine();
        assert!(
            machine.memory_bytes > 0 && machine.processors > 0,
            "{machine:?}"
        );
        assert!(machine.kernel.contains(' '), "{machine:?}");
        let held = Held::now();
        assert!(held.memory_bytes > 0 && held.maps > 0 && held.descriptors > 0);
        assert!(Ticks::read().is_some());
    }
}
