//! The `bench-operator` program compares shared mode with dedicated mode on the cluster that `cluster/up` starts. Does
//! I/O.
//!
//! `make bench-operator` runs this program. The program prints measurements, and does not compare them with limits.

mod endpoint_change;
mod lost_node;
mod many_services;
mod memory;
mod publication;

use std::time::Duration;

use e2e::{
    Failure, Faults, Namespace, fault_test_in_dedicated_mode_within, fault_test_in_shared_mode_within,
};

const TIME_LIMIT: Duration = Duration::from_mins(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    println!("shared mode:");
    fault_test_in_shared_mode_within(TIME_LIMIT, measure_all).await?;
    println!("dedicated mode:");
    fault_test_in_dedicated_mode_within(TIME_LIMIT, measure_all).await
}

/// Makes all measurements in the mode of the namespace, and prints them.
async fn measure_all(namespace: &Namespace, faults: &Faults) -> Result<(), Failure> {
    println!("  {}  memory of the operator without Services", memory::read_operator_memory(faults).await?);
    let durations = publication::measure_publications(namespace).await?;
    println!("  {}  from a new Service to all its addresses in the status", DurationSummary(durations));
    let durations = endpoint_change::measure_endpoint_changes(namespace).await?;
    println!(
        "  {}  from a changed endpoint to the first answer of the new endpoint",
        DurationSummary(durations)
    );
    println!("{}", Box::pin(many_services::measure_hundred_services(namespace, faults)).await?);
    println!("  {}  memory of the operator afterwards", memory::read_operator_memory(faults).await?);
    let durations = lost_node::measure_node_losses(namespace, faults).await?;
    println!("  {}  from the loss of a node to the removal of its address", DurationSummary(durations));
    Ok(())
}

/// Prints the median, the minimum and the maximum of durations.
struct DurationSummary(Vec<Duration>);

impl std::fmt::Display for DurationSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut milliseconds: Vec<_> = self.0.iter().map(Duration::as_millis).collect();
        milliseconds.sort_unstable();
        match &milliseconds[..] {
            [] => f.write_str("no measurement"),
            [minimum, ..] => {
                let (median, maximum) =
                    (milliseconds[milliseconds.len() / 2], milliseconds.last().unwrap_or(minimum));
                write!(f, "{median:6} ms ({minimum} to {maximum}, {} rounds)", milliseconds.len())
            }
        }
    }
}
