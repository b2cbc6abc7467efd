//! The ipMode of published addresses. Pure.

/// The `ipMode` in a Service's status. With `VIP`, kube-proxy itself may forward packets to the address. With `Proxy`,
/// kube-proxy must not forward these packets
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#load-balancer-ip-mode>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpMode {
    /// kube-proxy may forward packets to the address itself.
    Vip,
    /// kube-proxy must not forward packets to the address.
    Proxy,
}

impl IpMode {
    /// Returns the name of the ipMode in a Service's status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vip => "VIP",
            Self::Proxy => "Proxy",
        }
    }

    /// Parses the name of an ipMode in a Service's status.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Vip, Self::Proxy].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// The value of the operator's flag `--ip-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum IpModeSetting {
    /// `Proxy` if `VIP` is dangerous in this cluster, otherwise `VIP`.
    #[value(name = "auto")]
    Auto,
    /// Always `VIP`.
    #[value(name = "VIP")]
    Vip,
    /// Always `Proxy`.
    Proxy,
}
