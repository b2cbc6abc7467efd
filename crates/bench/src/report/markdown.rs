//! The results as tables of a Markdown document. Pure.

use super::neighbours;
use super::node_table;
use super::ratios::{is_measured, ratio_tables};
use super::table::{NOT_MEASURED_CELL, format_table_head, format_table_row, group_thousands};
use super::targets::target_table;
use super::two_nodes;
use crate::footprint::Footprint;
use crate::load::Load;
use crate::proxy_targets::RULES_ACTIVE_QUANTITY;
use crate::quantity::Quantity;
use crate::quartiles::{Quartiles, to_f64};
use crate::results::Results;
use crate::sample::Sample;
use crate::start::StartEvent;
use crate::targets;
use crate::variant::{self, VARIANTS_WITH_PROXY_HEADER, VARIANTS_WITHOUT_PROXY_HEADER, Variant};

/// The columns of the tables of rates and latencies.
const RATE_AND_LATENCY_COLUMNS: [Quantity; 7] = [
    Quantity::Rate(Load::Connections),
    Quantity::Rate(Load::Upload),
    Quantity::Rate(Load::Download),
    Quantity::Rate(Load::Udp),
    Quantity::Rate(Load::Requests),
    Quantity::MedianLatency,
    Quantity::P99Latency,
];
/// The columns of the tables of CPU time.
const CPU_TIME_COLUMNS: [Quantity; 5] = [
    Quantity::CpuTimePerUnitOfLoad(Load::Connections),
    Quantity::CpuTimePerUnitOfLoad(Load::Upload),
    Quantity::CpuTimePerUnitOfLoad(Load::Download),
    Quantity::CpuTimePerUnitOfLoad(Load::Udp),
    Quantity::CpuTimePerUnitOfLoad(Load::Requests),
];

const WITHOUT_PROXY_HEADER_TITLE: &str = "Without PROXY header, relative to direct routing";
const WITH_PROXY_HEADER_TITLE: &str = "With PROXY header (v2; nginx v1), relative to HAProxy's defaults";
const MEDIANS_TITLE: &str = "Absolute medians";
const START_TITLE: &str = "Start";
const FOOTPRINT_TITLE: &str = "Footprint";
const REPLACEMENT_TITLE: &str = "Replacement";
const TARGETS_TITLE: &str = "Targets";

/// Returns the summary and the tables that have values.
pub(crate) fn results_to_markdown(results: &Results) -> String {
    let samples = &results.samples;
    let columns: [&[Quantity]; 2] = [&RATE_AND_LATENCY_COLUMNS, &CPU_TIME_COLUMNS];
    let table_if_measured =
        |is_measured: bool, table: fn(&Results) -> String| is_measured.then(|| table(results));
    let sections = [
        (
            WITHOUT_PROXY_HEADER_TITLE,
            ratio_tables(samples, &VARIANTS_WITHOUT_PROXY_HEADER, &columns, "direct"),
        ),
        (
            WITH_PROXY_HEADER_TITLE,
            ratio_tables(samples, &VARIANTS_WITH_PROXY_HEADER, &columns, "haproxy-proxy"),
        ),
        (MEDIANS_TITLE, table_if_measured(samples.iter().any(sample_has_one_node), median_table)),
        (START_TITLE, table_if_measured(!results.starts.is_empty(), start_times_table)),
        (FOOTPRINT_TITLE, table_if_measured(!results.footprints.is_empty(), footprint_table)),
        (REPLACEMENT_TITLE, table_if_measured(!results.replacements.is_empty(), proxy_replacement_table)),
        (two_nodes::RATIOS_TITLE, two_nodes::ratios(samples)),
        (two_nodes::MEDIANS_TITLE, two_nodes::medians(samples)),
        (neighbours::STATES_TITLE, neighbours::states(&results.neighbours)),
        (neighbours::CHAINS_TITLE, neighbours::chains(&results.chains)),
        (node_table::TITLE, results.table.as_ref().map(node_table::render)),
        (TARGETS_TITLE, Some(target_table(&targets::evaluate(results)))),
    ];
    let sections =
        sections.into_iter().filter_map(|(title, body)| Some(["\n### ", title, "\n\n", &body?].concat()));
    [summary(results)].into_iter().chain(sections).collect()
}

fn sample_has_one_node(sample: &Sample) -> bool {
    variant::get(sample.variant).is_ok_and(|variant| !variant.has_two_nodes())
}

fn summary(results: &Results) -> String {
    let programs: Vec<_> =
        results.program_versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let other_cpu_percentages =
        results.samples.iter().map(|sample| sample.cpu_share_of_other_programs * 100.0).collect();
    let other_programs_text = Quartiles::new(other_cpu_percentages).map_or(String::new(), |share| {
        format!(
            "Other programs used {:.0} % of the CPU time in the median sample (quartiles {:.0} and {:.0}).\n",
            share.median, share.lower_quartile, share.upper_quartile
        )
    });
    let tcp_samples = results.samples.iter().filter(|sample| sample.load != Load::Udp);
    let failed_connections: u64 = tcp_samples.map(|sample| sample.failure_count).sum();
    format!(
        "{}; {}.\n\
         {} rounds of {} s per sample; {failed_connections} connections failed.\n{other_programs_text}",
        results.machine,
        programs.join(", "),
        results.rounds,
        results.seconds,
    )
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
        "CPU s per downloaded GB",
    ];
    let gigabits_per_byte = 8e-9;
    let mut table = format_table_head(&columns);
    let variants = variant::all().filter(|variant| !variant.has_two_nodes());
    for variant in variants.filter(|variant| is_measured(&results.samples, *variant)) {
        let cell = |quantity, factor: f64, decimals: usize| {
            Quartiles::from_samples(&results.samples, quantity, variant.name)
                .map_or(NOT_MEASURED_CELL.to_owned(), |quartiles| {
                    group_thousands(&format!("{:.decimals$}", quartiles.median * factor))
                })
        };
        table += &format_table_row([
            title_with_proxy_header(variant),
            cell(Quantity::Rate(Load::Connections), 1.0, 0),
            cell(Quantity::Rate(Load::Upload), gigabits_per_byte, 1),
            cell(Quantity::Rate(Load::Download), gigabits_per_byte, 1),
            cell(Quantity::Rate(Load::Udp), 1.0, 0),
            cell(Quantity::Rate(Load::Requests), 1.0, 0),
            cell(Quantity::MedianLatency, 1e6, 0),
            cell(Quantity::P99Latency, 1e6, 0),
            cell(Quantity::CpuTimePerUnitOfLoad(Load::Connections), 1e6, 0),
            cell(Quantity::CpuTimePerUnitOfLoad(Load::Download), 1e9, 2),
        ]);
    }
    table
}

fn title_with_proxy_header(variant: Variant) -> String {
    format!("{}{}", variant.title, if variant.sends_proxy_header() { ", PROXY" } else { "" })
}

fn start_times_table(results: &Results) -> String {
    let mut table =
        format_table_head(&["", RULES_ACTIVE_QUANTITY, "time to readiness", "time to the first reply"]);
    for variant in &VARIANTS_WITHOUT_PROXY_HEADER {
        let quartiles = |event| {
            let starts =
                results.starts.iter().filter(|start| start.variant == variant.name && start.event == event);
            Quartiles::new(starts.map(|start| start.seconds).collect())
        };
        let events = [StartEvent::RulesActive, StartEvent::Ready, StartEvent::FirstReply].map(quartiles);
        if events.iter().any(Option::is_some) {
            let cell = |quartiles: Option<Quartiles>| {
                quartiles.map_or(NOT_MEASURED_CELL.to_owned(), |quartiles| {
                    format!("{} ms", group_thousands(&format!("{:.1}", quartiles.median * 1e3)))
                })
            };
            table += &format_table_row([variant.title.to_owned()].into_iter().chain(events.map(cell)));
        }
    }
    table
}

fn footprint_table(results: &Results) -> String {
    let columns = ["", "memory", "idle connections", "memory per connection", "descriptors per connection"];
    let rows = results.footprints.iter().map(footprint_row);
    let to_megabytes = |bytes: u64| to_f64(bytes) / 1e6;
    let binary_size_text = results.binary_size.map(|size| {
        let (uncompressed, compressed) =
            (to_megabytes(size.uncompressed_bytes), to_megabytes(size.compressed_bytes));
        format!("\nThe binary, the image's only file: {uncompressed:.2} MB, compressed {compressed:.2} MB.\n")
    });
    [format_table_head(&columns)].into_iter().chain(rows).chain(binary_size_text).collect()
}

fn footprint_row(footprint: &Footprint) -> String {
    let title = variant::get(footprint.variant).map_or(footprint.variant.to_owned(), title_with_proxy_header);
    let memory = format!("{:.1} MB", to_f64(footprint.resident_memory_bytes) / 1e6);
    let idle = footprint.idle_connections.map_or([NOT_MEASURED_CELL; 3].map(str::to_owned), |idle| {
        [
            group_thousands(&idle.connection_count.to_string()),
            format!("{:.1} KB", idle.bytes_per_connection / 1e3),
            format!("{:.1}", idle.descriptors_per_connection),
        ]
    });
    format_table_row([title, memory].into_iter().chain(idle))
}

fn proxy_replacement_table(results: &Results) -> String {
    let columns =
        ["100 replacements of the proxy under load", "connections served", "failed", "took over 0.9 s"];
    let rows = results.replacements.iter().map(|result| {
        let title = variant::get(result.variant).map_or(result.variant, |variant| variant.title);
        format_table_row([
            title.to_owned(),
            group_thousands(&result.successful_connections.to_string()),
            result.failed_connections.to_string(),
            result.slow_connections.to_string(),
        ])
    });
    [format_table_head(&columns)].into_iter().chain(rows).collect()
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
            rate_per_second: rate,
            cpu_seconds_per_unit: 1.0,
            latencies: None,
            failure_count: 0,
            cpu_share_of_other_programs: 0.25,
        };
        let samples = vec![
            sample("direct", 0, 10.0),
            sample("akrobateo", 0, 5.0),
            sample("direct", 1, 20.0),
            sample("akrobateo", 1, 14.0),
        ];
        let text = results_to_markdown(&Results { samples, ..Results::default() });
        assert!(text.contains("| **akrobateo-lb**, 1 port | - | 0.60 | - |"), "{text}");
        assert!(text.contains("Other programs used 25 %"), "{text}");
        assert!(text.contains("targets were not measured") && !text.contains("HAProxy"), "{text}");
    }

    #[test]
    fn benchmark_document_has_all_titles_of_the_report() {
        let document = include_str!("../../../../docs/benchmarks.md");
        let titles = [
            WITHOUT_PROXY_HEADER_TITLE,
            WITH_PROXY_HEADER_TITLE,
            MEDIANS_TITLE,
            START_TITLE,
            FOOTPRINT_TITLE,
            REPLACEMENT_TITLE,
            two_nodes::RATIOS_TITLE,
            two_nodes::MEDIANS_TITLE,
            neighbours::STATES_TITLE,
            neighbours::CHAINS_TITLE,
            node_table::TITLE,
            TARGETS_TITLE,
        ];
        let variants = variant::all().map(title_with_proxy_header);
        for line in titles.map(|title| format!("\n### {title}\n\n")).into_iter().chain(variants) {
            assert!(document.contains(&line), "docs/benchmarks.md lacks {line:?}");
        }
    }
}
