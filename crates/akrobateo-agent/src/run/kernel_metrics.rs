//! The metrics that the agent reads from the kernel at each scrape: the counters of the Service ports, and the
//! statistics of conntrack. Does I/O.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use netfilter::conntrack::{Conntrack, Statistics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::port_metrics::{ServiceNames, encode_ports, sum_counts};
use crate::config::Service;
use crate::data_path::{DataPathError, PortCounters};
use crate::table::PortCount;

/// Reads the metrics of one network namespace.
#[derive(Debug)]
pub struct KernelReader {
    port_counters: PortCounters,
    conntrack: Conntrack,
}

/// The values that one scrape reads.
#[derive(Debug, Default)]
struct KernelValues {
    port_counts: Vec<PortCount>,
    conntrack: Option<Statistics>,
}

/// The metrics that the agent reads from the kernel at each scrape.
#[derive(Debug, Default)]
pub(super) struct KernelMetrics {
    /// `None` in tests without a network namespace.
    reader: Option<Mutex<KernelReader>>,
    services: Mutex<ServiceNames>,
    /// True if the last read failed. Only the first failure is logged.
    has_failed: AtomicBool,
}

impl KernelReader {
    /// Opens a reader in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, DataPathError> {
        let conntrack = Conntrack::open().map_err(DataPathError::Conntrack)?;
        Ok(Self { port_counters: PortCounters::open()?, conntrack })
    }

    fn read(&self) -> Result<KernelValues, DataPathError> {
        let conntrack = self.conntrack.statistics().map_err(DataPathError::Conntrack)?;
        Ok(KernelValues { port_counts: self.port_counters.read()?, conntrack: Some(conntrack) })
    }
}

impl KernelMetrics {
    pub(super) fn new(reader: Option<KernelReader>) -> Self {
        Self { reader: reader.map(Mutex::new), ..Self::default() }
    }

    /// Sets the Services whose ports have counters.
    pub(super) fn set_services(&self, services: &[Service]) {
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = ServiceNames::new(services);
    }

    /// Reads the values. After an error, the scrape lacks these metrics.
    fn read(&self) -> KernelValues {
        let Some(reader) = &self.reader else { return KernelValues::default() };
        let result = reader.lock().unwrap_or_else(PoisonError::into_inner).read();
        let had_failed = self.has_failed.swap(result.is_err(), Ordering::Relaxed);
        result.unwrap_or_else(|error| {
            if !had_failed {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "cannot read the counters of ports and conntrack; the metrics lack them"
                );
            }
            KernelValues::default()
        })
    }
}

impl Collector for KernelMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let values = self.read();
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        encode_ports(&mut encoder, &sum_counts(&values.port_counts, &services))?;
        encode_conntrack(&mut encoder, values.conntrack.as_ref())
    }
}

fn encode_conntrack(encoder: &mut DescriptorEncoder<'_>, statistics: Option<&Statistics>) -> fmt::Result {
    let gauges = [
        ("conntrack_entries", "Entries in the node's conntrack table.", statistics.map(|it| it.entries)),
        (
            "conntrack_limit",
            "Maximum number of entries in the node's conntrack table.",
            statistics.and_then(|it| it.max_entries),
        ),
    ];
    for (name, help, value) in gauges {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| ConstGauge::new(i64::from(value)).encode(metric))?;
    }
    let counters = [
        (
            "conntrack_full",
            "Packets of all programs dropped because the node's conntrack table was full.",
            statistics.map(Statistics::table_full_drops),
        ),
        (
            "conntrack_evicted",
            "Conntrack entries of all programs evicted because the node's conntrack table was full.",
            statistics.map(|it| it.evictions),
        ),
    ];
    for (name, help, value) in counters {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        value.map_or(Ok(()), |value| ConstCounter::new(value).encode(metric))?;
    }
    Ok(())
}
