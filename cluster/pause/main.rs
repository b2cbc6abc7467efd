//! Holds a pod's namespaces: sleeps for ever. The runtime ends a sandbox with SIGKILL, so no signal is handled.

fn main() {
    loop {
        std::thread::park();
    }
}
