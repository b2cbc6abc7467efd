//! The properties of the machine. Does I/O.

use std::{fmt, fs, thread};

use serde_json::{Value, json};

use crate::error::{Context, ScaleError};

/// The machine that runs the measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    processor: String,
    processor_count: usize,
    memory_mebibytes: u64,
    kernel: String,
}

impl Machine {
    /// Reads the properties of this machine.
    pub(crate) fn detect() -> Result<Self, ScaleError> {
        let read = |path: &str| fs::read_to_string(path).context(path);
        let memory = read("/proc/meminfo")?;
        let memory = field(&memory, "MemTotal").and_then(|value| value.strip_suffix(" kB"));
        Ok(Self {
            // Only x86 has a model name; other machines get the name of their architecture.
            processor: field(&read("/proc/cpuinfo")?, "model name")
                .unwrap_or(std::env::consts::ARCH)
                .to_owned(),
            processor_count: thread::available_parallelism().context("the number of processors")?.get(),
            memory_mebibytes: memory.and_then(|value| value.parse::<u64>().ok()).unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }

    /// Returns the properties as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "processor": self.processor,
            "processors": self.processor_count,
            "memory_mib": self.memory_mebibytes,
            "kernel": self.kernel,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processors ({}), {} MiB of memory, Linux {}",
            self.processor_count, self.processor, self.memory_mebibytes, self.kernel
        )
    }
}

/// Returns the value in the first line that starts with `name`. A colon separates the name and the value.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_the_text_after_the_colon() {
        assert_eq!(field("a : 1\nmodel name\t: Xeon 2\n", "model name"), Some("Xeon 2"));
        assert_eq!(field("a: 1", "b"), None);
    }
}
