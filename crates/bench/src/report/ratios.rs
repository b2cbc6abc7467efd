//! Tables of ratios between variants. Pure.

use super::table::{NOT_MEASURED_CELL, format_table_head, format_table_row};
use crate::quantity::Quantity;
use crate::quartiles::Quartiles;
use crate::sample::Sample;
use crate::variant::Variant;

/// Returns tables with the ratios of the variants to the baseline. Returns `None` if the baseline was not measured.
pub(super) fn ratio_tables(
    samples: &[Sample],
    variants: &[Variant],
    tables_of_columns: &[&[Quantity]],
    baseline: &str,
) -> Option<String> {
    let measured_variants: Vec<_> =
        variants.iter().filter(|variant| is_measured(samples, **variant)).copied().collect();
    let tables: Vec<_> = tables_of_columns
        .iter()
        .map(|columns| ratio_table(samples, &measured_variants, columns, baseline))
        .collect();
    measured_variants.iter().any(|variant| variant.name == baseline).then(|| tables.join("\n"))
}

/// Returns true if the variant has a sample.
pub(super) fn is_measured(samples: &[Sample], variant: Variant) -> bool {
    samples.iter().any(|sample| sample.variant == variant.name)
}

fn ratio_table(samples: &[Sample], variants: &[Variant], columns: &[Quantity], baseline: &str) -> String {
    let titles = columns.iter().map(|quantity| quantity.title());
    let mut table = format_table_head(&[""].into_iter().chain(titles).collect::<Vec<_>>());
    for variant in variants {
        let cell = |&quantity: &Quantity| {
            let ratio = Quartiles::from_ratios(samples, quantity, variant.name, baseline);
            ratio.map_or(NOT_MEASURED_CELL.to_owned(), |ratio| format!("{:.2}", ratio.median))
        };
        table += &format_table_row([variant.title.to_owned()].into_iter().chain(columns.iter().map(cell)));
    }
    table
}
