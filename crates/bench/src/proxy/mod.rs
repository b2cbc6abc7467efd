//! What runs in the proxy pod: Akrobateo and its peers.

pub(crate) mod akrobateo;
pub(crate) mod haproxy;
pub(crate) mod klipper;
pub(crate) mod nginx;
pub(crate) mod process;

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::namespace::Namespace;
use crate::variant::{Copier, Variant, Way};
use process::Process;

/// A protocol of a Service's port; a proxy forwards one here, so that 1,000 ports are 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name, as all programs have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The data plane, built as for its image.
    pub(crate) lb: PathBuf,
    /// The tree of Debian's packages of the peers.
    pub(crate) packages: PathBuf,
}

impl Programs {
    /// A program of Debian's packages, with their libraries.
    fn packaged(&self, program: &str) -> std::process::Command {
        let mut command = std::process::Command::new(self.packages.join(program));
        let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", self.packages.join(libraries));
        command
    }
}

/// Puts what the variant has into the pod; `None` if that leaves no process.
pub(crate) fn start(
    variant: Variant,
    protocol: Protocol,
    pod: &Namespace,
    programs: &Programs,
) -> Result<Option<Process>, Failure> {
    let ports = variant.ports;
    let process = match variant.way {
        Way::Direct | Way::NodeDnat => return Ok(None),
        Way::Klipper(iptables) => {
            klipper::set(pod, iptables, protocol, ports)?;
            return Ok(None);
        }
        Way::Kernel => akrobateo::start(pod, &programs.lb, &akrobateo::kernel(protocol, ports))?,
        Way::Userspace(Copier::Akrobateo, _) => akrobateo::start(pod, &programs.lb, &akrobateo::userspace())?,
        Way::Userspace(Copier::HaProxy, header) => haproxy::start(pod, programs, header, false)?,
        Way::Userspace(Copier::HaProxySplice, header) => haproxy::start(pod, programs, header, true)?,
        Way::Userspace(Copier::Nginx, _) => nginx::start(pod, programs)?,
    };
    Ok(Some(process))
}

/// Writes a configuration; /run is the benchmark's own.
fn configured(path: &Path, text: &str) -> Result<(), Failure> {
    use crate::failure::Tried;
    std::fs::write(path, text).tried(&path.display().to_string())
}
