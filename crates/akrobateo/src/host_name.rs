//! The host name of this process. In a pod the host name is the name of the pod. Does I/O.

/// Returns the host name. Returns an empty text if the host name cannot be read.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
