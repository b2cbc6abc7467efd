//! Holds the namespaces of a pod: sleeps forever. It handles no signal, because the runtime sends SIGKILL in the end.

fn main() {
    loop {
        std::thread::park();
    }
}
