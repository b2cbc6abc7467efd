//! Completion scripts for shells. Writes to standard output.

use clap_complete::{Shell, generate};

use super::error::CliError;
use super::output;

/// Prints the completion script of a command for a shell.
pub(super) fn print_script(command: clap::Command, shell: Shell) -> Result<(), CliError> {
    output::write(&completion_script(command, shell))
}

fn completion_script(mut command: clap::Command, shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut command, "akrobateo", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::cli::arguments;

    #[test]
    fn completion_scripts_contain_commands_and_flags() {
        for shell in Shell::value_variants() {
            let script = completion_script(arguments::command(None), *shell);
            assert!(script.contains("explain") && script.contains("lb-namespace"), "{shell}");
        }
    }
}
