//! Whether the pod's kernel passes packets on at all, and switching that on where it is off.

pub mod ipv4;
pub mod ipv6;

use akrobateo_core::Family;
use netfilter::netlink::{NetlinkError, Protocol, Socket};

use crate::forwarding_config::ForwardingConfig;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF` (linux/rtnetlink.h), as bits.
const GROUPS: u32 = 1 | 1 << (24 - 1) | 1 << (25 - 1);

/// Why packets would not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// The switch of an interface stayed off.
    #[error(
        "IPv4 forwarding is off and could not be switched on ({0}): the container needs the capability \
         NET_ADMIN, or the pod the sysctl net.ipv4.ip_forward=1"
    )]
    Ipv4(NetlinkError),
    /// Somebody switched it off, and it is about to be switched on again.
    #[error("IPv4 forwarding is off")]
    Ipv4Off,
    /// The switches of the interfaces can't be read.
    #[error("cannot read whether IPv4 is forwarded: {0}")]
    Ipv4Unreadable(NetlinkError),
    /// Only a privileged container can switch it.
    #[error(
        "IPv6 forwarding is off, and a --forward has an IPv6 target: the pod needs a privileged init \
         container that runs `akrobateo-lb {}`, or the sysctl net.ipv6.conf.all.forwarding=1",
        akrobateo_core::proxy_args::ENABLE_IPV6_FORWARDING
    )]
    Ipv6,
    /// The switch can't be read.
    #[error("{path}, which says whether IPv6 is forwarded, is not readable ({0}): does the kernel have IPv6?", path = ipv6::SWITCH)]
    Ipv6Unreadable(std::io::Error),
    /// The switch can't be written.
    #[error("{path} is not writable ({0}): the container that switches IPv6 forwarding on must be privileged", path = ipv6::SWITCH)]
    Ipv6Unwritable(std::io::Error),
}

/// A socket that becomes readable when an interface comes, changes, or is switched on or off.
pub fn watch() -> Result<Socket, NetlinkError> {
    Socket::listen(Protocol::Route, GROUPS)
}

/// Whether the families that the plan forwards are passed on, in this thread's network namespace.
pub fn check(plan: &ForwardingConfig) -> Result<(), ForwardingError> {
    if wants(plan, Family::V4) && !ipv4::is_on().map_err(ForwardingError::Ipv4Unreadable)? {
        return Err(ForwardingError::Ipv4Off);
    }
    if wants(plan, Family::V6) && !ipv6::is_on()? {
        return Err(ForwardingError::Ipv6);
    }
    Ok(())
}

fn wants(plan: &ForwardingConfig, family: Family) -> bool {
    plan.forwards(family).next().is_some()
}

/// Makes sure that the families that the plan forwards are passed on, in this thread's network namespace.
pub fn ensure(plan: &ForwardingConfig) -> Result<(), ForwardingError> {
    if wants(plan, Family::V4) {
        for interface in ipv4::enable().map_err(ForwardingError::Ipv4)? {
            tracing::info!(interface, "switched IPv4 forwarding on");
        }
    }
    if wants(plan, Family::V6) && !ipv6::is_on()? {
        return Err(ForwardingError::Ipv6);
    }
    Ok(())
}
