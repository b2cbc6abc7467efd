//! The files of the measured programs, and their configuration files. Does I/O.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{BenchError, Context};

/// The files of the measured programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The data plane's binary, built with the same settings as for its image.
    pub(crate) lb: PathBuf,
    /// The directory with the unpacked Debian packages of the other proxies.
    pub(crate) package_directory: PathBuf,
}

impl Programs {
    /// Returns a command that runs a program from the packages. The program uses the libraries from the packages.
    pub(super) fn packaged_command(&self, program: &str) -> Command {
        let mut command = Command::new(self.package_directory.join(program));
        let library_directory = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", self.package_directory.join(library_directory));
        command
    }
}

/// Writes a configuration file below the benchmark's private `/run`.
pub(super) fn write_config(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).context(&path.display().to_string())
}
