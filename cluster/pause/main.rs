//! Sleeps forever, so that the namespaces of a pod stay. Handles no signal, because the runtime finally sends SIGKILL.

fn main() {
    loop {
        std::thread::park();
    }
}
