//! The output of the commands: text for terminals, JSON and YAML for programs. Writes to standard output.

use std::io::{ErrorKind, IsTerminal, Write};

use k8s_openapi::serde::Serialize;

use super::error::CliError;

/// The output format of a command: the value of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Yaml,
}

/// The health of a Service or of a proxy. The health selects the color of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Healthy,
    Failing,
    /// The Service or the node has no proxy whose health could be shown.
    NotApplicable,
}

/// The style of text output: with ANSI escape sequences or without.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Plain,
    Colored,
}

impl Style {
    /// Returns the text in the color for this health.
    pub(super) fn color_by_health(self, text: &str, health: Health) -> String {
        match health {
            Health::Healthy => self.wrap_in_escape_sequence("32", text),
            Health::Failing => self.wrap_in_escape_sequence("31", text),
            Health::NotApplicable => text.to_owned(),
        }
    }

    /// Returns the text in bold type.
    pub(super) fn make_bold(self, text: &str) -> String {
        self.wrap_in_escape_sequence("1", text)
    }

    /// Wraps the text in an SGR escape sequence (ECMA-48).
    fn wrap_in_escape_sequence(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colored => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// Returns the style for standard output. The variable `NO_COLOR` disables colors, see <https://no-color.org>.
    fn for_standard_output() -> Self {
        let use_color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if use_color { Self::Colored } else { Self::Plain }
    }
}

/// Prints a value. `format_text` formats the value for `--output text`.
pub(super) fn print(
    format: Format,
    value: &impl Serialize,
    format_text: impl FnOnce(Style) -> String,
) -> Result<(), CliError> {
    write(&match format {
        Format::Text => format_text(Style::for_standard_output()),
        Format::Json => to_json(value)?,
        Format::Yaml => to_yaml(value)?,
    })
}

/// Returns the value as JSON with a final newline.
pub(super) fn to_json(value: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Encode(error.to_string()))?;
    Ok(text + "\n")
}

/// Returns the value as YAML with a final newline.
pub(super) fn to_yaml(value: &impl Serialize) -> Result<String, CliError> {
    let text = serde_saphyr::to_string(value).map_err(|error| CliError::Encode(error.to_string()))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Writes to standard output. A closed pipe is no error, because a program such as `head` stops before it reads all
/// lines.
pub(super) fn write(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Write(error)),
        _ => Ok(()),
    }
}
