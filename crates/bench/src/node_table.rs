//! Measures how long it takes to create and to change the agent's table with many Services. Also measures the memory of
//! a process that has applied this table. Does I/O.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use akrobateo_agent::config::NodeConfig;
use akrobateo_agent::data_path::{DataPath, DataPathError};
use akrobateo_agent::table::NodeTables;
use netfilter::nft::client::Nftables;
use netfilter::nft::{InstalledTable, NftError, Transaction, diff};
use netns_testkit::{Namespace, process};
use rustix::process::Pid;

use crate::agent::data_path_error;
use crate::error::{BenchError, Context};
use crate::large_config::{add_service, change_endpoint, large_config};
use crate::layout::INTERFACE;
use crate::nft_program;
use crate::quartiles::Quartiles;

/// The first argument of a process that applies the table and then waits.
pub(crate) const TABLE_PROCESS_ARGUMENT: &str = "table-process";
/// The number of times that the table is created.
const CREATION_COUNT: u16 = 11;
/// The number of changes of each kind.
const CHANGE_COUNT: u16 = 21;
/// The line that a [`TableProcess`] prints when it has applied the table.
const READY_LINE: &str = "ready\n";

/// A step whose time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableStep {
    /// The agent creates the table from nothing.
    Create,
    /// The kernel's part of [`Self::Create`].
    CreateInKernel,
    /// The nft program creates the same table from a text.
    CreateWithNftProgram,
    /// The agent changes one endpoint. After this step, new flows use the new endpoint.
    ChangeEndpoint,
    /// After [`Self::ChangeEndpoint`], the agent searches the conntrack table for flows to the replaced endpoint.
    DeleteStaleFlows,
    /// The kernel's part of [`Self::ChangeEndpoint`].
    ChangeEndpointInKernel,
    /// The agent adds one Service.
    AddService,
    /// The kernel's part of [`Self::AddService`].
    AddServiceInKernel,
}

impl TableStep {
    /// All steps, in the order of the report.
    pub(crate) const ALL: [Self; 8] = [
        Self::Create,
        Self::CreateInKernel,
        Self::CreateWithNftProgram,
        Self::ChangeEndpoint,
        Self::DeleteStaleFlows,
        Self::ChangeEndpointInKernel,
        Self::AddService,
        Self::AddServiceInKernel,
    ];

    /// The name in the results and in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Create => "table from nothing",
            Self::CreateInKernel => "table from nothing, kernel transaction",
            Self::CreateWithNftProgram => "table from nothing, nft program",
            Self::ChangeEndpoint => "one endpoint changed",
            Self::DeleteStaleFlows => "one endpoint changed, search for its flows afterwards",
            Self::ChangeEndpointInKernel => "one endpoint changed, kernel transaction",
            Self::AddService => "one Service added",
            Self::AddServiceInKernel => "one Service added, kernel transaction",
        }
    }
}

/// The times and the memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TableResult {
    /// The steps with their times in seconds.
    pub(crate) times: Vec<(TableStep, f64)>,
    /// The resident memory of the process in bytes.
    pub(crate) resident_memory_bytes: u64,
    /// The part of the resident memory that belongs to no mapped file.
    pub(crate) anonymous_memory_bytes: u64,
}

impl TableResult {
    /// Returns the quartiles of the times of a step, or `None` if the step was not measured.
    pub(crate) fn quartiles(&self, step: TableStep) -> Option<Quartiles> {
        let times = self.times.iter().filter(|(measured_step, _)| *measured_step == step);
        Quartiles::new(times.map(|(_, seconds)| *seconds).collect())
    }
}

/// Measures all steps and the memory.
pub(crate) fn measure() -> Result<TableResult, BenchError> {
    let namespace = Namespace::new();
    // The agent needs an uplink.
    namespace.ip(&format!("link add {INTERFACE} type veth peer name peer\nlink set {INTERFACE} up"));
    let mut result = TableResult::default();
    namespace.run(|| measure_agent(&mut result.times)).map_err(|error| data_path_error(&error))?;
    namespace
        .run(|| measure_kernel(&mut result.times))
        .map_err(|error| BenchError::UnexpectedState(format!("the agent's table: {error}")))?;
    for seconds in nft_program::measure(&namespace, &NodeTables::new(&large_config()).inet)? {
        result.times.push((TableStep::CreateWithNftProgram, seconds));
    }
    let table_process = TableProcess::start(&namespace)?;
    let pid = Pid::from_child(&table_process.0);
    result.resident_memory_bytes = process::resident_memory_bytes(pid).unwrap_or(0);
    result.anonymous_memory_bytes = process::anonymous_memory_bytes(pid).unwrap_or(0);
    Ok(result)
}

/// Measures complete steps, from a configuration to the kernel's state.
fn measure_agent(times: &mut Vec<(TableStep, f64)>) -> Result<(), DataPathError> {
    let mut config = large_config();
    let mut data_path = DataPath::open()?;
    for _ in 0..CREATION_COUNT {
        data_path.cleanup()?;
        let (seconds, result) = measure_time(|| data_path.apply(&config));
        result?;
        times.push((TableStep::Create, seconds));
    }
    for (step, change) in changes() {
        change(&mut config);
        let (seconds, result) = measure_time(|| data_path.install(&config));
        result?;
        times.push((step, seconds));
        let (seconds, result) = measure_time(|| data_path.delete_stale_state());
        result?;
        if step == TableStep::ChangeEndpoint {
            times.push((TableStep::DeleteStaleFlows, seconds));
        }
    }
    data_path.cleanup().map(drop)
}

/// Measures only the kernel transactions of the steps.
fn measure_kernel(times: &mut Vec<(TableStep, f64)>) -> Result<(), NftError> {
    let mut config = large_config();
    let nftables = Nftables::open()?;
    let table = NodeTables::new(&config).inet;
    for _ in 0..CREATION_COUNT {
        let (seconds, result) = measure_time(|| nftables.execute(&Transaction::create(&table)));
        result?;
        nftables.execute(&Transaction::delete(&table.id))?;
        times.push((TableStep::CreateInKernel, seconds));
    }
    nftables.execute(&Transaction::create(&table))?;
    let mut installed_table = InstalledTable::from(table);
    for (step, change) in changes() {
        change(&mut config);
        let desired_table = NodeTables::new(&config).inet;
        let transaction = diff(Some(&installed_table), &desired_table);
        let (seconds, result) = measure_time(|| nftables.execute(&transaction));
        result?;
        let step = match step {
            TableStep::AddService => TableStep::AddServiceInKernel,
            _ => TableStep::ChangeEndpointInKernel,
        };
        times.push((step, seconds));
        installed_table = desired_table.into();
    }
    nftables.execute(&Transaction::delete(&installed_table.table.id))
}

/// A change of a configuration.
type Change = Box<dyn Fn(&mut NodeConfig)>;

/// Returns all changes. Each change has the step whose time it takes.
fn changes() -> Vec<(TableStep, Change)> {
    let change_endpoints = (1..=CHANGE_COUNT).map(|number| {
        let change: Change = Box::new(move |config| change_endpoint(config, number, number));
        (TableStep::ChangeEndpoint, change)
    });
    let add_services =
        (0..CHANGE_COUNT).map(|_| -> (_, Change) { (TableStep::AddService, Box::new(add_service)) });
    change_endpoints.chain(add_services).collect()
}

fn measure_time<T>(code: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = code();
    (start.elapsed().as_secs_f64(), result)
}

/// A process that has applied the table and waits. The process is killed when the struct is dropped.
struct TableProcess(Child);

impl TableProcess {
    /// Starts a process, and waits until it has applied the configuration.
    fn start(namespace: &Namespace) -> Result<Self, BenchError> {
        let description = "a process with the agent's table";
        let program = std::env::current_exe().context(description)?;
        let mut command = Command::new(program);
        command.arg(TABLE_PROCESS_ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut table_process = Self(namespace.run(|| command.spawn()).context(description)?);
        let mut line = String::new();
        if let Some(output) = table_process.0.stdout.take() {
            BufReader::new(output).read_line(&mut line).context(description)?;
        }
        if line == READY_LINE {
            return Ok(table_process);
        }
        Err(BenchError::Command(description.to_owned(), "it has stopped before it was ready".to_owned()))
    }
}

impl Drop for TableProcess {
    fn drop(&mut self) {
        // An error means that the process has exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Applies the configuration and one change, prints [`READY_LINE`], and waits until the standard input is closed.
pub(crate) fn apply_table_and_wait() -> Result<(), BenchError> {
    let mut config = large_config();
    let mut data_path = DataPath::open().map_err(|error| data_path_error(&error))?;
    data_path.apply(&config).map_err(|error| data_path_error(&error))?;
    change_endpoint(&mut config, 0, 1);
    data_path.apply(&config).map_err(|error| data_path_error(&error))?;
    std::io::stdout().write_all(READY_LINE.as_bytes()).context("the standard output")?;
    std::io::stdout().flush().context("the standard output")?;
    std::io::stdin().read(&mut [0]).context("the standard input")?;
    drop((config, data_path));
    Ok(())
}
