//! Scripts that complete commands and flags in a shell.

use clap_complete::{Shell, generate};

use super::error::CliError;
use super::output;

/// Prints the script for a shell.
pub(super) fn print(shell: Shell) -> Result<(), CliError> {
    output::write(&script(shell))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut super::definition(None), "akrobateo", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_the_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("explain") && script.contains("lb-namespace"), "{shell}");
        }
    }
}
