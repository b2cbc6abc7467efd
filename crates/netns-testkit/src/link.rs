//! Virtual Ethernet links between namespaces. Does I/O.

use std::net::IpAddr;

use crate::namespace::Namespace;

/// An interface at one end of a link.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// The namespace that the interface is in.
    pub namespace: &'a Namespace,
    /// The interface's name in that namespace.
    pub name: &'a str,
    /// The interface's addresses; [`Namespace::add_addresses`] documents the prefix lengths.
    pub addresses: &'a [IpAddr],
}

/// Creates a veth pair, assigns the addresses of both ends, and sets both ends up.
pub fn connect(near: &Interface<'_>, far: &Interface<'_>) {
    let path = far.namespace.path();
    near.namespace.ip(&format!("link add {} type veth peer name {} netns {path}", near.name, far.name));
    for end in [near, far] {
        end.namespace.add_addresses(end.name, end.addresses);
        end.namespace.ip(&format!("link set {} up", end.name));
    }
}
