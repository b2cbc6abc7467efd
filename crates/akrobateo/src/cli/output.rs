//! How answers are printed: as text, in colours on a terminal only, or as JSON or YAML for programs. Does I/O.

use std::io::{ErrorKind, IsTerminal, Write};

use k8s_openapi::serde::Serialize;

use super::error::CliError;

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Yaml,
}

/// Whether, and how, what matters is coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style(pub(super) bool);

impl Style {
    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(super) fn heading(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints an answer.
pub(super) fn print(
    format: Format,
    answer: &impl Serialize,
    text: impl FnOnce(Style) -> String,
) -> Result<(), CliError> {
    write(&match format {
        // https://no-color.org
        Format::Text => {
            text(Style(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()))
        }
        Format::Json => json(answer)?,
        Format::Yaml => yaml(answer)?,
    })
}

pub(super) fn json(answer: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(answer).map_err(|error| CliError::Encode(error.to_string()))?;
    Ok(text + "\n")
}

pub(super) fn yaml(answer: &impl Serialize) -> Result<String, CliError> {
    let text = serde_saphyr::to_string(answer).map_err(|error| CliError::Encode(error.to_string()))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Writes to the standard output. A reader that has seen enough, as `head`, is no failure.
pub(super) fn write(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Write(error)),
        _ => Ok(()),
    }
}
