//! Sleeps forever, so that the namespaces of a pod continue to exist. Ignores all signals until the runtime sends
//! SIGKILL.

fn main() {
    loop {
        std::thread::park();
    }
}
