//! The ipMode of published addresses. Pure.

/// The `ipMode` in a Service's status. With `VIP`, kube-proxy may forward packets to the address itself. With `Proxy`,
/// kube-proxy must not forward them (<https://kubernetes.io/docs/concepts/services-networking/service/#load-balancer-ip-mode>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpMode {
    Vip,
    Proxy,
}

impl IpMode {
    /// Returns the name that a Service's status contains.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Vip => "VIP",
            Self::Proxy => "Proxy",
        }
    }

    /// Parses the name that a Service's status contains.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Vip, Self::Proxy].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// The value of the operator's flag `--ip-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum IpModeSetting {
    #[value(name = "auto")]
    Auto,
    #[value(name = "VIP")]
    Vip,
    Proxy,
}
