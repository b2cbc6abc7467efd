//! A whole run: builds the testbeds, takes the samples of all rounds, and writes the results. Does I/O.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akrobateo_core::Protocol;
use fastrand::Rng;
use netns_testkit::machine::Machine;

use crate::cli::{Cli, Measurement, Subject};
use crate::cpu_time::CpuMeter;
use crate::error::{BenchError, Context};
use crate::load::Load;
use crate::program_versions::read_program_versions;
use crate::proxy::programs::Programs;
use crate::report::{document, json, markdown};
use crate::results::Results;
use crate::sample::Sample;
use crate::sampling::take_sample;
use crate::start::{Start, StartEvent};
use crate::testbed::Testbed;
use crate::variant::{DataPath, Variant};
use crate::{chain_costs, footprint, neighbours, node_table, replacement, start};

/// The maximum number of rounds for start times. A low number is enough, because start times vary little.
const MAX_START_ROUNDS: u16 = 15;
/// The maximum number of rounds for loads with two nodes. These loads run on pinned processors, so their samples vary
/// less.
const MAX_AGENT_ROUNDS: u16 = 45;
/// The maximum number of rounds for the cost of chains. A low number is enough, because the copies multiply the cost.
const MAX_CHAIN_ROUNDS: u16 = 20;

/// Takes the chosen measurements, prints the tables and writes the results.
pub(crate) fn run(cli: &Cli) -> Result<(), BenchError> {
    let programs = Programs { lb: cli.lb.clone(), package_directory: cli.package_directory.clone() };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let mut rng = Rng::with_seed(seed);
    let mut results = Results {
        machine: Machine::detect().context("the properties of the machine")?,
        program_versions: read_program_versions(&programs)?,
        rounds: cli.rounds.into(),
        seconds: cli.seconds,
        seed,
        ..Results::default()
    };
    if cli.includes_measurement(Measurement::Footprint) && cli.includes_subject(Subject::Proxy) {
        print_progress("footprint");
        results.binary_size = Some(footprint::measure_binary(&programs)?);
        for variant in cli
            .variants(Subject::Proxy)
            .into_iter()
            .filter(|&variant| footprint::is_footprint_measured(variant))
        {
            results.footprints.extend(footprint::measure(variant, &programs)?);
        }
    }
    if cli.includes_measurement(Measurement::Replacement) && cli.includes_subject(Subject::Proxy) {
        print_progress("replacement");
        let uses_kernel_mode = |variant: &Variant| variant.data_path == DataPath::Kernel;
        for variant in cli.variants(Subject::Proxy).into_iter().filter(uses_kernel_mode) {
            results.replacements.push(replacement::measure(variant, &programs)?);
        }
    }
    if cli.includes_measurement(Measurement::Start) && cli.includes_subject(Subject::Proxy) {
        results.starts = measure_starts(cli, &programs, &mut rng)?;
    }
    for (subject, max_rounds) in [(Subject::Proxy, u16::MAX), (Subject::Agent, MAX_AGENT_ROUNDS)] {
        let rounds = cli.rounds.min(max_rounds);
        results.samples.extend(measure_loads(cli, subject, rounds, &programs, &mut rng)?);
    }
    if cli.includes_subject(Subject::Agent) {
        measure_agent(cli, &mut results, &mut rng)?;
    }
    write_results(cli, &results)
}

/// Takes the measurements of the node agent itself, which do not compare variants.
fn measure_agent(cli: &Cli, results: &mut Results, rng: &mut Rng) -> Result<(), BenchError> {
    let (rounds, length) = (cli.rounds.min(MAX_AGENT_ROUNDS), Duration::from_secs_f64(cli.seconds));
    if cli.includes_measurement(Measurement::Neighbours) {
        results.neighbours = neighbours::measure(rounds, length, rng)?;
    }
    if cli.includes_measurement(Measurement::Chains) {
        results.chains = chain_costs::measure(rounds.min(MAX_CHAIN_ROUNDS), length, rng)?;
    }
    if cli.includes_measurement(Measurement::NodeTable) {
        print_progress("the agent's table");
        results.table = Some(node_table::measure()?);
    }
    Ok(())
}

fn print_progress(step: &str) {
    eprintln!("bench: {step}");
}

fn measure_starts(cli: &Cli, programs: &Programs, rng: &mut Rng) -> Result<Vec<Start>, BenchError> {
    let mut starts = Vec::new();
    let mut variants = cli.variants(Subject::Proxy);
    variants.retain(|variant| matches!(variant.data_path, DataPath::Kernel | DataPath::Klipper(_)));
    let rounds = cli.rounds.min(MAX_START_ROUNDS);
    for round in 0..usize::from(rounds) {
        print_progress(&format!("start, round {} of {rounds}", round + 1));
        rng.shuffle(&mut variants);
        for &variant in &variants {
            for event in [StartEvent::RulesActive, StartEvent::Ready, StartEvent::FirstReply] {
                if start::is_measured(variant, event, round) {
                    starts.push(start::measure(variant, event, round, programs)?);
                }
            }
        }
    }
    Ok(starts)
}

/// A load, and the indexes of the testbeds that receive the load.
struct LoadPlan {
    load: Load,
    testbed_indexes: Vec<usize>,
}

fn measure_loads(
    cli: &Cli,
    subject: Subject,
    rounds: u16,
    programs: &Programs,
    rng: &mut Rng,
) -> Result<Vec<Sample>, BenchError> {
    let (testbeds, mut plans) = build_testbeds(cli, subject, programs)?;
    let cpu_meter = CpuMeter::new()?;
    let length = Duration::from_secs_f64(cli.seconds);
    let mut samples = Vec::new();
    for round in 0..usize::from(rounds) {
        for plan in &mut plans {
            print_progress(&format!("round {} of {rounds}: {}", round + 1, plan.load.name()));
            rng.shuffle(&mut plan.testbed_indexes);
            for &index in &plan.testbed_indexes {
                samples.push(take_sample(
                    &testbeds[index].load_path(),
                    plan.load,
                    round,
                    length,
                    &cpu_meter,
                )?);
            }
        }
    }
    Ok(samples)
}

/// Builds one testbed for each variant and protocol that the chosen loads need.
fn build_testbeds(
    cli: &Cli,
    subject: Subject,
    programs: &Programs,
) -> Result<(Vec<Testbed>, Vec<LoadPlan>), BenchError> {
    let mut testbeds = Vec::new();
    let mut testbed_keys: Vec<(Variant, Protocol)> = Vec::new();
    let mut plans = Vec::new();
    for load in Load::ALL.into_iter().filter(|&load| cli.includes_measurement(Measurement::Load(load))) {
        let protocol = load.protocol();
        let mut plan = LoadPlan { load, testbed_indexes: Vec::new() };
        for variant in cli.variants(subject).into_iter().filter(|variant| variant.supports(load)) {
            let key = (variant, protocol);
            let index =
                testbed_keys.iter().position(|existing| *existing == key).unwrap_or(testbed_keys.len());
            if index == testbed_keys.len() {
                print_progress(&format!("building {}, {protocol}", variant.name));
                testbeds.push(Testbed::new(variant, protocol, programs)?);
                testbed_keys.push(key);
            }
            plan.testbed_indexes.push(index);
        }
        if !plan.testbed_indexes.is_empty() {
            plans.push(plan);
        }
    }
    Ok((testbeds, plans))
}

fn write_results(cli: &Cli, results: &Results) -> Result<(), BenchError> {
    let tables = markdown::results_to_markdown(results);
    fs::create_dir_all(&cli.output).context("the results' directory")?;
    let write = |name: &str, text: &str| fs::write(cli.output.join(name), text).context(name);
    write("results.json", &format!("{:#}\n", json::results_to_json(results)))?;
    write("results.md", &tables)?;
    if let Some(path) = &cli.results_document {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).context(&name)?;
        let updated_document = document::replace_results(&text, &tables).ok_or_else(|| {
            BenchError::UnexpectedState(format!(
                "{name} has no results markers; add the lines {:?} and {:?}",
                document::RESULTS_BEGIN_MARKER,
                document::RESULTS_END_MARKER
            ))
        })?;
        fs::write(path, updated_document).context(&name)?;
    }
    println!("{tables}");
    Ok(())
}
