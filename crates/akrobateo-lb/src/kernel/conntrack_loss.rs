//! Chooses a warning from conntrack's statistics. Pure.

use netfilter::conntrack::Statistics;

/// A reason why conntrack dropped packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConntrackLoss {
    /// The conntrack table was full: packets were dropped, or entries evicted.
    TableFull,
    /// New flows clashed with existing entries.
    Clash,
}

impl ConntrackLoss {
    /// Returns the most serious reason for drops in `recent`, the statistics since the last check. Returns `None` if
    /// nothing was dropped.
    pub(super) fn find_most_serious(recent: &Statistics) -> Option<Self> {
        if recent.table_full_drops() > 0 || recent.early_drop > 0 {
            return Some(Self::TableFull);
        }
        (recent.insert_failed > 0).then_some(Self::Clash)
    }

    /// Returns the text for the log and for the pod's event.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::TableFull => {
                "the conntrack table is full: new connections are dropped; raise net.netfilter.nf_conntrack_max on \
                 the node"
            }
            Self::Clash => {
                "new connections were dropped because other connections have their addresses and ports: the source \
                 ports towards one target may be used up; spread the clients over more nodes"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_table_is_worse_than_a_clash() {
        let lossless_statistics = Statistics { entries: 7, max_entries: Some(8), ..Statistics::default() };
        let clash_statistics = Statistics { insert_failed: 1, drop: 1, ..lossless_statistics };
        assert_eq!(ConntrackLoss::find_most_serious(&lossless_statistics), None);
        assert_eq!(ConntrackLoss::find_most_serious(&clash_statistics), Some(ConntrackLoss::Clash));
        for full in
            [Statistics { drop: 2, ..clash_statistics }, Statistics { early_drop: 1, ..clash_statistics }]
        {
            assert_eq!(ConntrackLoss::find_most_serious(&full), Some(ConntrackLoss::TableFull), "{full:?}");
        }
    }
}
