//! Memory and descriptors of a process, from `/proc`. Does I/O.

use std::fs;

use rustix::process::Pid;

/// Returns the resident memory of a process in bytes (`VmRSS` of proc(5)), or `None` if the process has ended.
pub fn resident_memory_bytes(pid: Pid) -> Option<u64> {
    read_memory_bytes(pid, "VmRSS")
}

/// Returns the peak of a process's resident memory in bytes (`VmHWM` of proc(5)), or `None` if the process has ended.
pub fn peak_memory_bytes(pid: Pid) -> Option<u64> {
    read_memory_bytes(pid, "VmHWM")
}

/// Returns a process's resident memory in bytes, without mapped files (`RssAnon` of proc(5)), or `None` if the process
/// has ended.
pub fn anonymous_memory_bytes(pid: Pid) -> Option<u64> {
    read_memory_bytes(pid, "RssAnon")
}

/// Returns the number of open descriptors of a process, or 0 if the process has ended.
pub fn count_open_descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).map_or(0, Iterator::count)
}

/// Returns the number that the kernel would give to the next descriptor of a process.
pub fn lowest_free_descriptor(pid: Pid) -> u64 {
    // The link of a socket does not lead to a file, so the function checks the link itself.
    let is_open =
        |number: &u64| fs::symlink_metadata(format!("/proc/{}/fd/{number}", pid.as_raw_pid())).is_ok();
    (0..=u64::MAX).find(|number| !is_open(number)).unwrap()
}

fn read_memory_bytes(pid: Pid, field: &str) -> Option<u64> {
    parse_memory_bytes(&fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?, field)
}

/// Returns a memory field of `/proc/PID/status` in bytes, or `None` for a kernel thread, which has no memory fields.
fn parse_memory_bytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_field_is_parsed_into_bytes() {
        let status = "Name:\tx\nVmRSS:\t    1544 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(parse_memory_bytes(status, "VmRSS"), Some(1544 * 1024));
        assert_eq!(parse_memory_bytes(status, "RssAnon"), Some(1024));
        assert_eq!(parse_memory_bytes("Name:\tkthreadd\n", "VmRSS"), None);
    }

    #[test]
    fn memory_and_descriptors_of_this_process_are_read() {
        let pid = rustix::process::getpid();
        assert!(resident_memory_bytes(pid) > Some(0) && resident_memory_bytes(pid) <= peak_memory_bytes(pid));
        assert!(count_open_descriptors(pid) >= 3);
    }
}
