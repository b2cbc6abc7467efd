//! The tables of loads with two nodes. Pure.

use super::ratios::{is_measured, ratio_tables};
use super::table::{NOT_MEASURED_CELL, format_table_head, format_table_row, group_thousands};
use crate::load::Load;
use crate::quantity::Quantity;
use crate::quartiles::Quartiles;
use crate::sample::Sample;
use crate::variant::VARIANTS_WITH_TWO_NODES;

/// The title of the ratios.
pub(super) const RATIOS_TITLE: &str = "Two nodes, relative to direct routing to the other node";
/// The title of the absolute values.
pub(super) const MEDIANS_TITLE: &str = "Two nodes, absolute medians";

/// The columns of the ratios.
const COLUMNS: [Quantity; 8] = [
    Quantity::Rate(Load::Connections),
    Quantity::Rate(Load::Upload),
    Quantity::Rate(Load::Download),
    Quantity::Rate(Load::Udp),
    Quantity::ExchangeTime(Load::SingleConnection),
    Quantity::ExchangeTime(Load::SingleDatagram),
    Quantity::CpuTimePerUnitOfLoad(Load::Connections),
    Quantity::CpuTimePerUnitOfLoad(Load::Udp),
];

/// Returns the table of ratios, or `None` if its baseline was not measured.
pub(super) fn ratios(samples: &[Sample]) -> Option<String> {
    ratio_tables(samples, &VARIANTS_WITH_TWO_NODES, &[&COLUMNS], VARIANTS_WITH_TWO_NODES[0].name)
}

/// Returns the table of absolute values, or `None` if no variant was measured.
pub(super) fn medians(samples: &[Sample]) -> Option<String> {
    let columns = [
        "",
        "conn/s",
        "up Gbit/s",
        "down Gbit/s",
        "UDP pkt/s",
        "µs of a connection",
        "µs of a UDP round trip",
        "CPU µs per conn",
        "CPU µs per UDP pkt",
    ];
    let gigabits_per_byte = 8e-9;
    let scales = [
        (1.0, 0),
        (gigabits_per_byte, 1),
        (gigabits_per_byte, 1),
        (1.0, 0),
        (1e6, 2),
        (1e6, 2),
        (1e6, 0),
        (1e6, 2),
    ];
    let variants: Vec<_> =
        VARIANTS_WITH_TWO_NODES.into_iter().filter(|variant| is_measured(samples, *variant)).collect();
    let rows = variants.iter().map(|variant| {
        let cell = |(quantity, (factor, decimals)): (Quantity, (f64, usize))| {
            let quartiles = Quartiles::from_samples(samples, quantity, variant.name);
            quartiles.map_or(NOT_MEASURED_CELL.to_owned(), |quartiles| {
                group_thousands(&format!("{:.decimals$}", quartiles.median * factor))
            })
        };
        let cells = COLUMNS.into_iter().zip(scales).map(cell);
        format_table_row([variant.title.to_owned()].into_iter().chain(cells))
    });
    (!variants.is_empty()).then(|| [format_table_head(&columns)].into_iter().chain(rows).collect())
}
