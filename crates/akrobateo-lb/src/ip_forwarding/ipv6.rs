//! The sysctl of IPv6 forwarding, a file that only a privileged container may write. I/O only.

use std::{fs, io};

/// The sysctl that applies to all interfaces (Documentation/networking/ip-sysctl.rst).
const FORWARDING_SYSCTL_PATH: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The reason why the sysctl of IPv6 forwarding cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Ipv6SysctlError {
    /// The file cannot be read.
    #[error("cannot read {FORWARDING_SYSCTL_PATH}: {0}; check that the node's kernel supports IPv6")]
    ReadFailed(io::Error),
    /// The file cannot be written.
    #[error(
        "cannot write {FORWARDING_SYSCTL_PATH}: {0}; the container that switches IPv6 forwarding on must be privileged \
         (securityContext.privileged)"
    )]
    WriteFailed(io::Error),
}

/// Returns true if this network namespace forwards IPv6 packets.
pub fn is_enabled() -> Result<bool, Ipv6SysctlError> {
    let value = fs::read_to_string(FORWARDING_SYSCTL_PATH).map_err(Ipv6SysctlError::ReadFailed)?;
    Ok(value.trim() != "0")
}

/// Switches IPv6 forwarding on. Returns false if forwarding was on already.
pub fn enable() -> Result<bool, Ipv6SysctlError> {
    if is_enabled()? {
        return Ok(false);
    }
    fs::write(FORWARDING_SYSCTL_PATH, "1").map_err(Ipv6SysctlError::WriteFailed)?;
    Ok(true)
}
