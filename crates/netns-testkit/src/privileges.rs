//! Reduces the rights of a test to the rights of a container. Does I/O.

use rustix::mount::{MountFlags, mount_bind, mount_remount};
pub use rustix::thread::CapabilitySet;
use rustix::thread::{CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

/// Removes all capabilities of the calling thread permanently, except `kept_capabilities`.
pub fn keep_capabilities(kept_capabilities: CapabilitySet) {
    clear_ambient_capability_set().unwrap();
    let sets = CapabilitySets {
        effective: kept_capabilities,
        permitted: kept_capabilities,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).unwrap();
    set_no_new_privs(true).unwrap();
}

/// Makes `/proc/sys` read-only for the isolated process, as in a container without privileges.
pub fn make_sysctls_read_only() {
    mount_bind("/proc/sys", "/proc/sys").unwrap();
    let flags =
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount("/proc/sys", flags, "").unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Namespace, isolated_as_nobody};

    #[test]
    fn thread_without_capabilities_cannot_change_links_or_sysctls() {
        isolated_as_nobody(|| {
            assert_eq!(rustix::process::geteuid().as_raw(), 65534);
            let namespace = Namespace::new();
            namespace.set_sysctl("ipv4/ip_forward", "1");
            namespace.ip("link add first type veth peer name second");
            make_sysctls_read_only();
            namespace.run(|| {
                keep_capabilities(CapabilitySet::empty());
                let write_result = std::fs::write("/proc/sys/net/ipv4/ip_forward", "0");
                assert_eq!(write_result.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
                let status = std::process::Command::new("ip").args(["link", "delete", "first"]).status();
                assert!(!status.unwrap().success());
            });
        });
    }
}
