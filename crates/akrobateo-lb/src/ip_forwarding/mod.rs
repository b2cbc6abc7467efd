//! Checks IP forwarding in the pod's network namespace, and switches IPv4 forwarding on. Does I/O.

pub mod ipv4;
pub mod ipv6;

use akrobateo_core::Family;
use akrobateo_core::proxy_args::ENABLE_IPV6_FORWARDING_COMMAND;
use netfilter::netlink::{NetlinkError, Protocol, Socket};

use crate::forwarding_config::ForwardingConfig;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF` (linux/rtnetlink.h) as a bit mask.
const MULTICAST_GROUPS: u32 = 1 | 1 << (24 - 1) | 1 << (25 - 1);

/// The error if IP forwarding is off, or if its state is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// IPv4 forwarding could not be switched on.
    #[error(
        "IPv4 forwarding is off and cannot be switched on: {0}; give the container the capability NET_ADMIN, \
         or the pod the sysctl net.ipv4.ip_forward=1"
    )]
    Ipv4EnableFailed(NetlinkError),
    /// IPv4 forwarding was switched off. [`ensure_enabled`] will switch IPv4 forwarding on again.
    #[error("IPv4 forwarding is off; the proxy will switch it on again")]
    Ipv4Off,
    /// The state of IPv4 forwarding is unknown.
    #[error("cannot read the state of IPv4 forwarding over netlink: {0}")]
    Ipv4ReadFailed(NetlinkError),
    /// IPv6 forwarding is off. Only a privileged container can switch it on.
    #[error(
        "IPv6 forwarding is off, but a --forward has an IPv6 target; give the pod a privileged init container \
         that runs `akrobateo-lb {ENABLE_IPV6_FORWARDING_COMMAND}`, or the sysctl net.ipv6.conf.all.forwarding=1"
    )]
    Ipv6Off,
    /// The state of IPv6 forwarding is unknown.
    #[error(transparent)]
    Ipv6Sysctl(#[from] ipv6::Ipv6SysctlError),
}

/// Opens a socket that becomes readable when an interface appears or changes, or when the forwarding of an interface
/// changes.
pub fn open_watch() -> Result<Socket, NetlinkError> {
    Socket::listen(Protocol::Route, MULTICAST_GROUPS)
}

/// Checks that this thread's network namespace forwards the address families that `config` forwards. IPv6 is not
/// required if `config` forwards IPv4 too; see [`find_ipv6_problem`].
pub fn check_enabled(config: &ForwardingConfig) -> Result<(), ForwardingError> {
    if config.has_forwards(Family::V4) && !ipv4::is_enabled().map_err(ForwardingError::Ipv4ReadFailed)? {
        return Err(ForwardingError::Ipv4Off);
    }
    check_ipv6_only_config(config)
}

/// If `config` forwards IPv4, switches IPv4 forwarding on in this thread's network namespace. If `config` forwards only
/// IPv6, checks IPv6 forwarding as [`check_enabled`] does.
pub fn ensure_enabled(config: &ForwardingConfig) -> Result<(), ForwardingError> {
    if config.has_forwards(Family::V4) {
        for interface in ipv4::enable().map_err(ForwardingError::Ipv4EnableFailed)? {
            tracing::info!(interface, "switched IPv4 forwarding on");
        }
    }
    check_ipv6_only_config(config)
}

/// Returns the reason why a proxy with a dual-stack configuration can serve only IPv4, or `None` if IPv6 has no
/// problem. The reason is a warning, not a failure.
#[must_use]
pub fn find_ipv6_problem(config: &ForwardingConfig) -> Option<String> {
    if !config.has_forwards(Family::V4) {
        return None;
    }
    check_ipv6(config).err().map(|error| format!("only IPv4 is served: {error}"))
}

/// Checks IPv6 forwarding if `config` forwards only IPv6.
fn check_ipv6_only_config(config: &ForwardingConfig) -> Result<(), ForwardingError> {
    if config.has_forwards(Family::V4) { Ok(()) } else { check_ipv6(config) }
}

fn check_ipv6(config: &ForwardingConfig) -> Result<(), ForwardingError> {
    if config.has_forwards(Family::V6) && !ipv6::is_enabled()? {
        return Err(ForwardingError::Ipv6Off);
    }
    Ok(())
}
