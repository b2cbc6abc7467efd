//! The properties of the machine that runs the benchmark. The properties do not identify the
//! machine. Does I/O.

use std::fs;
use std::process::Command;
use std::thread;

use crate::error::{BenchError, Context, run_command};
use crate::proxy::programs::Programs;
use crate::proxy::{haproxy, nginx};

/// The machine that runs the benchmark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The processor's model, with a note if the machine is virtual.
    pub(crate) processor_model: String,
    /// The number of processors that the benchmark can use.
    pub(crate) processor_count: usize,
    /// The memory in MiB.
    pub(crate) memory_mebibytes: u64,
    /// The programs and their versions.
    pub(crate) program_versions: Vec<(&'static str, String)>,
}

impl Machine {
    /// Reads the properties of this machine and the versions of the programs.
    pub(crate) fn detect(programs: &Programs) -> Result<Self, BenchError> {
        let read = |path: &str| fs::read_to_string(path).context(path);
        let iptables_version = run_command(Command::new("iptables").arg("--version"))?;
        let akrobateo_lb_version = run_command(Command::new(&programs.lb).arg("--version"))?;
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor_model: parse_processor_model(&read("/proc/cpuinfo")?),
            processor_count: thread::available_parallelism().context("the number of processors")?.get(),
            memory_mebibytes: parse_memory_mebibytes(&read("/proc/meminfo")?),
            program_versions: vec![
                ("akrobateo-lb", akrobateo_lb_version.rsplit(' ').next().unwrap_or_default().to_owned()),
                (
                    "iptables",
                    iptables_version.split(' ').nth(1).unwrap_or_default().trim_start_matches('v').to_owned(),
                ),
                ("HAProxy", haproxy::version(programs)?),
                ("nginx", nginx::version(programs)?),
            ],
        })
    }
}

/// Returns the value in the first line that starts with `name`. A colon separates the name and the value.
fn get_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn parse_processor_model(cpuinfo: &str) -> String {
    // Only x86 has a model name; other machines get the name of their architecture.
    let model = get_field(cpuinfo, "model name").unwrap_or(std::env::consts::ARCH);
    let flags = get_field(cpuinfo, "flags").unwrap_or_default();
    let is_virtual = flags.split(' ').any(|flag| flag == "hypervisor");
    format!("{model}{}", if is_virtual { ", virtual machine" } else { "" })
}

fn parse_memory_mebibytes(meminfo: &str) -> u64 {
    let kibibytes = get_field(meminfo, "MemTotal").and_then(|value| value.strip_suffix(" kB"));
    kibibytes.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_model_shows_if_the_machine_is_virtual() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor sse\n";
        assert_eq!(parse_processor_model(cpuinfo), "AMD EPYC, virtual machine");
        assert_eq!(parse_processor_model("model name : Xeon\nflags : fpu\n"), "Xeon");
    }

    #[test]
    fn memory_is_converted_to_mebibytes() {
        assert_eq!(parse_memory_mebibytes("MemFree: 1 kB\nMemTotal:       2097152 kB\n"), 2048);
    }
}
