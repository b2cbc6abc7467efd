//! The table of targets. Pure.

use super::table::{format_table_head, format_table_row};
use crate::proxy_targets::RULES_ACTIVE_QUANTITY;
use crate::quartiles::Quartiles;
use crate::target::{Target, TargetLimit};

/// Returns the table of the measured targets.
pub(super) fn target_table(targets: &[Target]) -> String {
    let mut table = format_table_head(&[
        "variant",
        "baseline or unit",
        "quantity",
        "target",
        "measured (quartiles)",
        "result",
    ]);
    let mut unmeasured_target_count = 0;
    for target in targets {
        let Some(quartiles) = target.measured_value else {
            unmeasured_target_count += 1;
            continue;
        };
        let limit_text = match target.limit {
            TargetLimit::AtLeast(value) => format!("≥ {value}"),
            TargetLimit::AtMost(value) => format!("≤ {value}"),
        };
        // Ratios of start times are small, so they need more decimals.
        let decimals = if target.quantity == RULES_ACTIVE_QUANTITY { 4 } else { 2 };
        let result = if target.is_met() == Some(true) { "met" } else { "**not met**" };
        let measured_text = format_quartiles(quartiles, decimals);
        table += &format_table_row(
            [target.variant, target.baseline, target.quantity, &limit_text, &measured_text, result]
                .map(str::to_owned),
        );
    }
    if unmeasured_target_count > 0 {
        let note = format!("\n{unmeasured_target_count} targets were not measured.\n");
        table += &note;
    }
    table
}

/// Returns the median with the quartiles as text, or only the median if the quartiles are equal.
pub(super) fn format_quartiles(quartiles: Quartiles, decimals: usize) -> String {
    let Quartiles { lower_quartile, median, upper_quartile } = quartiles;
    if (upper_quartile - lower_quartile).abs() < f64::EPSILON {
        return format!("{median:.decimals$}");
    }
    format!("{median:.decimals$} ({lower_quartile:.decimals$} to {upper_quartile:.decimals$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_target_is_marked() {
        let target = |values| Target {
            variant: "userspace",
            baseline: "nginx",
            quantity: "bulk up",
            limit: TargetLimit::AtLeast(1.25),
            measured_value: Quartiles::new(values),
        };
        let text = target_table(&[target(vec![1.0, 1.2, 1.3]), target(vec![1.3])]);
        assert!(text.contains("| ≥ 1.25 | 1.20 (1.10 to 1.25) | **not met** |"), "{text}");
        assert!(text.contains("| 1.30 | met |"), "{text}");
    }
}
