//! Measures all sizes one after another, and writes the results. Does I/O.

use std::fs;
use std::path::Path;

use netns_testkit::machine::Machine;

use crate::cli::MeasurementOptions;
use crate::cluster::{become_node, node_address, set_up};
use crate::error::{Context, ScaleError};
use crate::measure::measure;
use crate::report::{to_json, to_markdown};
use crate::results::SizeResults;
use crate::size::Size;
use crate::testbed::Testbed;

/// The directory of all files of the clusters. It is private, and it disappears at the end.
const DIRECTORY: &str = "/run/scale";

/// Runs the measurement in its private namespaces.
pub(crate) fn run(options: &MeasurementOptions) -> Result<(), ScaleError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    set_up()?;
    let machine = Machine::detect().context("the properties of the machine")?;
    let mut results = Vec::new();
    for size in &options.sizes {
        results.push(runtime.block_on(measure_size(options, *size))?);
        // A later size may fail, so the results are written after each size.
        let text = to_markdown(&machine, options.seconds, &results);
        let json = to_json(&machine, options.seconds, &results);
        fs::create_dir_all(&options.output).context("the output directory")?;
        fs::write(options.output.join("scale.md"), &text).context("scale.md")?;
        fs::write(options.output.join("scale.json"), format!("{json:#}\n")).context("scale.json")?;
        if results.len() == options.sizes.len() {
            print!("{text}");
        }
    }
    Ok(())
}

async fn measure_size(options: &MeasurementOptions, size: Size) -> Result<SizeResults, ScaleError> {
    let directory = Path::new(DIRECTORY).join(size.to_string());
    let mut results = SizeResults::new(size);
    become_node(&options.agent, node_address(size.nodes - 1))?;
    let mut testbed = Testbed::start(options, size, &directory).await?;
    let result = measure(&mut testbed, options.seconds, &mut results).await;
    // If a program has ended, its log explains the failure better than the failed step.
    result.or_else(|error| testbed.check().and(Err(error)))?;
    Ok(results)
}
