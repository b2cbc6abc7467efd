//! The programs that forward the Services of a test. Pure.

use std::fmt;

/// The programs that forward the Services of a test, if a Service does not choose these programs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestMode {
    /// The node agents, which are the operator's default.
    Shared,
    /// One DaemonSet of proxies for each Service.
    Dedicated,
}

impl TestMode {
    /// Both modes, the default first.
    pub const ALL: [Self; 2] = [Self::Shared, Self::Dedicated];

    /// Returns the ipMode in the status of Services without the annotation `akrobateo.io/ip-mode`.
    pub(crate) fn default_ip_mode(self) -> &'static str {
        match self {
            Self::Shared => "Proxy",
            Self::Dedicated => "VIP",
        }
    }
}

impl fmt::Display for TestMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared mode",
            Self::Dedicated => "dedicated mode",
        })
    }
}
