//! The file that contains the last configuration of the data path. After a restart of its container, the agent applies
//! this configuration until the API server answers. Does I/O.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::NodeConfig;

/// The time without a new configuration before the write of the file. A cluster with many Services may change its
/// endpoints all the time. Each write contains all Services, and the next change deletes the file.
const SAVE_DELAY: Duration = Duration::from_secs(1);

/// The file, and the time of its next write.
///
/// While the file exists, it contains the configuration in the kernel. A newer configuration first deletes the file, so
/// that the agent never returns to earlier endpoints after a crash.
#[derive(Debug)]
pub(super) struct StateFile {
    /// The path; `None` if the agent has no such file.
    path: Option<PathBuf>,
    save_at: Option<Instant>,
}

/// The reason why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum StateFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("invalid content")]
    InvalidContent(#[from] crate::config::ConfigError),
    #[error("cannot convert the configuration into JSON")]
    Serialization(#[from] serde_json::Error),
}

impl StateFile {
    pub(super) const fn new(path: Option<PathBuf>) -> Self {
        Self { path, save_at: None }
    }

    /// Returns the configuration in the file; `None` if the file does not exist or is invalid.
    pub(super) fn load(&self) -> Option<NodeConfig> {
        let path = self.path.as_deref()?;
        match read(path) {
            Ok(config) => Some(config),
            Err(StateFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn(path, &error, "cannot read the last configuration; waiting for the API server");
                None
            }
        }
    }

    /// Deletes the file, because a new configuration replaces its content. Must be called before the rules change.
    pub(super) fn on_new_config(&mut self, now: Instant) {
        let Some(path) = &self.path else { return };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn(path, &error.into(), "cannot delete the previous configuration");
            }
            _ => {}
        }
        self.save_at = Some(now + SAVE_DELAY);
    }

    /// Returns the time at which [`Self::save_if_due`] writes the file; `None` if the file is up to date.
    pub(super) const fn save_at(&self) -> Option<Instant> {
        self.save_at
    }

    /// Writes the current configuration if the time of the write has come.
    pub(super) fn save_if_due(&mut self, config: &NodeConfig, now: Instant) {
        if self.save_at.is_none_or(|time| time > now) {
            return;
        }
        self.save_at = None;
        if let Some(path) = &self.path
            && let Err(error) = write(path, config)
        {
            warn(path, &error, "cannot save the configuration for the next start of the agent");
        }
    }
}

fn read(path: &Path) -> Result<NodeConfig, StateFileError> {
    Ok(NodeConfig::from_json(&std::fs::read(path)?)?)
}

/// Writes the file in one step, so that the file is complete even after a crash.
fn write(path: &Path, config: &NodeConfig) -> Result<(), StateFileError> {
    let temporary_path = path.with_extension("new");
    std::fs::write(&temporary_path, config.to_json()?)?;
    Ok(std::fs::rename(&temporary_path, path)?)
}

fn warn(path: &Path, error: &StateFileError, message: &str) {
    tracing::warn!(path = %path.display(), error = error as &dyn std::error::Error, "{message}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixtures::config;

    /// Returns a path in a new directory.
    fn new_path(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("akrobateo-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        directory.join("config.json")
    }

    #[test]
    fn file_contains_only_the_newest_configuration() {
        let path = new_path("state-file");
        let (mut file, start) = (StateFile::new(Some(path.clone())), Instant::now());
        assert_eq!(file.load(), None);
        file.on_new_config(start);
        let save_at = file.save_at().unwrap();
        file.save_if_due(&config(), start);
        assert!(!path.exists(), "many changes in a short time cause one write");
        file.save_if_due(&config(), save_at);
        assert_eq!((file.load(), file.save_at()), (Some(config()), None));
        // From the next change to the next write, a crash must not restore the previous configuration.
        file.on_new_config(save_at);
        let last_change_at = save_at + SAVE_DELAY / 2;
        file.on_new_config(last_change_at);
        assert_eq!((file.load(), file.save_at()), (None, Some(last_change_at + SAVE_DELAY)));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(file.load(), None);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn agent_without_a_state_file_saves_nothing() {
        let mut file = StateFile::new(None);
        file.on_new_config(Instant::now());
        assert_eq!((file.load(), file.save_at()), (None, None));
    }
}
