//! The switch of IPv6 forwarding, a file that only a privileged container may write. I/O only.

use std::fs;

use super::ForwardingError;

/// The sysctl that decides for all interfaces (Documentation/networking/ip-sysctl.rst).
pub const SWITCH: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Whether this network namespace passes IPv6 packets on.
pub fn is_on() -> Result<bool, ForwardingError> {
    let text = fs::read_to_string(SWITCH).map_err(ForwardingError::Ipv6Unreadable)?;
    Ok(text.trim() != "0")
}

/// Switches it on, unless it is; returns whether that was needed.
pub fn enable() -> Result<bool, ForwardingError> {
    if is_on()? {
        return Ok(false);
    }
    fs::write(SWITCH, "1").map_err(ForwardingError::Ipv6Unwritable)?;
    Ok(true)
}
