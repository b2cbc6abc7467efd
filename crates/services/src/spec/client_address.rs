//! The address that endpoints see as the client's address. Pure.

/// The address that endpoints see as the client's address. The annotation `akrobateo.io/client-address` and the flag
/// `--client-address` have this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum ClientAddress {
    /// The client's own address, if the network between the nodes allows it.
    Keep,
    /// An address of the node to which the client connects.
    Masquerade,
}

impl ClientAddress {
    /// Parses the value of the annotation.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "keep" => Ok(Self::Keep),
            "masquerade" => Ok(Self::Masquerade),
            _ => Err("unknown value"),
        }
    }
}
