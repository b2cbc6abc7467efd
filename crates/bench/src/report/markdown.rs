//! The results as tables of a Markdown document. Pure.

use crate::footprint::Footprint;
use crate::measure::{Measure, Quantity, Sample};
use crate::results::Results;
use crate::sampling::precise;
use crate::start::Until;
use crate::stats::{Spread, absolute, ratio};
use crate::targets::{Bound, Judged, judge, name};
use crate::variant::{KERNEL, USERSPACE, Variant, named};

const RATES: [Quantity; 7] = [
    Quantity::Rate(Measure::Connections),
    Quantity::Rate(Measure::Up),
    Quantity::Rate(Measure::Down),
    Quantity::Rate(Measure::Datagrams),
    Quantity::Rate(Measure::Requests),
    Quantity::P50,
    Quantity::P99,
];
const CPU: [Quantity; 5] = [
    Quantity::Cpu(Measure::Connections),
    Quantity::Cpu(Measure::Up),
    Quantity::Cpu(Measure::Down),
    Quantity::Cpu(Measure::Datagrams),
    Quantity::Cpu(Measure::Requests),
];

/// All results.
pub(crate) fn markdown(results: &Results) -> String {
    let samples = &results.samples;
    let shown = |any: bool, table: fn(&Results) -> String| any.then(|| table(results));
    let sections = [
        ("Without PROXY header, against direct routing = 1.00", compared(samples, &KERNEL, "direct")),
        (
            "With PROXY header (v2; nginx v1), against HAProxy as it comes = 1.00",
            compared(samples, &USERSPACE, "haproxy-proxy"),
        ),
        ("Medians in units", shown(!samples.is_empty(), units)),
        ("Start", shown(!results.starts.is_empty(), starts)),
        ("Footprint", shown(!results.footprints.is_empty(), footprints)),
        ("Replacement", shown(!results.replaced.is_empty(), replacements)),
        ("Targets", Some(targets(&judge(results)))),
    ];
    let sections =
        sections.into_iter().filter_map(|(title, body)| Some(["\n### ", title, "\n\n", &body?].concat()));
    [machine(results)].into_iter().chain(sections).collect()
}

/// Tables of the variants' ratios, if that to which they are set in relation was measured.
fn compared(samples: &[Sample], variants: &[Variant], against: &str) -> Option<String> {
    let measured: Vec<_> = variants.iter().filter(|variant| has(samples, **variant)).copied().collect();
    let tables = [&RATES[..], &CPU].map(|columns| ratios(samples, &measured, columns, against));
    measured.iter().any(|variant| variant.name == against).then(|| tables.join("\n"))
}

fn has(samples: &[Sample], variant: Variant) -> bool {
    samples.iter().any(|sample| sample.variant == variant.name)
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let programs: Vec<_> =
        machine.programs.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let others = Spread::of(results.samples.iter().map(|sample| sample.others * 100.0).collect());
    let noise = others.map_or(String::new(), |others| {
        format!(
            "Meanwhile others used {:.0} % of the machine in the median sample (quartiles {:.0} and {:.0}).\n",
            others.median, others.low, others.high
        )
    });
    let failed: u64 = results
        .samples
        .iter()
        .filter(|sample| sample.measure != Measure::Datagrams)
        .map(|one| one.failed)
        .sum();
    format!(
        "{} processors ({}), {} MiB of memory, Linux {}; {}.\n{} rounds of {} s per sample; {failed} connections failed.\n{noise}",
        machine.processors,
        machine.processor,
        machine.memory,
        machine.kernel,
        programs.join(", "),
        results.rounds,
        results.seconds,
    )
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    format!("| {} |\n", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

fn head(columns: &[&str]) -> String {
    let names = row(columns.iter().map(|&column| column.to_owned()));
    format!("{names}|{}\n", "---|".repeat(columns.len()))
}

fn ratios(samples: &[Sample], variants: &[Variant], columns: &[Quantity], against: &str) -> String {
    let names = columns.iter().map(|&quantity| name(quantity));
    let mut text = head(&[""].into_iter().chain(names).collect::<Vec<_>>());
    for variant in variants {
        let cell = |&quantity: &Quantity| {
            ratio(samples, quantity, variant.name, against)
                .map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median))
        };
        text += &row([variant.title.to_owned()].into_iter().chain(columns.iter().map(cell)));
    }
    text
}

fn units(results: &Results) -> String {
    let samples = &results.samples;
    let columns = [
        "",
        "conn/s",
        "up Gbit/s",
        "down Gbit/s",
        "UDP pkt/s",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "CPU µs per conn",
        "CPU s per GB down",
    ];
    let mut text = head(&columns);
    for variant in KERNEL.iter().chain(&USERSPACE).filter(|variant| has(samples, **variant)) {
        let cell = |quantity, scale: f64, digits: usize| {
            absolute(samples, quantity, variant.name)
                .map_or("-".to_owned(), |spread| grouped(&format!("{:.digits$}", spread.median * scale)))
        };
        let bits = 8e-9;
        text += &row([
            format!("{}{}", variant.title, if variant.header() { ", PROXY" } else { "" }),
            cell(Quantity::Rate(Measure::Connections), 1.0, 0),
            cell(Quantity::Rate(Measure::Up), bits, 1),
            cell(Quantity::Rate(Measure::Down), bits, 1),
            cell(Quantity::Rate(Measure::Datagrams), 1.0, 0),
            cell(Quantity::Rate(Measure::Requests), 1.0, 0),
            cell(Quantity::P50, 1e6, 0),
            cell(Quantity::P99, 1e6, 0),
            cell(Quantity::Cpu(Measure::Connections), 1e6, 0),
            cell(Quantity::Cpu(Measure::Down), 1e9, 2),
        ]);
    }
    text
}

/// A number with commas between thousands.
fn grouped(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let digits = whole.len();
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (digits - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

fn starts(results: &Results) -> String {
    let mut text = head(&["", "exec to rules active", "exec to ready", "exec to a client's first answer"]);
    for variant in &KERNEL {
        let median = |until| {
            let of =
                results.starts.iter().filter(|start| start.variant == variant.name && start.until == until);
            Spread::of(of.map(|start| start.seconds).collect())
        };
        let medians = [Until::Active, Until::Ready, Until::FirstConnection].map(median);
        if medians.iter().any(Option::is_some) {
            let cell = |spread: Option<Spread>| {
                let milliseconds = spread.map(|spread| grouped(&format!("{:.1}", spread.median * 1e3)));
                milliseconds.map_or("-".to_owned(), |milliseconds| format!("{milliseconds} ms"))
            };
            text += &row([variant.title.to_owned()].into_iter().chain(medians.map(cell)));
        }
    }
    text
}

fn footprints(results: &Results) -> String {
    let columns = ["", "memory", "idle connections", "memory of each", "descriptors of each"];
    let rows = results.footprints.iter().map(footprint);
    let megabytes = |bytes: u64| precise(bytes) / 1e6;
    let image = results.image.map(|[size, packed]| {
        let (size, packed) = (megabytes(size), megabytes(packed));
        format!("\nThe binary, all that the image has: {size:.2} MB, packed {packed:.2} MB.\n")
    });
    [head(&columns)].into_iter().chain(rows).chain(image).collect()
}

fn replacements(results: &Results) -> String {
    let columns =
        ["100 replacements of the table under load", "connections served", "failed", "took over 0.9 s"];
    let rows = results.replaced.iter().map(|one| {
        let title = named(one.variant).map_or(one.variant, |variant| variant.title);
        row([
            title.to_owned(),
            grouped(&one.served.to_string()),
            one.failed.to_string(),
            one.late.to_string(),
        ])
    });
    [head(&columns)].into_iter().chain(rows).collect()
}

fn footprint(one: &Footprint) -> String {
    let variant = named(one.variant);
    let title = variant.as_ref().map_or(one.variant, |variant| variant.title);
    let header = if variant.is_ok_and(Variant::header) { ", PROXY" } else { "" };
    let memory = format!("{:.1} MB", precise(one.memory) / 1e6);
    let [connections, each, descriptors] = one.idle.map_or(["-", "-", "-"].map(str::to_owned), |idle| {
        [
            grouped(&idle.connections.to_string()),
            format!("{:.1} KB", idle.memory / 1e3),
            format!("{:.1}", idle.descriptors),
        ]
    });
    row([format!("{title}{header}"), memory, connections, each, descriptors])
}

fn targets(judged: &[Judged]) -> String {
    let mut text = head(&["of", "against", "", "target", "measured (quartiles)", ""]);
    for one in judged.iter().filter(|one| one.measured.is_some()) {
        let digits = if one.what.starts_with("exec") { 4 } else { 2 };
        let bound = match one.bound {
            Bound::AtLeast(least) => format!("≥ {least}"),
            Bound::AtMost(most) => format!("≤ {most}"),
        };
        let measured = one.measured.map_or("-".to_owned(), |spread| {
            if (spread.high - spread.low).abs() < f64::EPSILON {
                return format!("{:.digits$}", spread.median);
            }
            format!("{:.digits$} ({:.digits$} to {:.digits$})", spread.median, spread.low, spread.high)
        });
        let met = match one.met() {
            Some(true) => "met",
            Some(false) => "**not met**",
            None => "",
        };
        text += &row([one.of, one.against, one.what, &bound, &measured, met].map(str::to_owned));
    }
    let missing = judged.iter().filter(|one| one.measured.is_none()).count();
    let note = (missing > 0).then(|| format!("\n{missing} targets were not measured.\n"));
    text + &note.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, wanted) in [("1", "1"), ("999", "999"), ("1000", "1,000"), ("1234567.5", "1,234,567.5")]
        {
            assert_eq!(grouped(number), wanted);
        }
    }

    #[test]
    fn a_table_has_the_median_of_ratios_and_a_dash_for_what_was_not_measured() {
        let sample = |variant, round, rate| {
            let measure = Measure::Up;
            Sample { measure, variant, round, rate, cpu: 1.0, latency: None, failed: 0, others: 0.25 }
        };
        let samples = vec![
            sample("direct", 0, 10.0),
            sample("akrobateo", 0, 5.0),
            sample("direct", 1, 20.0),
            sample("akrobateo", 1, 14.0),
        ];
        let text = markdown(&Results { samples, ..Results::default() });
        assert!(text.contains("| **akrobateo-lb**, 1 port | - | 0.60 | - |"), "{text}");
        assert!(text.contains("others used 25 %"), "{text}");
        assert!(text.contains("targets were not measured") && !text.contains("HAProxy"), "{text}");
    }

    #[test]
    fn a_target_that_is_missed_says_so() {
        let one = |measured| Judged {
            of: "userspace",
            against: "nginx",
            what: "bulk up",
            bound: Bound::AtLeast(1.25),
            measured: Spread::of(measured),
        };
        let text = targets(&[one(vec![1.0, 1.2, 1.3]), one(vec![1.3])]);
        assert!(text.contains("| ≥ 1.25 | 1.20 (1.10 to 1.25) | **not met** |"), "{text}");
        assert!(text.contains("| 1.30 | met |"), "{text}");
    }
}
