//! What the machine is, as far as it matters and nobody is named.

use std::fs;
use std::thread;

use crate::failure::{Failure, Tried, printed};
use crate::proxy::{Programs, haproxy, nginx};

/// What the machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// The processor's model, and whether it is a virtual machine's.
    pub(crate) processor: String,
    /// Processors that the benchmark may use.
    pub(crate) processors: usize,
    /// Memory in MiB.
    pub(crate) memory: u64,
    /// Programs and their versions.
    pub(crate) programs: Vec<(&'static str, String)>,
}

/// Looks at this machine and the programs.
pub(crate) fn look(programs: &Programs) -> Result<Machine, Failure> {
    let read = |path: &str| fs::read_to_string(path).tried(path);
    let (cpuinfo, meminfo) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
    let iptables = printed(std::process::Command::new("iptables").arg("--version"))?;
    Ok(Machine {
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        processor: processor(&cpuinfo),
        processors: thread::available_parallelism().tried("the number of processors")?.get(),
        memory: memory(&meminfo),
        programs: vec![
            ("akrobateo-lb", last_word(&printed(std::process::Command::new(&programs.lb).arg("--version"))?)),
            ("iptables", iptables.split(' ').nth(1).unwrap_or_default().trim_start_matches('v').to_owned()),
            ("HAProxy", haproxy::version(programs)?),
            ("nginx", nginx::version(programs)?),
        ],
    })
}

fn last_word(text: &str) -> String {
    text.rsplit(' ').next().unwrap_or_default().to_owned()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn processor(cpuinfo: &str) -> String {
    // As x86 has it, or else what the architecture is.
    let model = field(cpuinfo, "model name").unwrap_or(std::env::consts::ARCH);
    let flags = field(cpuinfo, "flags").unwrap_or_default();
    let virtual_machine = flags.split(' ').any(|flag| flag == "hypervisor");
    format!("{model}{}", if virtual_machine { ", virtual machine" } else { "" })
}

fn memory(meminfo: &str) -> u64 {
    let kilobytes = field(meminfo, "MemTotal").and_then(|value| value.strip_suffix(" kB"));
    kilobytes.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_described_by_its_processor_and_memory() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor sse\n";
        assert_eq!(processor(cpuinfo), "AMD EPYC, virtual machine");
        assert_eq!(processor("model name : Xeon\nflags : fpu\n"), "Xeon");
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       2097152 kB\n"), 2048);
    }
}
