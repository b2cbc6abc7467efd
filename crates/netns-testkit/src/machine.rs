//! The properties of the machine, for the reports of benchmarks. The properties do not identify the machine. Does I/O.

use std::{fmt, fs, io, thread};

/// The machine that runs a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's model, with a note if the machine is virtual.
    pub processor_model: String,
    /// The number of processors that the benchmark can use.
    pub processor_count: usize,
    /// The memory in MiB.
    pub memory_mebibytes: u64,
}

impl Machine {
    /// Reads the properties of this machine.
    pub fn detect() -> io::Result<Self> {
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor_model: parse_processor_model(&fs::read_to_string("/proc/cpuinfo")?),
            processor_count: thread::available_parallelism()?.get(),
            memory_mebibytes: parse_memory_mebibytes(&fs::read_to_string("/proc/meminfo")?),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processors ({}), {} MiB of memory, Linux {}",
            self.processor_count, self.processor_model, self.memory_mebibytes, self.kernel
        )
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
