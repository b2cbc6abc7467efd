//! The results as tables of a Markdown document. Pure.

use super::table::{NOT_MEASURED, group_thousands, head, row};
use crate::footprint::Footprint;
use crate::load::Load;
use crate::quantity::Quantity;
use crate::quartiles::{Quartiles, to_f64};
use crate::results::Results;
use crate::sample::Sample;
use crate::start::StartEvent;
use crate::target::{Bound, RULES_ACTIVE, Target, evaluate};
use crate::variant::{self, Variant, WITH_PROXY_HEADER, WITHOUT_PROXY_HEADER};

/// The columns of the tables of rates and latencies.
const RATES: [Quantity; 7] = [
    Quantity::Rate(Load::Connections),
    Quantity::Rate(Load::Upload),
    Quantity::Rate(Load::Download),
    Quantity::Rate(Load::Udp),
    Quantity::Rate(Load::Requests),
    Quantity::P50,
    Quantity::P99,
];
/// The columns of the tables of CPU time.
const CPU_TIMES: [Quantity; 5] = [
    Quantity::Cpu(Load::Connections),
    Quantity::Cpu(Load::Upload),
    Quantity::Cpu(Load::Download),
    Quantity::Cpu(Load::Udp),
    Quantity::Cpu(Load::Requests),
];

const WITHOUT_PROXY_HEADER_TITLE: &str = "Without PROXY header, relative to direct routing";
const WITH_PROXY_HEADER_TITLE: &str = "With PROXY header (v2; nginx v1), relative to HAProxy's defaults";
const MEDIANS_TITLE: &str = "Absolute medians";
const START_TITLE: &str = "Start";
const FOOTPRINT_TITLE: &str = "Footprint";
const REPLACEMENT_TITLE: &str = "Replacement";
const TARGETS_TITLE: &str = "Targets";

/// Returns the summary and the tables that have values.
pub(crate) fn markdown(results: &Results) -> String {
    let samples = &results.samples;
    let table_if = |has_values: bool, table: fn(&Results) -> String| has_values.then(|| table(results));
    let sections = [
        (WITHOUT_PROXY_HEADER_TITLE, ratio_tables(samples, &WITHOUT_PROXY_HEADER, "direct")),
        (WITH_PROXY_HEADER_TITLE, ratio_tables(samples, &WITH_PROXY_HEADER, "haproxy-proxy")),
        (MEDIANS_TITLE, table_if(!samples.is_empty(), median_table)),
        (START_TITLE, table_if(!results.starts.is_empty(), start_table)),
        (FOOTPRINT_TITLE, table_if(!results.footprints.is_empty(), footprint_table)),
        (REPLACEMENT_TITLE, table_if(!results.replacements.is_empty(), replacement_table)),
        (TARGETS_TITLE, Some(target_table(&evaluate(results)))),
    ];
    let sections =
        sections.into_iter().filter_map(|(title, body)| Some(["\n### ", title, "\n\n", &body?].concat()));
    [summary(results)].into_iter().chain(sections).collect()
}

fn summary(results: &Results) -> String {
    let machine = &results.machine;
    let programs: Vec<_> =
        machine.programs.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let shares = results.samples.iter().map(|sample| sample.other_cpu_share * 100.0).collect();
    let other_programs = Quartiles::new(shares).map_or(String::new(), |share| {
        format!(
            "Other programs used {:.0} % of the CPU time in the median sample (quartiles {:.0} and {:.0}).\n",
            share.median, share.lower, share.upper
        )
    });
    let tcp_samples = results.samples.iter().filter(|sample| sample.load != Load::Udp);
    let failed: u64 = tcp_samples.map(|sample| sample.failed).sum();
    format!(
        "{} processors ({}), {} MiB of memory, Linux {}; {}.\n\
         {} rounds of {} s per sample; {failed} connections failed.\n{other_programs}",
        machine.processors,
        machine.processor,
        machine.memory,
        machine.kernel,
        programs.join(", "),
        results.rounds,
        results.seconds,
    )
}

/// Returns the tables of the variants' ratios to the baseline, if the baseline was measured.
fn ratio_tables(samples: &[Sample], variants: &[Variant], baseline: &str) -> Option<String> {
    let measured: Vec<_> =
        variants.iter().filter(|variant| is_measured(samples, **variant)).copied().collect();
    let tables = [&RATES[..], &CPU_TIMES].map(|columns| ratio_table(samples, &measured, columns, baseline));
    measured.iter().any(|variant| variant.name == baseline).then(|| tables.join("\n"))
}

fn is_measured(samples: &[Sample], variant: Variant) -> bool {
    samples.iter().any(|sample| sample.variant == variant.name)
}

fn ratio_table(samples: &[Sample], variants: &[Variant], columns: &[Quantity], baseline: &str) -> String {
    let titles = columns.iter().map(|quantity| quantity.title());
    let mut table = head(&[""].into_iter().chain(titles).collect::<Vec<_>>());
    for variant in variants {
        let cell = |&quantity: &Quantity| {
            let ratio = Quartiles::from_ratios(samples, quantity, variant.name, baseline);
            ratio.map_or(NOT_MEASURED.to_owned(), |ratio| format!("{:.2}", ratio.median))
        };
        table += &row([variant.title.to_owned()].into_iter().chain(columns.iter().map(cell)));
    }
    table
}

fn median_table(results: &Results) -> String {
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
    let gigabits = 8e-9;
    let mut table = head(&columns);
    for variant in variant::all().filter(|variant| is_measured(&results.samples, *variant)) {
        let cell = |quantity, factor: f64, decimals: usize| {
            Quartiles::from_samples(&results.samples, quantity, variant.name)
                .map_or(NOT_MEASURED.to_owned(), |quartiles| {
                    group_thousands(&format!("{:.decimals$}", quartiles.median * factor))
                })
        };
        table += &row([
            title_with_header(variant),
            cell(Quantity::Rate(Load::Connections), 1.0, 0),
            cell(Quantity::Rate(Load::Upload), gigabits, 1),
            cell(Quantity::Rate(Load::Download), gigabits, 1),
            cell(Quantity::Rate(Load::Udp), 1.0, 0),
            cell(Quantity::Rate(Load::Requests), 1.0, 0),
            cell(Quantity::P50, 1e6, 0),
            cell(Quantity::P99, 1e6, 0),
            cell(Quantity::Cpu(Load::Connections), 1e6, 0),
            cell(Quantity::Cpu(Load::Download), 1e9, 2),
        ]);
    }
    table
}

fn title_with_header(variant: Variant) -> String {
    format!("{}{}", variant.title, if variant.sends_proxy_header() { ", PROXY" } else { "" })
}

fn start_table(results: &Results) -> String {
    let mut table = head(&["", RULES_ACTIVE, "exec to ready", "exec to first reply"]);
    for variant in &WITHOUT_PROXY_HEADER {
        let quartiles = |event| {
            let starts =
                results.starts.iter().filter(|start| start.variant == variant.name && start.event == event);
            Quartiles::new(starts.map(|start| start.seconds).collect())
        };
        let events = [StartEvent::RulesActive, StartEvent::Ready, StartEvent::FirstReply].map(quartiles);
        if events.iter().any(Option::is_some) {
            let cell = |quartiles: Option<Quartiles>| {
                quartiles.map_or(NOT_MEASURED.to_owned(), |quartiles| {
                    format!("{} ms", group_thousands(&format!("{:.1}", quartiles.median * 1e3)))
                })
            };
            table += &row([variant.title.to_owned()].into_iter().chain(events.map(cell)));
        }
    }
    table
}

fn footprint_table(results: &Results) -> String {
    let columns = ["", "memory", "idle connections", "memory per connection", "descriptors per connection"];
    let rows = results.footprints.iter().map(footprint_row);
    let megabytes = |bytes: u64| to_f64(bytes) / 1e6;
    let binary = results.binary.map(|size| {
        let (uncompressed, compressed) = (megabytes(size.uncompressed), megabytes(size.compressed));
        format!("\nThe binary, the image's only file: {uncompressed:.2} MB, compressed {compressed:.2} MB.\n")
    });
    [head(&columns)].into_iter().chain(rows).chain(binary).collect()
}

fn footprint_row(footprint: &Footprint) -> String {
    let title = variant::get(footprint.variant).map_or(footprint.variant.to_owned(), title_with_header);
    let memory = format!("{:.1} MB", to_f64(footprint.memory) / 1e6);
    let idle = footprint.idle.map_or([NOT_MEASURED; 3].map(str::to_owned), |idle| {
        [
            group_thousands(&idle.connections.to_string()),
            format!("{:.1} KB", idle.memory / 1e3),
            format!("{:.1}", idle.descriptors),
        ]
    });
    row([title, memory].into_iter().chain(idle))
}

fn replacement_table(results: &Results) -> String {
    let columns =
        ["100 replacements of the table under load", "connections served", "failed", "took over 0.9 s"];
    let rows = results.replacements.iter().map(|replacements| {
        let title = variant::get(replacements.variant).map_or(replacements.variant, |variant| variant.title);
        row([
            title.to_owned(),
            group_thousands(&replacements.served.to_string()),
            replacements.failed.to_string(),
            replacements.slow.to_string(),
        ])
    });
    [head(&columns)].into_iter().chain(rows).collect()
}

fn target_table(targets: &[Target]) -> String {
    let mut table =
        head(&["variant", "baseline or unit", "quantity", "target", "measured (quartiles)", "result"]);
    let mut not_measured = 0;
    for target in targets {
        let Some(quartiles) = target.measured else {
            not_measured += 1;
            continue;
        };
        let bound = match target.bound {
            Bound::AtLeast(limit) => format!("≥ {limit}"),
            Bound::AtMost(limit) => format!("≤ {limit}"),
        };
        // Ratios of start times are small.
        let decimals = if target.quantity == RULES_ACTIVE { 4 } else { 2 };
        let result = if target.is_met() == Some(true) { "met" } else { "**not met**" };
        let measured = format_quartiles(quartiles, decimals);
        table +=
            &row([target.variant, target.baseline, target.quantity, &bound, &measured, result]
                .map(str::to_owned));
    }
    if not_measured > 0 {
        let note = format!("\n{not_measured} targets were not measured.\n");
        table += &note;
    }
    table
}

/// Returns the median with the quartiles, or only the median of a single value.
fn format_quartiles(quartiles: Quartiles, decimals: usize) -> String {
    let Quartiles { lower, median, upper } = quartiles;
    if (upper - lower).abs() < f64::EPSILON {
        return format!("{median:.decimals$}");
    }
    format!("{median:.decimals$} ({lower:.decimals$} to {upper:.decimals$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_table_has_medians_and_a_dash_for_missing_values() {
        let sample = |variant, round, rate| Sample {
            load: Load::Upload,
            variant,
            round,
            rate,
            cpu: 1.0,
            latency: None,
            failed: 0,
            other_cpu_share: 0.25,
        };
        let samples = vec![
            sample("direct", 0, 10.0),
            sample("akrobateo", 0, 5.0),
            sample("direct", 1, 20.0),
            sample("akrobateo", 1, 14.0),
        ];
        let text = markdown(&Results { samples, ..Results::default() });
        assert!(text.contains("| **akrobateo-lb**, 1 port | - | 0.60 | - |"), "{text}");
        assert!(text.contains("Other programs used 25 %"), "{text}");
        assert!(text.contains("targets were not measured") && !text.contains("HAProxy"), "{text}");
    }

    #[test]
    fn missed_target_is_marked() {
        let target = |values| Target {
            variant: "userspace",
            baseline: "nginx",
            quantity: "bulk up",
            bound: Bound::AtLeast(1.25),
            measured: Quartiles::new(values),
        };
        let text = target_table(&[target(vec![1.0, 1.2, 1.3]), target(vec![1.3])]);
        assert!(text.contains("| ≥ 1.25 | 1.20 (1.10 to 1.25) | **not met** |"), "{text}");
        assert!(text.contains("| 1.30 | met |"), "{text}");
    }

    #[test]
    fn document_has_the_titles_of_the_report() {
        let document = include_str!("../../../../docs/benchmarks.md");
        let titles = [
            WITHOUT_PROXY_HEADER_TITLE,
            WITH_PROXY_HEADER_TITLE,
            MEDIANS_TITLE,
            START_TITLE,
            FOOTPRINT_TITLE,
            REPLACEMENT_TITLE,
            TARGETS_TITLE,
        ];
        let variants = variant::all().map(title_with_header);
        for line in titles.map(|title| format!("\n### {title}\n\n")).into_iter().chain(variants) {
            assert!(document.contains(&line), "docs/benchmarks.md lacks {line:?}");
        }
    }
}
