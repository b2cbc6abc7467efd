//! Chooses a warning from conntrack's statistics. Pure.

use netfilter::conntrack::Statistics;

/// A reason why conntrack dropped packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConntrackLoss {
    /// The conntrack table was full: the kernel dropped packets or evicted entries.
    TableFull,
    /// New flows had the same addresses and ports as existing entries.
    Clash,
}

impl ConntrackLoss {
    /// Returns the most serious reason for drops since the last check; `None` if nothing was dropped.
    /// `recent_statistics` has the increase of each counter since the last check.
    pub(super) fn find_most_serious_loss(recent_statistics: &Statistics) -> Option<Self> {
        if recent_statistics.table_full_drops() > 0 || recent_statistics.evictions > 0 {
            return Some(Self::TableFull);
        }
        (recent_statistics.failed_insertions > 0).then_some(Self::Clash)
    }

    /// Returns the text for the log and for the pod's event.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::TableFull => {
                "the conntrack table is full: new connections are dropped; raise net.netfilter.nf_conntrack_max on \
                 the node"
            }
            Self::Clash => {
                "new connections were dropped because other connections use the same addresses and ports: the source \
                 ports towards one target may be used up; spread the clients over more nodes"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_conntrack_table_takes_precedence_over_a_clash() {
        let statistics_without_loss =
            Statistics { entries: 7, max_entries: Some(8), ..Statistics::default() };
        let clash_statistics = Statistics { failed_insertions: 1, drops: 1, ..statistics_without_loss };
        assert_eq!(ConntrackLoss::find_most_serious_loss(&statistics_without_loss), None);
        assert_eq!(ConntrackLoss::find_most_serious_loss(&clash_statistics), Some(ConntrackLoss::Clash));
        for full_table_statistics in
            [Statistics { drops: 2, ..clash_statistics }, Statistics { evictions: 1, ..clash_statistics }]
        {
            assert_eq!(
                ConntrackLoss::find_most_serious_loss(&full_table_statistics),
                Some(ConntrackLoss::TableFull),
                "{full_table_statistics:?}"
            );
        }
    }
}
