//! A whole run: builds the routes, takes the rounds, writes the results. I/O only.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cli::{Cli, Topic};
use crate::cpu::Meter;
use crate::failure::{Failure, Tried};
use crate::footprint;
use crate::machine;
use crate::measure::{Measure, Sample};
use crate::proxy::{Programs, Protocol};
use crate::replacement;
use crate::report::{document, json, markdown};
use crate::results::Results;
use crate::route::Route;
use crate::sampling;
use crate::shuffle::Shuffle;
use crate::start::{self, Start, Until};
use crate::variant::{Variant, Way};

/// Rounds of starts, at most: they hardly differ.
const STARTS: u16 = 15;

/// Measures what was asked for; prints the tables and writes the results.
pub(crate) fn run(cli: &Cli) -> Result<(), Failure> {
    let programs = Programs { lb: cli.lb.clone(), packages: cli.packages.clone() };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut shuffle = Shuffle::new(seed);
    let mut results = Results {
        machine: machine::look(&programs)?,
        rounds: cli.rounds.into(),
        seconds: cli.seconds,
        seed,
        ..Results::default()
    };
    if cli.wants(Topic::Footprint) {
        say("footprint");
        results.image = Some(footprint::image(&programs)?);
        for variant in cli.variants().into_iter().filter(|&variant| footprint::has(variant)) {
            results.footprints.extend(footprint::measure(variant, &programs)?);
        }
    }
    let kernel = |variant: &Variant| variant.way == Way::Kernel;
    if cli.wants(Topic::Replacement) {
        say("replacement");
        for variant in cli.variants().into_iter().filter(kernel) {
            results.replaced.push(replacement::replace(variant, &programs)?);
        }
    }
    if cli.wants(Topic::Start) {
        results.starts = starts(cli, &programs, &mut shuffle)?;
    }
    results.samples = rounds(cli, &programs, &mut shuffle)?;
    write(cli, &results)
}

fn say(what: &str) {
    eprintln!("bench: {what}");
}

fn starts(cli: &Cli, programs: &Programs, shuffle: &mut Shuffle) -> Result<Vec<Start>, Failure> {
    let mut taken = Vec::new();
    let mut variants = cli.variants();
    variants.retain(|variant| matches!(variant.way, Way::Kernel | Way::Klipper(_)));
    let rounds = cli.rounds.min(STARTS);
    for round in 0..usize::from(rounds) {
        say(&format!("start, round {} of {rounds}", round + 1));
        shuffle.shuffle(&mut variants);
        for &variant in &variants {
            for until in [Until::Active, Until::Ready, Until::FirstConnection] {
                if start::worthwhile(variant, until, round) {
                    taken.push(start::time(variant, until, round, programs)?);
                }
            }
        }
    }
    Ok(taken)
}

fn rounds(cli: &Cli, programs: &Programs, shuffle: &mut Shuffle) -> Result<Vec<Sample>, Failure> {
    let mut plan = Vec::new();
    for measure in Measure::ALL.into_iter().filter(|&measure| cli.wants(Topic::Load(measure))) {
        let protocol = if measure == Measure::Datagrams { Protocol::Udp } else { Protocol::Tcp };
        let variants = cli.variants().into_iter().filter(|variant| variant.carries(measure));
        plan.push((measure, protocol, variants.collect::<Vec<_>>()));
    }
    let mut routes: Vec<(Protocol, Route)> = Vec::new();
    for (_, protocol, variants) in &plan {
        for variant in variants {
            if !routes.iter().any(|(other, route)| other == protocol && route.variant == *variant) {
                say(&format!("building {}, {}", variant.name, protocol.name()));
                routes.push((*protocol, Route::new(*variant, *protocol, programs)?));
            }
        }
    }
    let meter = Meter::new()?;
    let length = Duration::from_secs_f64(cli.seconds);
    let mut samples = Vec::new();
    for round in 0..usize::from(cli.rounds) {
        for (measure, protocol, variants) in &mut plan {
            say(&format!("round {} of {}: {}", round + 1, cli.rounds, measure.name()));
            shuffle.shuffle(variants);
            for variant in variants {
                let route =
                    routes.iter().find(|(other, route)| other == protocol && route.variant == *variant);
                if let Some((_, route)) = route {
                    samples.push(sampling::sample(route, *measure, round, length, &meter)?);
                }
            }
        }
    }
    Ok(samples)
}

fn write(cli: &Cli, results: &Results) -> Result<(), Failure> {
    let tables = markdown::markdown(results);
    fs::create_dir_all(&cli.output).tried("the results' directory")?;
    let put = |name: &str, text: &str| fs::write(cli.output.join(name), text).tried(name);
    put("results.json", &format!("{:#}\n", json::json(results)))?;
    put("results.md", &tables)?;
    if let Some(path) = &cli.into {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).tried(&name)?;
        let renewed = document::renewed(&text, &tables);
        let renewed = renewed.ok_or_else(|| Failure::Wrong(format!("{name} has no marks for results")))?;
        fs::write(path, renewed).tried(&name)?;
    }
    println!("{tables}");
    Ok(())
}
